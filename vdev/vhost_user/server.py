"""Serve a device to vhost-user front ends: the back end's socket, kicks and announcements."""

import array
import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import trio

from spec.vhost_user import FrontEndRequest
from vdev.device import Device
from vdev.errors import DriverViolation, FrontEndViolation, UserError
from vdev.events import SILENT, Emitter, FrontEndConnected, FrontEndGone, KickHandled, ViolationFound
from vdev.notify import BusyWait
from vdev.vhost_user.dispatch import Answer
from vdev.vhost_user.event_fd import EventFdGone
from vdev.vhost_user.framing import Message, MessageDecoder, encode
from vdev.vhost_user.session import Session
from vdev.vhost_user.state_carrier import StateCarrier
from vdev.vhost_user.statistics import BackEndStatistics, QueueStatistics
from vdev.vhost_user.vring import Vring

__all__ = ["BackEnd", "listen"]

_MAX_FDS_SENT = 253
"""SCM_MAX_FD: what the kernel lets through in one go. Room for all, so that none is lost unseen."""
_FD_SPACE = socket.CMSG_SPACE(_MAX_FDS_SENT * array.array("i").itemsize)
_KICKS_IN_A_ROW = 16
"""Kicks handled without waiting before other tasks get their turn."""
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_NO_ROOM_INTERVAL = 0.1
"""Seconds until it is tried again to accept somebody for whom this process or machine has no descriptor."""
_POLL_INTERVAL = 0.001
"""Seconds between two looks at a ring that is not kicked."""


