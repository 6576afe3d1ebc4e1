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

    @property
    def deferred(self) -> bool:
        """Whether `take` only copies, and `clear` is wanted for pages that leave the set still to send."""
        ...

    def start(self) -> None:
        """Forget what was, and note writes from now on."""
        ...

    def take(self) -> Iterator[PageRanges]:
        """Get and clear: yield the pages written since the last take, part by part. Exhaust it before reading a page.

        A deferred log only gets: a page that was not cleared is yielded again.

        Raises DirtyLogLost when the log cannot be read any more.
        """
        ...

    def clear(self, ranges: PageRanges) -> None:
        """The pages of `ranges` leave the set still to send: note writes to them anew. Only for a deferred log."""
        ...

    def stop(self) -> None:
        """Give up what the log took; a second call does nothing."""
        ...
