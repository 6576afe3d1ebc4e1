"""What a strategy is asked, and what it needs of the device."""

from collections.abc import Callable
from typing import Protocol

from vdev.memory import PageRanges

__all__ = ["HintSink", "HintingDevice", "Strategy"]

HintSink = Callable[[PageRanges], int]
"""Takes pages that were free; returns how many of them it cleared from the set still to send."""


class HintingDevice(Protocol):
    """The device's free-page-hint state machine, as a strategy sees it."""

    sink: HintSink | None
    """Where hints go that count."""

    def request(self) -> int | None:
        """Ask the guest under a new command id; None when it cannot be asked."""
        ...

    def stop(self) -> None:
        """Take no hint any more; the guest keeps what it has collected."""
        ...

    def done(self) -> None:
        """Tell the guest to take its pages back."""
        ...


class Strategy(Protocol):
    """Hooks of a migration, called from one task; a sync happens between `before_sync` and `after_sync` at once.

    However the migration ends, `clean_up` is called once, and last.
    """

    @property
    def name(self) -> str:
        """What a report calls it."""
        ...

    @property
    def head_start(self) -> float:
        """The most seconds that the bulk stage may wait for hints; the migrator ends the wait when hints dry up."""
        ...

    def set_up(self, sink: HintSink) -> None:
        """The dirty log is on and every page is to be sent; hints may go to `sink` from now on."""
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
