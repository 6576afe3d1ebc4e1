"""How a check ends: with one of six verdicts, and early by raising one of these."""

from enum import Enum

from vdev.check.evidence import Shown
from vdev.errors import VdevError

__all__ = ["Failed", "Inconclusive", "Judgement", "NotApplicable", "TargetCrashed", "TargetHung", "Verdict", "worst"]


class Verdict(Enum):
    """What a check found, the gravest first."""

    FAIL = "FAIL"
    CRASHED = "CRASHED"
    HUNG = "HUNG"
    INCONCLUSIVE = "INCONCLUSIVE"
    PASS = "PASS"
    NOT_APPLICABLE = "N/A"


_ORDER = list(Verdict)


def worst(*verdicts: Verdict) -> Verdict:
    """Return the gravest of some verdicts, N/A of none.

    >>> worst(Verdict.NOT_APPLICABLE, Verdict.PASS, Verdict.HUNG)
    <Verdict.HUNG: 'HUNG'>
    """
    return min(verdicts, key=_ORDER.index, default=Verdict.NOT_APPLICABLE)


class Judgement(VdevError):
    """A check ended early. The message says why, in words for a person."""

    verdict: Verdict


class Failed(Judgement):
    """The other side broke `statement`, an id of `spec.statements`."""

    verdict = Verdict.FAIL

    def __init__(self, statement: str, *, expected: str, observed: str, shown: tuple[Shown, ...] = ()) -> None:
        self.statement = statement
        self.expected = expected
        self.observed = observed
        self.shown = shown
        super().__init__(f"expected {expected}; observed {observed}")


class NotApplicable(Judgement):
    """The condition under which the statement holds is not met."""

    verdict = Verdict.NOT_APPLICABLE


class Inconclusive(Judgement):
    """Nothing can be said, for the reason in the message."""

    verdict = Verdict.INCONCLUSIVE


class TargetCrashed(Judgement):
    """The other side died of what it was given, or does not come back."""

    verdict = Verdict.CRASHED


class TargetHung(Judgement):
    """The other side did not do in time what it had to do; the message states the limit."""

    verdict = Verdict.HUNG
