"""Who stands round a balloon's hinting: the one who takes the hints, and the device that has the queue."""

from typing import Protocol

from vdev.errors import DriverViolation
from vdev.memory.pages import PageRanges
from vdev.virtqueue.queue import DeviceQueue

__all__ = ["HintTaker", "HintedDevice"]


class HintTaker(Protocol):
    """Who takes the hints that count."""

    def take(self, ranges: PageRanges) -> int:
        """Take the pages of hints; return how many of them left the set still to send."""
        ...

    def answer_ended(self) -> None:
        """The driver posted the STOP that ends its answer; its hints were all taken before."""
        ...

    def batch_taken(self) -> bool:
        """All that the device found in its queue was seen.

        True gives the buffers back to the driver now, false keeps them until `Hinting.give_back`.
        """
        ...


class HintedDevice(Protocol):
    """What hinting needs of the balloon round it."""

    def hints_are_usable(self) -> bool:
        """Say whether the driver negotiated hints, the device works, and no content of free pages is relied upon."""
        ...

    def hint_queue(self) -> DeviceQueue | None:
        """Return the free page queue, None while it is not ready."""
        ...

    def show_command_id(self, shown_id: int, is_news: bool) -> None:
        """Store free_page_hint_cmd_id; tell the driver if `is_news`."""
        ...

    def show_refresh_interval(self, milliseconds: int) -> None:
        """Store free_page_hint_interval and tell the driver. Raises ValueError if there is no such field."""
        ...

    def call_driver(self, number: int) -> None:
        """Interrupt for used buffers of queue `number`, if the driver wants to be told."""
        ...

    def needs_reset(self, violation: DriverViolation) -> None:
        """Stop touching the queues."""
        ...
