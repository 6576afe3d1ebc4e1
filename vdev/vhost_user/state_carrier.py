"""Carries a device's state through the channel that a front end gave, in pieces, and waits between them."""

import trio

from spec.vhost_user import TransferDirection
from vdev.errors import SavedStateError
from vdev.vhost_user.at_once import read_at_once, write_at_once
from vdev.vhost_user.device_state import MAX_STATE_SIZE, Transfer
from vdev.vhost_user.session import Session

__all__ = ["StateCarrier"]

_PIECE = 1 << 16
"""Bytes that are moved at once: what a pipe holds."""
_PATIENCE = 5.0
"""Seconds that CHECK_DEVICE_STATE waits for a transfer whose other end is still open."""


class StateCarrier:
    """Moves a device's state, a piece at a time, to where the front end wants it or from there."""

    def __init__(self, session: Session, nursery: trio.Nursery) -> None:
        self._session = session
        self._nursery = nursery
        self._ended = trio.Event()

    def start(self, transfer: Transfer) -> None:
        """Begin a transfer."""
        self._ended = trio.Event()
        self._nursery.start_soon(self._carry, transfer, self._ended)

    async def _carry(self, transfer: Transfer, ended: trio.Event) -> None:
        try:
            if transfer.direction is TransferDirection.SAVE:
                await _write_all(transfer)
            else:
                self._session.load_state(await _read_all(transfer))
        except (OSError, SavedStateError, trio.ClosedResourceError) as error:
            transfer.fail(str(error) or "the channel was closed")
        else:
            transfer.succeed()
        finally:
            transfer.close()
            ended.set()

    async def wait_end(self) -> None:
        """Let a transfer come to its end: the one who asks has closed its own end, or read all there was."""
        if self._session.state.is_under_way:
            with trio.move_on_after(_PATIENCE):
                await self._ended.wait()


async def _write_all(transfer: Transfer) -> None:
    rest = memoryview(transfer.data)
    while rest:
        try:
            rest = rest[write_at_once(transfer.fd, rest[:_PIECE]) :]
            await trio.lowlevel.checkpoint()
        except BlockingIOError:
            await trio.lowlevel.wait_writable(transfer.fd)


async def _read_all(transfer: Transfer) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while True:
        try:
            piece = read_at_once(transfer.fd, _PIECE)
        except BlockingIOError:
            await trio.lowlevel.wait_readable(transfer.fd)
            continue
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
        size += len(piece)
        if size > MAX_STATE_SIZE:
            raise SavedStateError(f"the saved back end has more than {MAX_STATE_SIZE} bytes")
        await trio.lowlevel.checkpoint()
