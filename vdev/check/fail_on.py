"""Which verdicts make a run a failure: what a person types after --fail-on."""

from dataclasses import dataclass

from spec.statements import catalogue
from vdev.check.result import CaseResult, Report
from vdev.check.verdict import Verdict
from vdev.errors import UserError

__all__ = ["DEFAULT_FAIL_ON", "FailOn"]

DEFAULT_FAIL_ON = "fail:must,crashed,hung"

_VERDICTS = {
    "fail": Verdict.FAIL,
    "crashed": Verdict.CRASHED,
    "hung": Verdict.HUNG,
    "inconclusive": Verdict.INCONCLUSIVE,
    "n/a": Verdict.NOT_APPLICABLE,
}
_LEVELS = ("must", "should", "may")
_NONE = "none"


@dataclass(frozen=True, slots=True)
class FailOn:
    """Pairs of a verdict and the level that its statement must have, None for any."""

    pairs: frozenset[tuple[Verdict, str | None]]

    @classmethod
    def parse(cls, text: str) -> "FailOn":
        """Read a list such as "fail:must,crashed,hung"; "none" is the empty one. Raises UserError, one line.

        "must" stands for MUST and MUST NOT, and so on.
        """
        if text.strip().lower() == _NONE:
            return cls(frozenset())
        return cls(frozenset(_parse_pair(part.strip().lower()) for part in text.split(",")))

    def wants(self, case: CaseResult) -> bool:
        """Say whether this case's verdict is one of them."""
        return any(
            (verdict, level) in self.pairs
            for statement in case.covers
            if (verdict := case.verdict_for(statement)) is case.verdict
            for level in (None, _level_of(statement))
        )

    def of(self, report: Report) -> tuple[CaseResult, ...]:
        """Return the cases that make the report a failure."""
        return tuple(case for case in report.cases if self.wants(case))


def _parse_pair(part: str) -> tuple[Verdict, str | None]:
    name, _, level = part.partition(":")
    if name not in _VERDICTS or (level and level not in _LEVELS) or part.endswith(":"):
        raise UserError(
            f"--fail-on: {part!r} is not one of {', '.join(_VERDICTS)}, with :{', :'.join(_LEVELS)} behind it or not,"
            f" nor {_NONE}"
        )
    return _VERDICTS[name], level or None


def _level_of(statement: str) -> str:
    known = catalogue().get(statement)
    return "must" if known is None else known.level.partition(" ")[0].lower()
