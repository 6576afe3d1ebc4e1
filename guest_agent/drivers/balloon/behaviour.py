"""How a guest answers the request for hints: what Linux does, and what else was proposed."""

from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from guest_agent.page_database import MAX_ORDER
from spec.balloon import HintAnswer
from vdev.errors import UserError

__all__ = [
    "MAX_BATCH",
    "HintAnswer",
    "HintBehaviour",
    "HintCollecting",
    "HintHolding",
    "HintRefresh",
    "StartBuffer",
]

MAX_BATCH = 64
"""Blocks that can be collected before they are shown to the device: so many have room in the driver's area."""


class HintHolding(Enum):
    """Until when the guest keeps its hands off the pages of a hint."""

    NOTHING = "nothing"
    """They stay free: they may be allocated and written at any time."""
    UNTIL_QUEUED = "until-queued"
    """Off the free list; once the hint is in the queue, memory pressure may take them back. Linux."""
    UNTIL_USED = "until-used"
    """Off the free list; memory pressure may take them back once the device gave the hint back."""


class HintCollecting(Enum):
    """Whether pages are picked only after the command id was posted, or a first batch of them before."""

    AFTER_ANNOUNCING = "after-announcing"
    BEFORE_ANNOUNCING = "before-announcing"


class StartBuffer(Enum):
    """Where a command id stands: in a buffer of its own, or in one field that a later id overwrites."""

    FRESH = "fresh"
    SHARED = "shared"


class HintRefresh(Enum):
    """When the guest answers again under an id that it has answered."""

    NEVER = "never"
    INTERVAL = "interval"
    """Each time when as many milliseconds have passed as the device's configuration says (CONFIG_WITH_INTERVAL)."""
    CONSUMED = "consumed"
    """Each time when the device has given back every buffer of the last answer, after a short rest."""


_AnyEnum = TypeVar("_AnyEnum", bound=Enum)


@dataclass(frozen=True)
class HintBehaviour:
    """The default is what Linux does. Raises UserError for an order or batch that cannot be.

    A list hints blocks of 2**`order` pages, `batch` of them at a time. `single_steps` is for those who look at the
    driver between any two of its pieces (`Piece`): it then does exactly one in each call, and time plays no part.
    """

    answer: HintAnswer = HintAnswer.LIST
    holds: HintHolding = HintHolding.UNTIL_QUEUED
    collects: HintCollecting = HintCollecting.AFTER_ANNOUNCING
    start_buffer: StartBuffer = StartBuffer.FRESH
    refresh: HintRefresh = HintRefresh.NEVER
    order: int = MAX_ORDER
    batch: int = MAX_BATCH
    single_steps: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.order <= MAX_ORDER:
            raise UserError(f"hints of blocks of order {self.order}; give 0 to {MAX_ORDER}")
        if not 1 <= self.batch <= MAX_BATCH:
            raise UserError(f"{self.batch} hints in a batch; give 1 to {MAX_BATCH}")

    @classmethod
    def of(
        cls,
        *,
        answer: str = HintAnswer.LIST.value,
        holds: str = HintHolding.UNTIL_QUEUED.value,
        collects: str = HintCollecting.AFTER_ANNOUNCING.value,
        start_buffer: str = StartBuffer.FRESH.value,
        refresh: str = HintRefresh.NEVER.value,
        order: int = MAX_ORDER,
        batch: int = MAX_BATCH,
        single_steps: bool = False,
    ) -> "HintBehaviour":
        """Return the behaviour that these words name. Raises UserError for a word that means nothing."""
        return cls(
            _named(HintAnswer, "answer", answer),
            _named(HintHolding, "holds", holds),
            _named(HintCollecting, "collects", collects),
            _named(StartBuffer, "start buffer", start_buffer),
            _named(HintRefresh, "refresh", refresh),
            order,
            batch,
            single_steps,
        )


def _named(kind: type[_AnyEnum], what: str, name: str) -> _AnyEnum:
    for member in kind:
        if member.value == name:
            return member
    known = ", ".join(str(member.value) for member in kind)
    raise UserError(f"a guest's hints cannot have {what} {name!r}; choose one of {known}")
