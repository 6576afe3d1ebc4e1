"""A device class of the user's own, found by where it stands: FILE.py:CLASS or MODULE:CLASS."""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from vdev.device import Device
from vdev.devices.kind import Carrier
from vdev.errors import UserError
from vdev.events import SILENT, Emitter
from vdev.memory import GuestMemory

__all__ = ["load_device_class"]


def load_device_class(place: str) -> Callable[..., Device]:
    """Return what makes a device of the class at `place`; it is called as `vdev.devices.kind.DeviceKind.make` is.

    Raises UserError where there is no such file, module or class, or the class is no `vdev.device.Device`. What the
    user's own code raises when it is imported is not caught: its traceback is for who wrote it.
    """
    where, _, name = place.rpartition(":")
    module = _load_file(Path(where)) if where.endswith(".py") else _load_module(where)
    found = getattr(module, name, None)
    if not (isinstance(found, type) and issubclass(found, Device)):
        raise UserError(f"{where} has no class {name!r} that is a vdev.device.Device{_others(module)}")
    device_class = found

    def make(
        memory: GuestMemory,
        options: Mapping[str, Any] | None = None,
        *,
        carrier: Carrier = Carrier.VHOST_USER,
        events: Emitter = SILENT,
    ) -> Device:
        return device_class(memory, events=events)

    return make


def _others(module: ModuleType) -> str:
    names = [
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Device) and value.__module__ == module.__name__
    ]
    return f"; it has {', '.join(sorted(names))}" if names else ""


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its module up while it is made.
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _load_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not name.startswith(error.name):
            raise
        raise UserError(
            f"there is no module {error.name!r}; a file is named with its path, like ./mine.py:Mine"
        ) from None
