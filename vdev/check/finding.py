"""What is known of a case, put together from what the check said and what was seen afterwards."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from vdev.check.bench.touched import Touch, Touched
from vdev.check.evidence import Shown
from vdev.check.registry import RingFormat
from vdev.check.target import Ending
from vdev.check.verdict import Failed, Judgement, Verdict, worst
from vdev.errors import BackEndViolation

__all__ = ["Finding", "of_ending", "of_judgement", "of_touched", "of_violation"]

MEMORY_STATEMENT = "hostile.device.memory"
"""What is broken by who touches memory that it was not given."""
READ_ONLY_STATEMENTS = {
    RingFormat.SPLIT: "split.device.descriptor-table.1",
    RingFormat.PACKED: "packed.device.descriptor-table.1",
}
"""What is broken by who writes to a device-readable buffer."""
REPLY_STATEMENT = "vhost-user.back-end.reply.1"
"""What is broken by a message that is none."""

_LAST_LINES = 4
"""Of what a target printed."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A verdict with what shows it. `also_covers` are statements that it speaks of beside the check's own.

    `notes` are sentences for the evidence.
    """

    verdict: Verdict = Verdict.PASS
    statement: str | None = None
    why: str = ""
    expected: str = ""
    observed: str = ""
    shown: tuple[Shown, ...] = ()
    also_covers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def worsen(self, other: "Finding") -> "Finding":
        """Return the graver of the two, this one if they are equal, and of the other one what it shows."""
        graver, lighter = self, other
        # That all was well afterwards adds nothing to what was not done at all.
        if other.verdict is not Verdict.PASS and worst(self.verdict, other.verdict) is not self.verdict:
            graver, lighter = other, self
        besides = f"besides: {lighter.why}" if lighter.why and lighter.verdict is not Verdict.PASS else ""
        return replace(
            graver,
            shown=(*graver.shown, *lighter.shown),
            also_covers=(*graver.also_covers, *lighter.also_covers),
            notes=(*self.notes, *other.notes, *([besides] if besides else [])),
        )


def of_judgement(judgement: Judgement) -> Finding:
    """Return what a check said."""
    if not isinstance(judgement, Failed):
        return Finding(judgement.verdict, why=str(judgement))
    return Finding(
        judgement.verdict,
        judgement.statement,
        str(judgement),
        judgement.expected,
        judgement.observed,
        judgement.shown,
        (judgement.statement,),
    )


def of_violation(violation: BackEndViolation) -> Finding:
    """Return what it means that the target sent bytes that are no message."""
    return Finding(
        Verdict.FAIL,
        REPLY_STATEMENT,
        str(violation),
        "a message",
        str(violation),
        also_covers=(REPLY_STATEMENT,),
    )


def of_ending(ending: Ending) -> Finding:
    """Return what the end of the target means: a crash, or no more than a note."""
    if not ending.is_crash:
        return Finding(notes=(ending.why,))
    printed = [line for line in ending.last_words.splitlines() if line.strip()][-_LAST_LINES:]
    observed = f"{ending.why}; it printed last: {' / '.join(printed)}" if printed else ending.why
    return Finding(
        Verdict.CRASHED, why=ending.why, expected="it lives, or closes and can be reached again", observed=observed
    )


def of_touched(touched: Sequence[Touched], ring_format: RingFormat) -> Finding:
    """Return what it means that these bytes were touched."""
    if not touched:
        return Finding()
    is_held = all(each.kind is Touch.HELD for each in touched)
    statement = READ_ONLY_STATEMENTS[ring_format] if is_held else MEMORY_STATEMENT
    rest = f" and {len(touched) - 1} more" if len(touched) > 1 else ""
    expected = "what the device may only read as it was" if is_held else "nothing touched beside buffers and rings"
    observed = f"{touched[0].name}{rest}"
    return Finding(
        Verdict.FAIL,
        statement,
        f"expected {expected}; observed {observed}",
        expected,
        observed,
        tuple(touched),
        (statement,),
    )
