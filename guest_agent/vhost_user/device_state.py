"""A back end's own state: out of the one that is left, into the next ("Migrating back-end state")."""

import os
import select

from guest_agent.vhost_user.back_end import BackEnd
from guest_agent.vhost_user.errors import BackEndRefused
from spec.vhost_user import FrontEndRequest, MigrationPhase, ProtocolFeature, TransferDirection
from vdev.errors import BackEndViolation

__all__ = ["STATE_SIZE_MAX", "receive_state", "send_state"]

STATE_SIZE_MAX = 256 << 20
"""Bytes; a back end that has more to say is not believed."""

_PIECE = 1 << 20
_CLAUSE = "Migrating back-end state"


def receive_state(back_end: BackEnd) -> bytes:
    """Return the state of a back end whose rings are stopped. Raises BackEndLost or BackEndRefused."""
    pieces: list[bytes] = []
    size = 0
    fd = _open(back_end, TransferDirection.SAVE)
    try:
        deadline = back_end.connection.deadline()
        while piece := _read(back_end, fd, deadline):
            pieces.append(piece)
            size += len(piece)
            if size > STATE_SIZE_MAX:
                raise BackEndRefused(_CLAUSE, f"the back end's state is over {STATE_SIZE_MAX} bytes")
    finally:
        os.close(fd)
    back_end.ask(FrontEndRequest.CHECK_DEVICE_STATE)
    return b"".join(pieces)


def _read(back_end: BackEnd, fd: int, deadline: float) -> bytes:
    with back_end.trust():
        while True:
            back_end.connection.wait(fd, select.POLLIN, deadline, "send its state")
            try:
                return os.read(fd, _PIECE)
            except BlockingIOError:
                continue
            except OSError as error:
                raise BackEndViolation(_CLAUSE, f"its state cannot be read: {error.strerror or error}") from error


def send_state(back_end: BackEnd, state: bytes) -> None:
    """Give `state` to a back end whose rings are not started. Raises BackEndLost or BackEndRefused."""
    fd = _open(back_end, TransferDirection.LOAD)
    try:
        deadline = back_end.connection.deadline()
        rest = memoryview(state)
        while rest and (written_size := _write(back_end, fd, rest, deadline)):
            rest = rest[written_size:]
    finally:
        os.close(fd)
    back_end.ask(FrontEndRequest.CHECK_DEVICE_STATE)


def _write(back_end: BackEnd, fd: int, data: memoryview, deadline: float) -> int:
    """Return how much was written: 0 if the back end has stopped reading, for what it answers then says why."""
    with back_end.trust():
        while True:
            back_end.connection.wait(fd, select.POLLOUT, deadline, "take its state")
            try:
                return os.write(fd, data)
            except BlockingIOError:
                continue
            except BrokenPipeError:
                return 0
            except OSError as error:
                raise BackEndViolation(_CLAUSE, f"its state cannot be written: {error.strerror or error}") from error


def _open(back_end: BackEnd, direction: TransferDirection) -> int:
    """Return our end of the transfer: of our own pipe, or what the back end gave instead."""
    if not back_end.has(ProtocolFeature.DEVICE_STATE):
        raise BackEndRefused(_CLAUSE, f"{back_end.name} does not give or take its state")
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    ours, theirs = (read_end, write_end) if direction is TransferDirection.SAVE else (write_end, read_end)
    try:
        _, fd = back_end.ask_for_fd(
            FrontEndRequest.SET_DEVICE_STATE_FD, fds=[theirs], direction=direction, phase=MigrationPhase.STOPPED
        )
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    if fd is None:
        fd = ours
    else:
        os.close(ours)
    os.set_blocking(fd, False)
    return fd
