"""What came of the checks: one `CaseResult` for each check and variant, and from them a verdict for each statement."""

from collections.abc import Mapping
from dataclasses import dataclass

from spec.statements import Statement, catalogue
from vdev.check.evidence import Evidence
from vdev.check.verdict import Verdict, worst

__all__ = ["CaseResult", "Report", "StatementResult"]


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One check, done in one variant (a ring format, a game; empty if there is only one).

    `covers` are its statements, `statement` the one that was broken (FAIL). `why` is one sentence, empty for PASS.
    `repeat` is the command that does just this again, empty where there is none.
    """

    check: str
    variant: str
    summary: str
    covers: tuple[str, ...]
    verdict: Verdict
    statement: str | None
    why: str
    evidence: Evidence
    seconds: float
    repeat: str = ""

    @property
    def name(self) -> str:
        """What a person types after --only: the check, and in brackets the variant."""
        return f"{self.check}[{self.variant}]" if self.variant else self.check

    def verdict_for(self, statement: str) -> Verdict:
        """Return what this says of one of its statements: a check that fails at one says nothing of the others."""
        if self.verdict is Verdict.FAIL and statement != self.statement:
            return Verdict.INCONCLUSIVE
        return self.verdict


@dataclass(frozen=True, slots=True)
class StatementResult:
    """All that was found about one statement."""

    statement: Statement
    verdict: Verdict
    cases: tuple[CaseResult, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run. `subject` says in a few words by key what was judged (type, socket, features ...), in that order.

    `stopped` says why not all was done, empty if all was: the target was gone, or somebody `interrupted`.
    """

    side: str
    subject: Mapping[str, str]
    seed: int
    cases: tuple[CaseResult, ...]
    seconds: float
    vdev_version: str
    stopped: str = ""
    interrupted: bool = False

    def statements(self) -> tuple[StatementResult, ...]:
        """Return a result for each statement that a case covers, in the catalogue's order."""
        by_statement: dict[str, list[CaseResult]] = {}
        for case in self.cases:
            for statement in case.covers:
                by_statement.setdefault(statement, []).append(case)
        return tuple(
            StatementResult(
                statement, worst(*(case.verdict_for(name) for case in by_statement[name])), tuple(by_statement[name])
            )
            for name, statement in catalogue().items()
            if name in by_statement
        )

    def count(self, verdict: Verdict) -> int:
        """Return how many cases ended so."""
        return sum(case.verdict is verdict for case in self.cases)
