"""Each statement of the catalogue is checked, or says why it is not: exactly one of the two."""

import pkgutil
from collections import defaultdict
from importlib import import_module

import vdev.check.device
import vdev.check.driver.games
import vdev.check.driver.rules
from spec.statements import catalogue
from vdev.check.driver.game import driver_games
from vdev.check.driver.rule import driver_rules
from vdev.check.registry import device_checks

PACKAGES = (vdev.check.device, vdev.check.driver.rules, vdev.check.driver.games)


def all_that_covers():
    """Statement -> names of the checks of devices, and of the rules and games for drivers, that cover it."""
    for package in PACKAGES:
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            import_module(module.name)
    covering = defaultdict(list)
    for registry in (device_checks(), driver_rules(), driver_games()):
        for name, kind in registry.items():
            for statement in kind.covers:
                covering[statement].append(name)
    return covering


def test_each_statement_is_checked_or_says_why_it_is_not():
    covering = all_that_covers()
    offenders = []
    for name, statement in catalogue().items():
        reasons = [word for word in ("unchecked", "missing") if getattr(statement, word)]
        if not covering[name] and not reasons:
            offenders.append(f"{name} ({statement.side} {statement.level}): no check, and no reason why")
        elif covering[name] and reasons:
            offenders.append(f"{name}: {reasons[0]}, and yet covered by {', '.join(covering[name])}")
    assert not offenders, "\n".join(["", *offenders])


def test_nothing_covers_a_statement_that_there_is_not():
    assert not set(all_that_covers()) - set(catalogue())
