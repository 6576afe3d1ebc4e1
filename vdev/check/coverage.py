"""How much of the catalogue is checked: counted, for each chapter and in all."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from spec.statements import Statement, catalogue

__all__ = ["Coverage", "chapter_of", "coverage", "covered_statements", "is_of_the_text", "read_mutants"]

_GROUPS = ("Basic Facilities of a Virtio Device", "Device Types", "Virtio Transport Options")
"""Parts of the text whose chapters are told apart."""
_OWN_PREFIXES = ("vhost-user.", "hostile.", "errata.")
_OWN_PART = ".described."


@dataclass(frozen=True, slots=True)
class Coverage:
    """Counts of statements. `checked` have a check, `proven` one that a mutant fails; a mutant is a broken side.

    What is not `testable` from outside says so (`unchecked`); `absolute_...` are those with MUST or MUST NOT.
    """

    statements: int
    testable: int
    checked: int
    absolute: int
    absolute_testable: int
    absolute_checked: int
    absolute_proven: int

    @property
    def share(self) -> float:
        """The part of the testable MUST and MUST NOT statements that a check with a mutant covers; 1 of none."""
        return self.absolute_proven / self.absolute_testable if self.absolute_testable else 1.0


def chapter_of(statement: Statement) -> str:
    """Return the chapter of a statement, as the text calls it."""
    first, *rest = statement.section.split(" / ")
    return rest[0] if first in _GROUPS and rest else first


def is_of_the_text(statement: Statement) -> bool:
    """Say whether virtio's text has this sentence with its keyword, and not this project alone."""
    return not statement.id.startswith(_OWN_PREFIXES) and _OWN_PART not in statement.id


def coverage(
    statements: Iterable[Statement], covered_by: Mapping[str, Iterable[str]], mutants: Mapping[str, Iterable[str]]
) -> Coverage:
    """Count. `covered_by` has the checks of each statement, `mutants` the mutants of each check."""
    counts = dict.fromkeys(Coverage.__dataclass_fields__, 0)
    for statement in statements:
        checks = tuple(covered_by.get(statement.id, ()))
        is_testable = not statement.unchecked
        is_proven = any(mutants.get(check) for check in checks)
        counts["statements"] += 1
        counts["testable"] += is_testable
        counts["checked"] += bool(checks)
        if statement.is_absolute:
            counts["absolute"] += 1
            counts["absolute_testable"] += is_testable
            counts["absolute_checked"] += is_testable and bool(checks)
            counts["absolute_proven"] += is_testable and is_proven
    return Coverage(**counts)


@cache
def read_mutants() -> Mapping[str, tuple[str, ...]]:
    """Return the names of the mutants that fail each check, as `mutants.txt` lists them: "check: mutant, mutant".

    The tests have the mutants themselves, and see that the list is theirs.
    """
    assert __package__ is not None
    lines = (files(__package__) / "mutants.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.partition(": ") for line in lines if line and not line.startswith("#"))
    return {check: tuple(names.split(", ")) for check, _, names in pairs}


def covered_statements(checks: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """Turn "statements of each check" into "checks of each statement", in the catalogue's order."""
    found: dict[str, list[str]] = {statement: [] for statement in catalogue()}
    for check, statements in checks.items():
        for statement in statements:
            found[statement].append(check)
    return found
