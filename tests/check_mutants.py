"""Sides with one small fault each, and the checks that they fail: a check that nothing fails proves nothing.

`tests/check_mutants_*.py` have a list MUTANTS each. `python tests/check_mutants.py` writes what they say into
`vdev/check/mutants.txt`, from which `vdev check --list` counts.
"""

import contextlib
import importlib
import os
import weakref
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from race_rings_mutants import put

from vdev.check.registry import BOTH, RingFormat
from vdev.check.result import CaseResult
from vdev.check.run import judge
from vdev.check.target_registers import RegistersTarget
from vdev.check.target_thread import ThreadTarget
from vdev.check.verdict import Verdict
from vdev.devices.balloon import BalloonDevice
from vdev.devices.block import BlockDevice, BlockFile
from vdev.devices.entropy import EntropyDevice
from vdev.devices.kind import Carrier

BROKEN = (Verdict.FAIL, Verdict.CRASHED, Verdict.HUNG)
DISK_SIZE = 8 << 20
PATIENCE = 1.0
"""Seconds for each answer of a back end that is broken: many of them never come."""
SLOW = {
    "available.one-kick-for-many",
    "block-ranges.unknown-flags-are-unsupported",
    "block-ranges.zeroes-are-read",
    "indirect.a-table-for-each-place",
    "indirect.mixed-with-direct",
    "mmio.notification-carries-data",
    "size.each-that-is-allowed",
    "size.largest",
}
"""Checks that take ten times as long as most; a third of all the time is theirs."""
EVERYTHING = bool(os.environ.get("CHECK_ALL"))
OTHERS = 8
"""A mutant is judged by one in so many of the checks that are about something else."""
LIST = Path(__file__).parent.parent / "vdev" / "check" / "mutants.txt"
HEADING = "# Which mutants fail which check. Written by: python tests/check_mutants.py\n"


# Devices as they should be. Each function returns what makes one over guest RAM; `cls` is a subclass with a fault.


def entropy(cls=EntropyDevice):
    return cls


def balloon(cls=BalloonDevice, **options):
    return lambda memory: cls(memory, **options)


def block(cls=BlockDevice, *, read_only=False, size=DISK_SIZE, **options):
    """A disk in memory, the same for each device that is made: what one driver wrote, the next one finds."""
    fd = os.memfd_create("disk", os.MFD_CLOEXEC)
    os.truncate(fd, size)

    def make(memory):
        return cls(memory, BlockFile.open(f"/proc/self/fd/{fd}", read_only=read_only), **options)

    weakref.finalize(make, os.close, fd)
    return make


UNBROKEN = {"entropy": entropy, "balloon": balloon, "block": block}


# Faults


@dataclass(frozen=True)
class Mutant:
    """A device with a small fault, in its class (``make``) or put into code of ours (``patch``).

    Each of ``kills`` fails it, in each of ``formats`` that the check has; beside these only ``also``, of which it is
    obvious why; these may be patterns, ``framing.*``. ``kills`` of another verdict than FAIL have it in ``verdict``.
    """

    name: str
    type: str
    kills: frozenset | set
    make: Callable | None = None
    patch: Callable | None = None
    """Called without arguments, gives a context manager inside which the fault is there."""
    also: frozenset | set = frozenset()
    formats: tuple[RingFormat, ...] = BOTH
    carrier: Carrier = Carrier.MMIO
    verdict: Verdict = Verdict.FAIL
    only: tuple[str, ...] = ()
    """The checks that it is judged by, as after --only, if not by all of its type: back ends are slower."""

    @contextlib.contextmanager
    def target(self) -> Iterator:
        """What is to be judged, broken as long as the body runs."""
        with contextlib.ExitStack() as stack:
            if self.patch is not None:
                stack.enter_context(self.patch())
            make = self.make or UNBROKEN[self.type]()
            yield RegistersTarget(make) if self.carrier is Carrier.MMIO else ThreadTarget(make, patience=PATIENCE)


def changed(owner, name, *changes):
    """A ``patch``: method ``name`` of the class ``owner`` with each (old, new) of ``changes`` done in its text."""
    return replaced(lambda patch: put(patch, owner, name, *changes))


def replaced(apply):
    """A ``patch``: ``apply(monkeypatch)`` is done."""

    @contextlib.contextmanager
    def patched():
        with pytest.MonkeyPatch.context() as patch:
            apply(patch)
            yield

    return patched


def broken(cases) -> dict[str, list[CaseResult]]:
    """The cases that are broken, by check."""
    found: dict[str, list[CaseResult]] = {}
    for case in cases:
        if case.verdict in BROKEN:
            found.setdefault(case.check, []).append(case)
    return found


def chosen(mutant: Mutant):
    """What is done with a mutant: its checks in each format, and in one those near it and some of the others.

    With CHECK_ALL all of its type. Near is what has the same subject; the others differ from mutant to mutant.
    """
    at = zlib.crc32(mutant.name.encode())
    one = mutant.formats[at % len(mutant.formats)]
    subjects = {name.partition(".")[0] for name in mutant.kills}

    def is_chosen(case):
        name = case.check.name
        if EVERYTHING or name in mutant.kills:
            return True
        if name in SLOW or (case.variant and case.format is not one):
            return False
        return name.partition(".")[0] in subjects or (zlib.crc32(name.encode()) ^ at) % OTHERS == 0

    return is_chosen


def assert_kills(mutant: Mutant):
    """Judge the mutant by the checks of its type; it fails those that it says, and no other."""
    with mutant.target() as target:
        # A fault in one ring format's code is no news to the other one's checks.
        report = judge(target, mutant.type, only=mutant.only, formats=mutant.formats, choose=chosen(mutant))
    found = broken(report.cases)
    told = "\n".join(f"{case.verdict.value} {case.name}: {case.why}" for cases in found.values() for case in cases)
    assert mutant.kills <= set(found), f"{mutant.name} is not failed by {sorted(mutant.kills - set(found))}:\n{told}"
    others = [name for name in set(found) - mutant.kills if not any(fnmatchcase(name, also) for also in mutant.also)]
    assert not others, f"{mutant.name} is failed by other checks, {sorted(others)}:\n{told}"
    for name in mutant.kills:
        assert {case.verdict for case in found[name]} == {mutant.verdict}, told
        variants = {case.variant for case in report.cases if case.check == name and case.variant}
        wanted = {ring_format.value for ring_format in mutant.formats} & variants
        assert {case.variant for case in found[name]} >= wanted, f"{mutant.name}, {name}: not in all formats\n{told}"


# The list


def modules():
    """The modules of mutants, by name."""
    paths = sorted(Path(__file__).parent.glob("check_mutants_*.py"))
    return {path.stem.removeprefix("check_mutants_"): importlib.import_module(path.stem) for path in paths}


def mutants_of_devices():
    """(subject, mutant) of each broken device."""
    return [
        (subject, mutant)
        for subject, module in modules().items()
        for mutant in module.MUTANTS
        if isinstance(mutant, Mutant)
    ]


def list_text():
    """What `mutants.txt` should hold."""
    by_check: dict[str, set[str]] = {}
    for subject, module in modules().items():
        for mutant in module.MUTANTS:
            for name in mutant.kills:
                by_check.setdefault(name, set()).add(f"{subject}:{mutant.name}")
    lines = (f"{check}: {', '.join(sorted(names))}\n" for check, names in sorted(by_check.items()))
    return HEADING + "".join(lines)


if __name__ == "__main__":
    LIST.write_text(list_text(), encoding="utf-8")