def listen(path: Path) -> socket.socket:
    """Return a socket that listens at `path`; one that a dead process left there is replaced. Raises UserError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            sock.bind(str(path))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not path.is_socket() or _is_answered(path):
                raise
            path.unlink()
            sock.bind(str(path))
        sock.listen(8)
    except OSError as error:
        sock.close()
        raise UserError(f"cannot listen at {path}: {error.strerror or error}") from error
    return sock


def _is_answered(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        # Who listens and accepts nobody just now is there, too.
        return probe.connect_ex(str(path)) in (0, errno.EAGAIN)


class BackEnd:
    """Serves `device`, whose guest RAM is the front end's to tell, to one front end after the other.

    `statistics` can be read at any time. With `owns_memory` the device keeps the guest RAM that it was made with, and
    the front end must tell of that and no other. `events` gets front ends, their violations, and kicks; each kick just
    before the device looks. `make_session` makes another kind of session: one that looks on.
    """

    def __init__(
        self,
        device: Device,
        *,
        owns_memory: bool = False,
        events: Emitter = SILENT,
        make_session: Callable[..., Session] = Session,
    ) -> None:
        self.device = device
        self._events = events
        self._make_session = make_session
        self._owns_memory = owns_memory
        self._keeps_state = False
        self._session: Session | None = None
        self._front_end_count = 0
        self._request_count = 0
        self._violation_counts = {FrontEndViolation: 0, DriverViolation: 0}
        self._last_violation: str | None = None

    @property
    def statistics(self) -> BackEndStatistics:
        """What there is to see now."""
        session = self._session
        return BackEndStatistics(
            is_connected=session is not None,
            front_end_count=self._front_end_count,
            phase=session.phase.value if session is not None else "nobody is connected",
            features=session.features if session is not None else 0,
            protocol_features=(session.protocol_features or 0) if session is not None else 0,
            queues=tuple(map(_queue_statistics, session.rings.all)) if session is not None else (),
            request_count=self._request_count,
            front_end_violation_count=self._violation_counts[FrontEndViolation],
            driver_violation_count=self._violation_counts[DriverViolation],
            last_violation=self._last_violation,
        )

    def keep_state(self) -> None:
        """Have the front end that is here, or else the next one, go on with the state that the device has now."""
        self._keeps_state = self._session is None
        if self._session is not None:
            self._session.bring_up.keep_state()

    async def serve(self, listener: socket.socket, *, once: bool = False) -> None:
        """Accept front ends at `listener` one by one, until cancelled; another one waits for its turn.

        With `once` return when the first one has gone.
        """
        listener.setblocking(False)
        accepting = trio.socket.from_stdlib_socket(listener)
        while True:
            try:
                connection, _ = await accepting.accept()
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                await trio.sleep(_NO_ROOM_INTERVAL)
                continue
            await self.serve_connection(socket.socket(fileno=connection.detach()))
            if once:
                return

    async def serve_connection(self, connection: socket.socket) -> FrontEndViolation | None:
        """Serve one front end until it goes away, and close `connection`.

        Returns the violation that ended the connection, None if the front end ended it.
        """
        if self._session is not None:
            connection.close()
            raise RuntimeError("a back end serves one front end at a time")
        connection.setblocking(False)
        sock = trio.socket.from_stdlib_socket(connection)
        self._front_end_count += 1
        with sock:
            self.device.busy_wait = BusyWait()
            session = self._session = self._make_session(
                self.device, before_close=trio.lowlevel.notify_closing, owns_memory=self._owns_memory
            )
            session.on_violation = self._note
            if self._keeps_state:
                self.keep_state()
            if self._events.listening:
                self._events.emit(FrontEndConnected(self.device.name, self._front_end_count))
            try:
                return await self._serve_session(session, sock)
            finally:
                self._session = None
                self.device.busy_wait = None
                session.close()
                if self._events.listening:
                    self._events.emit(FrontEndGone(self.device.name, self._front_end_count))

    def _note(self, violation: FrontEndViolation | DriverViolation) -> None:
        self._violation_counts[type(violation)] += 1
        self._last_violation = str(violation)
        if isinstance(violation, FrontEndViolation) and self._events.listening:
            found = ViolationFound(self.device.name, "front end", violation.statement, violation.message)
            self._events.emit(found)

    async def _serve_session(self, session: Session, sock: trio.socket.SocketType) -> FrontEndViolation | None:
        async with trio.open_nursery() as nursery:
            for ring in session.rings.all:
                nursery.start_soon(_serve_ring, self.device, ring, self._events)
            nursery.start_soon(_announce_changes, session)
            carrier = StateCarrier(session, nursery)
            session.state.on_start = carrier.start
            try:
                await self._serve_messages(session, sock, carrier)
            except FrontEndViolation as violation:
                # Its frames have guest RAM mapped, and whoever keeps it would keep that.
                return violation.with_traceback(None)
            except OSError:
                return None  # the front end is gone, with something unread or unsent
            finally:
                nursery.cancel_scope.cancel()
        return None

    async def _serve_messages(self, session: Session, sock: trio.socket.SocketType, carrier: StateCarrier) -> None:
        decoder = MessageDecoder(FrontEndViolation, FrontEndRequest)
        try:
            while messages := await self._receive(sock, decoder):
                for message in messages:
                    self._request_count += 1
                    if message.request == FrontEndRequest.CHECK_DEVICE_STATE:
                        await carrier.wait_end()
                    answer = session.handle(message)
                    if answer is not None:
                        await _send(sock, answer)
        finally:
            decoder.close()

    async def _receive(self, sock: trio.socket.SocketType, decoder: MessageDecoder[FrontEndViolation]) -> list[Message]:
        """Return the next message, alone; nothing when the front end has gone."""
        try:
            while True:
                # No more than one part of a message is read, so that each gets its own descriptors.
                data, fds = await _receive_part(sock, decoder.wanted_size)
                if not data:
                    decoder.end()
                    return []
                if messages := decoder.feed(data, fds):
                    return messages
        except FrontEndViolation as violation:
            self._note(violation)
            raise


async def _receive_part(sock: trio.socket.SocketType, size: int) -> tuple[bytes, list[int]]:
    data, ancillary, flags, _ = await sock.recvmsg(size, _FD_SPACE, socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    if flags & socket.MSG_CTRUNC:
        for fd in fds:
            os.close(fd)
        raise FrontEndViolation("Communication", "ancillary data was cut off")
    return data, fds.tolist()


async def _send(sock: trio.socket.SocketType, answer: Answer) -> None:
    rest = encode(answer.request, answer.body, is_reply=True)
    try:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", answer.fds))] if answer.fds else []
        sent = await sock.sendmsg([rest], ancillary)
        while sent < len(rest):
            rest = rest[sent:]
            sent = await sock.send(rest)
    finally:
        for fd in answer.fds:
            os.close(fd)


async def _announce_changes(session: Session) -> None:
    changed = trio.Event()
    session.on_announce = lambda: changed.set()
    while True:
        await changed.wait()
        changed = trio.Event()
        while session.announcement_is_due:
            if session.channel.send_config_change():
                session.configuration.note_told()
            else:
                try:
                    await trio.lowlevel.wait_writable(session.channel.fileno())
                except trio.ClosedResourceError:
                    break


async def _serve_ring(device: Device, ring: Vring, events: Emitter) -> None:
    changed = trio.Event()

    def note_change() -> None:
        nonlocal changed
        changed.set()
        changed = trio.Event()
        if ring.kick is not None:
            ring.kick.wake()

    ring.on_change = note_change
    while True:
        while not ring.is_served:
            await changed.wait()
        # What was made available before, and whose kick went to another back end, is not forgotten.
        await _handle(device, ring)
        try:
            await _serve_kicks(device, ring, events)
        except trio.ClosedResourceError:
            continue  # the ring has another descriptor, or is not served any more
        except EventFdGone as gone:
            ring.fail(f"kick: {gone}")
            await changed.wait()


async def _serve_kicks(device: Device, ring: Vring, events: Emitter) -> None:
    number, in_a_row = ring.number, 0
    while ring.is_served:
        kick = ring.kick
        if kick is None:
            await trio.sleep(_POLL_INTERVAL)
            await _handle(device, ring)
        elif not kick.take():
            in_a_row = 0
            await trio.lowlevel.wait_readable(kick.fileno())
        else:
            ring.kick_count += 1
            if events.listening:
                events.emit(KickHandled(number, ring.kick_count, ring.kick_count))
            if device.queue_notify(number):
                await _handle(device, ring)
            in_a_row += 1
            if in_a_row >= _KICKS_IN_A_ROW:
                in_a_row = 0
                await trio.lowlevel.checkpoint()


async def _handle(device: Device, ring: Vring) -> None:
    more = True
    while more and ring.is_served:
        more = device.queue_notify(ring.number)
        await trio.lowlevel.checkpoint()


def _queue_statistics(ring: Vring) -> QueueStatistics:
    return QueueStatistics(
        number=ring.number,
        size=ring.size,
        state=ring.state,
        is_served=ring.is_served,
        kick_count=ring.kick_count,
        call_count=ring.call_count,
        chain_count=ring.chain_count,
        last_error=ring.last_error,
    )
