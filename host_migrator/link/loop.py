"""A link between two tasks of one loop, with a simulated bandwidth, that tests can cut where they like."""

from collections import deque
from collections.abc import Iterable, Sequence

import trio

from host_migrator.errors import LinkClosed
from host_migrator.link.interface import ItemT, Receiver
from host_migrator.stream import Buffer
from vdev.schedule import Schedule

__all__ = ["LoopLink"]


class _Pipe:
    """Bytes on their way in one direction."""

    def __init__(self) -> None:
        self.parts: deque[memoryview] = deque()
        self.size = 0
        self.sent_size = 0
        self.ended: str | None = None
        self.abandoned: str | None = None
        self.cut_at: int | None = None
        self._changed = trio.Event()

    def changed(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def wait_changed(self) -> None:
        await self._changed.wait()


class LoopLink:
    """One end of a link between two tasks of one loop; no thread, no socket. Made by `pair`.

    `cut_at`, if set, breaks the link in both directions after that many bytes from this end have got through.
    """

    uses_threads = False

    def __init__(
        self, actor: str, schedule: Schedule, outgoing: _Pipe, incoming: _Pipe, bandwidth: float | None, capacity: int
    ) -> None:
        self._actor = actor
        self._schedule = schedule
        self._outgoing = outgoing
        self._incoming = incoming
        self._bandwidth = bandwidth
        self._capacity = capacity

    @classmethod
    def pair(
        cls,
        schedule: Schedule,
        actors: tuple[str, str] = ("migrator", "destination"),
        *,
        bandwidth: float | None = None,
        capacity: int = 1 << 20,
    ) -> tuple["LoopLink", "LoopLink"]:
        """Return two joined ends.

        `bandwidth` is bytes per second of the schedule's time in each direction, None for no limit; a sender waits
        while `capacity` bytes are on their way.
        """
        there, back = _Pipe(), _Pipe()
        return (
            cls(actors[0], schedule, there, back, bandwidth, capacity),
            cls(actors[1], schedule, back, there, bandwidth, capacity),
        )

    @property
    def sent_size(self) -> int:
        """Bytes that this end has sent."""
        return self._outgoing.sent_size

    def cut_after(self, size: int) -> None:
        """Break the link when `size` bytes in all have left this end."""
        self._outgoing.cut_at = size
        self._cut_if_due()

    def cut(self, why: str = "the link was cut") -> None:
        """Break the link both ways now; what is on its way still arrives."""
        for pipe in (self._outgoing, self._incoming):
            pipe.ended = pipe.ended or why
            pipe.abandoned = pipe.abandoned or why
            pipe.changed()

    async def send(self, records: Iterable[Sequence[Buffer]]) -> int:
        """Put a copy of each record into the pipe and let the simulated time pass."""
        total = 0
        for record in records:
            data = b"".join(record)
            await self._put(data)
            total += len(data)
        await trio.lowlevel.checkpoint()
        return total

    async def receive(self, receiver: Receiver[ItemT]) -> ItemT:
        """Fill the receiver from the pipe, waiting for the other task."""
        pipe = self._incoming
        while True:
            view = receiver.wanted()
            filled = 0
            while filled < view.nbytes:
                while not pipe.parts:
                    if pipe.ended:
                        raise receiver.truncated(filled, pipe.ended)
                    await pipe.wait_changed()
                    await self._schedule.turn(self._actor)
                filled += self._take(view[filled:])
            item = receiver.received()
            if item is not None:
                return item

    def pending(self) -> bool:
        """Look into the pipe."""
        return bool(self._incoming.parts) or self._incoming.ended is not None

    async def finish(self) -> None:
        """End the outgoing pipe and empty the incoming one until the other end closes."""
        self._end_outgoing("the other end closed it")
        while not self._incoming.ended:
            self._drop_incoming()
            await self._incoming.wait_changed()
            await self._schedule.turn(self._actor)

    async def close(self) -> None:
        """Close both ways."""
        self._end_outgoing("the other end closed it")
        self._incoming.abandoned = self._incoming.abandoned or "the other end closed the link"
        self._incoming.ended = self._incoming.ended or "this end closed it"
        self._outgoing.abandoned = self._outgoing.abandoned or "this end closed the link"
        self._drop_incoming()
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def _put(self, data: bytes) -> None:
        pipe = self._outgoing
        while pipe.size >= self._capacity and not pipe.abandoned:
            await pipe.wait_changed()
            await self._schedule.turn(self._actor)
        if self._bandwidth is not None:
            await self._schedule.sleep(self._actor, len(data) / self._bandwidth)
        if pipe.abandoned:
            raise LinkClosed(f"sending: {pipe.abandoned}")
        arriving = data if pipe.cut_at is None else data[: max(pipe.cut_at - pipe.sent_size, 0)]
        if arriving:
            pipe.parts.append(memoryview(arriving))
            pipe.size += len(arriving)
            pipe.sent_size += len(arriving)
            pipe.changed()
        self._cut_if_due()
        if len(arriving) < len(data):
            raise LinkClosed("sending: the link was cut")

    def _cut_if_due(self) -> None:
        pipe = self._outgoing
        if pipe.cut_at is not None and pipe.sent_size >= pipe.cut_at:
            self.cut()

    def _take(self, view: memoryview) -> int:
        pipe = self._incoming
        part = pipe.parts.popleft()
        size = min(len(part), view.nbytes)
        view[:size] = part[:size]
        if size < len(part):
            pipe.parts.appendleft(part[size:])
        pipe.size -= size
        pipe.changed()
        return size

    def _drop_incoming(self) -> None:
        self._incoming.parts.clear()
        self._incoming.size = 0
        self._incoming.changed()

    def _end_outgoing(self, why: str) -> None:
        self._outgoing.ended = self._outgoing.ended or why
        self._outgoing.changed()
