"""What a strategy is asked, and what it needs of the device."""

from enum import StrEnum
from typing import Protocol

from vdev.devices.balloon.hint_taker import HintTaker

__all__ = ["HintStep", "HintTaker", "HintingDevice", "Refresh", "Strategy"]


class HintStep(StrEnum):
    """What a handler of hints does with a batch that it has popped, one step after the other."""

    CHECK = "check"
    """Ask the strategy whether these hints count."""
    FILTER = "filter"
    """Take their pages out of the set still to send, if they count."""
    SYNC = "sync"
    """Merge the dirty log, without the strategy's hooks."""
    RETURN = "return"
    """Give the buffers back. Always the last step, so no strategy names it."""


class Refresh(StrEnum):
    """When the guest answers again without being asked; the value is the guest's setting."""

    NEVER = "never"
    INTERVAL = "interval"
    CONSUMED = "consumed"


class HintingDevice(Protocol):
    """The device's free-page-hint state machine, as a strategy sees it."""

    sink: HintTaker | None
    """Where hints go that count."""
    checks_id: bool
    """Whether only hints count that follow the id asked for last."""
    polled: bool
    """Whether kicks are not looked at."""

    def request(self) -> int | None:
        """Ask the guest under a new command id; None when it cannot be asked."""
        ...

    def stop(self) -> None:
        """Take no hint any more; the guest keeps what it has collected."""
        ...

    def done(self) -> None:
        """Tell the guest to take its pages back."""
        ...

    def give_back(self) -> None:
        """Give back the oldest batch that is kept."""
        ...

    def flush(self) -> int:
        """Pop everything unread and give it back unapplied; return how many hints that were."""
        ...

    def set_refresh_interval(self, ms: int) -> None:
        """Tell the guest to answer again each `ms` milliseconds; 0 for not."""
        ...


class Strategy(Protocol):
    """Hooks of a migration, called from one task; a sync happens between `before_sync` and `after_sync` at once.

    However the migration ends, `clean_up` is called once, and last. What the handler of hints does is declared:
    `locked`, `handler_steps` and `accepts`.
    """

    @property
    def name(self) -> str:
        """What a report calls it."""
        ...

    @property
    def head_start(self) -> float:
        """The most seconds that the bulk stage may wait for hints; the migrator ends the wait when hints dry up."""
        ...

    @property
    def locked(self) -> bool:
        """Whether the handler pops, checks, filters and returns in one act that excludes syncs."""
        ...

    @property
    def handler_steps(self) -> tuple[HintStep, ...]:
        """What the handler does between popping a batch of hints and returning it, in order."""
        ...

    @property
    def needs_exits(self) -> bool:
        """Whether a kick must be an exit that stops the vCPU while the host handles it."""
        ...

    @property
    def polled(self) -> bool:
        """Whether the handler runs from a timer, and kicks are not looked at."""
        ...

    @property
    def refresh(self) -> Refresh:
        """When the guest must answer again by itself."""
        ...

    @property
    def waits_for_answer(self) -> bool:
        """Whether the bulk stage begins only when the answer is whole, or the wait is given up."""
        ...

    @property
    def answer_outstanding(self) -> bool:
        """Whether that answer was asked for and is not whole yet."""
        ...

    @property
    def advance_due(self) -> bool:
        """Whether `advance` is to be called before the next sync."""
        ...

    def set_up(self, hints: HintTaker) -> None:
        """The dirty log is on and every page is to be sent; hints may go to `hints` from now on."""
        ...

    def accepts(self) -> bool:
        """Whether a hint that comes now counts."""
        ...

    def answer_ended(self) -> None:
        """The guest said that its answer is whole."""
        ...

    def give_back(self) -> None:
        """The handler is through with a batch: its buffers go back."""
        ...

    def advance(self) -> None:
        """Move the command id on ahead of the sync."""
        ...

    def before_sync(self) -> None:
        """The dirty log is about to be merged."""
        ...

    def after_sync(self, running: bool) -> None:
        """The dirty log was merged; `running` is false when the guest is stopped and no sync follows."""
        ...

    def complete(self) -> None:
        """The guest runs at the destination."""
        ...

    def clean_up(self) -> None:
        """The migration is over, in success, failure or cancellation."""
        ...
