"""The rules for all drivers, by subject; those of one device type are in files named after it."""

from importlib import import_module
from pkgutil import iter_modules

__all__ = ["load_rules"]


def load_rules() -> None:
    """Have every rule in this package registered."""
    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
