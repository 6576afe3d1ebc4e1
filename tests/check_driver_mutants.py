"""Drivers of ours with one small fault each, and the rules and games of the judge that they fail."""

import contextlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from check_driver_setup import PACKED, Disk, Rings, breaches, judge_own
from check_mutants import changed, replaced

from vdev.check.result import CaseResult

__all__ = ["SPLIT", "DriverMutant", "assert_killed", "changed", "mutants_of_drivers", "replaced"]

SPLIT = ("split",)


@dataclass(frozen=True)
class DriverMutant:
    """A driver with a fault, in its class (``own``) or put into code of ours (``patch``, as for devices).

    Each of ``kills`` fails it while ``games`` are played in ``formats``, and beside these only ``also``, patterns of
    which it is obvious why. A game that it does not live through is named game.<name>. ``offered`` is a mask.
    """

    name: str
    kills: frozenset | set
    own: type = Rings
    patch: Callable | None = None
    also: frozenset | set = frozenset()
    games: tuple[str, ...] = ("plain",)
    formats: tuple[str, ...] = ("split", "packed")
    offered: int = -1
    options: dict = field(default_factory=dict)

    def judged(self) -> dict[str, CaseResult]:
        """All results by name."""
        only = [f"*[{game}/{each}]" for game in self.games for each in self.formats]
        device_type = "block" if issubclass(self.own, Disk) else "entropy"
        offered = self.offered & ~PACKED if self.formats == SPLIT else self.offered
        with self.patch() if self.patch is not None else contextlib.nullcontext():
            return judge_own(self.own, device_type, only=only, offered=offered, **self.options)


def mutants_of_drivers():
    """(subject, mutant) of each broken driver: those of the modules check_mutants_driver_*."""
    names = sorted(path.stem for path in Path(__file__).parent.glob("check_mutants_driver_*.py"))
    return [
        (name.removeprefix("check_mutants_"), mutant)
        for name in names
        for mutant in importlib.import_module(name).MUTANTS
    ]


def assert_killed(mutant: DriverMutant):
    """The mutant breaks the rules and games that it says, and no other."""
    cases = mutant.judged()
    found = {name.partition("[")[0] for name in breaches(cases)}
    told = "\n".join(f"{name}: {why}" for name, why in breaches(cases).items())
    assert mutant.kills <= found, f"{mutant.name} does not break {sorted(mutant.kills - found)}:\n{told}"
    others = [each for each in found - mutant.kills if not any(fnmatchcase(each, also) for also in mutant.also)]
    assert not others, f"{mutant.name} breaks others, {sorted(others)}:\n{told}"
