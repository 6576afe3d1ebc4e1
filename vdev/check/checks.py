"""All checks of devices that vdev has: importing their modules is what registers them."""

import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib import import_module

import vdev.check.device
from vdev.check.registry import Check, device_checks

__all__ = ["load_device_checks"]


@cache
def load_device_checks() -> Mapping[str, Check]:
    """Import every module of `vdev.check.device`, and return the checks there are, in the modules' order."""
    for module in sorted(pkgutil.iter_modules(vdev.check.device.__path__), key=lambda module: module.name):
        import_module(f"{vdev.check.device.__name__}.{module.name}")
    return device_checks()
