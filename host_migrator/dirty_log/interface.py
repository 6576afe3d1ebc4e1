"""What a dirty log promises, whoever keeps it."""

from collections.abc import Iterator
from typing import Protocol

from vdev.memory import PageRanges

__all__ = ["DirtyLog"]


class DirtyLog(Protocol):
    """Every write to guest RAM, by the guest or by a device, from `start` to `stop`.

    A write that races with `take` is seen by whoever reads the page after that take, or by the next take; never by
    neither.
    """

    @property
    def name(self) -> str:
        """What a report calls it."""
        ...

    def start(self) -> None:
        """Forget what was, and note writes from now on."""
        ...

    def take(self) -> Iterator[PageRanges]:
        """Get and clear: yield the pages written since the last take, part by part. Exhaust it before reading a page.

        Raises DirtyLogLost when the log cannot be read any more.
        """
        ...

    def stop(self) -> None:
        """Give up what the log took; a second call does nothing."""
        ...
