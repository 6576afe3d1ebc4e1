"""A link over a connected stream socket, unix or TCP."""

import select
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import trio

from host_migrator.errors import LinkClosed, StreamError
from host_migrator.link.interface import ItemT, Receiver
from host_migrator.stream import Buffer

__all__ = ["SocketLink"]

ResultT = TypeVar("ResultT")


class SocketLink:
    """A connected stream socket, unix or TCP.

    The work of a call (filling buffers, hashing, the system call) is done in one thread at a time, which gives the GIL
    up for nearly all of it. Cancelling shuts the socket down, so that the thread ends, and then waits for it.
    A large send buffer, as far as the system allows, lets one end copy while the other hashes.
    """

    uses_threads = True

    def __init__(self, sock: socket.socket, buffer_size: int = 4 << 20) -> None:
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
        if self._socket.fileno() < 0:
            return True
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
