"""What a link promises, whatever it is made of."""

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from host_migrator.errors import StreamError
from host_migrator.stream import Buffer

__all__ = ["ItemT", "Link", "Receiver"]

ItemT = TypeVar("ItemT", covariant=True)


class Receiver(Protocol[ItemT]):
    """What a link fills: a parser that says where it wants its bytes. See `host_migrator.stream.StreamParser`."""

    def wanted(self) -> memoryview:
        """Return the buffer for the next bytes; never empty."""
        ...

    def received(self) -> ItemT | None:
        """Take note that it is filled; return an item when one became complete."""
        ...

    def truncated(self, received_size: int, why: str) -> StreamError:
        """Return the error to raise when the link ends after `received_size` bytes of the buffer."""
        ...


class Link(Protocol):
    """A reliable stream of bytes both ways. One task sends and receives; a call that is cancelled closes the link."""

    @property
    def uses_threads(self) -> bool:
        """Whether `send` and `receive` work in a thread while other tasks run."""
        ...

    async def send(self, records: Iterable[Sequence[Buffer]]) -> int:
        """Send each record's buffers; return the bytes. The iterable is advanced only when a record has left.

        Raises LinkClosed.
        """
        ...

    async def receive(self, receiver: Receiver[ItemT]) -> ItemT:
        """Fill `receiver` until it has an item. Raises what it raises, and its `truncated` when the link ends."""
        ...

    def pending(self) -> bool:
        """Say whether `receive` would find something now: bytes, or the link's end. Never waits."""
        ...

    async def finish(self) -> None:
        """Say that nothing more will be sent, and drop what still comes until the other end closes."""
        ...

    async def close(self) -> None:
        """Give the link up; a second call does nothing."""
        ...
