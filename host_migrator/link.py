"""How the stream travels: over a socket, or in memory with a bandwidth that is simulated."""

import select
import socket
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

import trio

from host_migrator.errors import LinkClosed, StreamError
from host_migrator.stream import Buffer
from vdev.schedule import Schedule

__all__ = ["Link", "LoopLink", "Receiver", "SocketLink"]

ItemT = TypeVar("ItemT", covariant=True)
ResultT = TypeVar("ResultT")


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


class SocketLink:
    """A connected stream socket, unix or TCP.

    The work of a call (filling buffers, hashing, the system call) is done in one thread at a time, which gives the GIL
    up for nearly all of it. Cancelling shuts the socket down, so that the thread ends, and then waits for it.
    """

    uses_threads = True

    def __init__(self, sock: socket.socket, buffer_size: int = 1 << 20) -> None:
        sock.setblocking(True)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_size)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = sock

    async def send(self, records: Iterable[Sequence[Buffer]]) -> int:
        """Send in a thread."""
        return await self._in_thread(lambda: self._send(records))

    async def receive(self, receiver: Receiver[ItemT]) -> ItemT:
        """Wait for the first bytes without a thread, then receive in one."""
        if self._socket.fileno() < 0:
            raise LinkClosed("this end closed the link")
        await trio.lowlevel.wait_readable(self._socket)
        return await self._in_thread(lambda: self._receive(receiver))

    def pending(self) -> bool:
        """Poll the socket."""
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        return bool(poller.poll(0))

    async def finish(self) -> None:
        """Half-close, then read into the void."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            return  # The other end is gone already, so nobody is left to be told.
        await self._in_thread(self._drain)

    async def close(self) -> None:
        """Close the socket."""
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()
        await trio.lowlevel.cancel_shielded_checkpoint()

    def _send(self, records: Iterable[Sequence[Buffer]]) -> int:
        total = 0
        for record in records:
            try:
                total += self._send_all(record)
            except OSError as error:
                raise LinkClosed(f"sending: {error.strerror or error}") from error
        return total

    def _send_all(self, record: Sequence[Buffer]) -> int:
        size = sum(memoryview(part).nbytes for part in record)
        sent = self._socket.sendmsg(record)
        if sent < size:
            # Rare: a blocking socket takes all unless a signal or a shutdown cuts in.
            self._socket.sendall(b"".join(record)[sent:])
        return size

    def _receive(self, receiver: Receiver[ItemT]) -> ItemT:
        while True:
            view = receiver.wanted()
            received = 0
            while received < view.nbytes:
                try:
                    count = self._socket.recv_into(view[received:], 0, socket.MSG_WAITALL)
                except OSError as error:
                    raise receiver.truncated(received, error.strerror or str(error)) from error
                if not count:
                    raise receiver.truncated(received, "the other end closed it")
                received += count
            item = receiver.received()
            if item is not None:
                return item

    def _drain(self) -> None:
        void = bytearray(1 << 16)
        try:
            while self._socket.recv_into(void):
                pass
        except OSError:
            return  # A reset ends the link as well as a close does.

    async def _in_thread(self, work: Callable[[], ResultT]) -> ResultT:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._socket.fileno() < 0:
            raise LinkClosed("this end closed the link")
        task = trio.lowlevel.current_task()
        token = trio.lowlevel.current_trio_token()

        def deliver(result: Any) -> None:
            token.run_sync_soon(trio.lowlevel.reschedule, task, result)

        def shut_down(_: Any) -> trio.lowlevel.Abort:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                return trio.lowlevel.Abort.FAILED  # Not connected any more: the thread ends without help.
            return trio.lowlevel.Abort.FAILED

        trio.lowlevel.start_thread_soon(work, deliver)
        try:
            result: ResultT = await trio.lowlevel.wait_task_rescheduled(shut_down)
        except (LinkClosed, StreamError):
            # If it was our own shutdown that broke the link, the truth is that we were cancelled.
            await trio.lowlevel.checkpoint_if_cancelled()
            raise
        return result


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
