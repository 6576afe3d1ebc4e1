"""The games with all drivers, by subject; those of one device type are in files named after it."""

from importlib import import_module
from pkgutil import iter_modules

__all__ = ["load_games"]


def load_games() -> None:
    """Have every game in this package registered: what is played first is registered first."""
    names = {module.name for module in iter_modules(__path__)}
    for name in (*_FIRST, *sorted(names.difference(_FIRST))):
        import_module(f"{__name__}.{name}")


_FIRST = ("plain", "order", "notifications")
