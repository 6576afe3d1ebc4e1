"""The games with all drivers, by subject; those of one device type are in files named after it."""

from importlib import import_module
from pkgutil import iter_modules

__all__ = ["load_games"]


def load_games() -> None:
    """Have every game in this package registered."""
    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
