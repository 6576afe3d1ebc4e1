"""Steps that checks over vhost-user have in common."""

import fcntl
import os
import select
import struct
import termios
from collections.abc import Iterator
from contextlib import contextmanager

from spec.vhost_user import PROTOCOL_FEATURES, FrontEndRequest
from vdev.check.bench.arena import FILL
from vdev.check.bench.bench import Bench
from vdev.check.bench.ring import Posted, Ring
from vdev.check.target import ConnectionClosed
from vdev.devices.kind import Carrier

__all__ = [
    "VHOST",
    "is_open_after",
    "need_disabled_rings",
    "round_trip",
    "settle",
    "start_raw",
    "unwritten",
    "wait_read",
    "watched_fd",
]

VHOST = (Carrier.VHOST_USER,)
_KICK_SECONDS = 0.1
_LOOKS = 100


def round_trip(bench: Bench) -> None:
    """Have the back end answer a question: what was sent before has been obeyed."""
    bench.front_end.ask(FrontEndRequest.GET_FEATURES).close()


def wait_read(bench: Bench) -> None:
    """Wait until the back end has read what was sent, for as long as one would have that reads at once."""
    fd = bench.front_end.fileno()
    poll = select.poll()
    poll.register(fd, select.POLLRDHUP)
    for _ in range(_LOOKS):
        [unread] = struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)))
        if not unread:
            return
        poll.poll(1)


def settle(bench: Bench, ring: Ring) -> None:
    """Kick a ring that may not be served, and let a back end that serves it all the same do so."""
    events = bench.front_end.ring_events(ring.number)
    events.kick()
    round_trip(bench)
    poll = select.poll()
    poll.register(bench.front_end.fileno(), select.POLLRDHUP)
    for _ in range(10):
        if events.is_kick_taken():
            break
        poll.poll(_KICK_SECONDS * 100)
    round_trip(bench)


def start_raw(bench: Bench) -> Ring:
    """Bring everything up but the rings, which are neither started nor enabled; returns that of plain requests."""
    bench.start(drive=False)
    return bench.ring()


def need_disabled_rings(bench: Bench) -> None:
    """End the check where rings are enabled from the beginning, as without protocol features."""
    if not bench.front_end.features >> PROTOCOL_FEATURES & 1:
        bench.not_applicable("without protocol features every ring is enabled")


def unwritten(bench: Bench, ring: Ring, posted: list[Posted], statement: str, when: str) -> None:
    """Hold it against `statement` that no device-writable byte of these chains was written."""
    for chain in posted:
        written = ring.written(chain)
        bench.expect(
            written == bytes([FILL]) * len(written),
            statement,
            expected=f"no byte of a buffer written {when}",
            observed="device-writable bytes changed",
            shown=[bench.memory.show(part.address, part.size, "buffer") for part in chain.segments if part.writable],
        )


class WatchedFd:
    """The end of a pipe that is to be sent; says when nobody has it open any more."""

    def __init__(self) -> None:
        self._reading, self.fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def is_dropped(self, seconds: float) -> bool:
        """Close our own copy, and wait for that of the other side; false if it is open after so long."""
        self._close_fd()
        poll = select.poll()
        poll.register(self._reading, 0)
        return bool(poll.poll(seconds * 1000))

    def close(self) -> None:
        """Close both ends."""
        self._close_fd()
        os.close(self._reading)

    def _close_fd(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


@contextmanager
def watched_fd() -> Iterator[WatchedFd]:
    """Give a file descriptor to send, whose copies can be seen to be closed."""
    watched = WatchedFd()
    try:
        yield watched
    finally:
        watched.close()


def is_open_after(bench: Bench) -> bool:
    """Say whether the back end still answers on this connection, after whatever it had to say before."""
    front_end = bench.front_end
    try:
        front_end.send(FrontEndRequest.GET_FEATURES)
        while True:
            message = front_end.receive(after="GET_FEATURES")
            message.close()
            if message.request == FrontEndRequest.GET_FEATURES:
                return True
    except ConnectionClosed:
        return False
