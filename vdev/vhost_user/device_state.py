"""A device's state on its way from one back end to another: SET_DEVICE_STATE_FD and CHECK_DEVICE_STATE.

Who has the file descriptor moves the bytes; here is what they are, and whether it went well.
"""

import os
import stat
from collections.abc import Callable, Hashable
from enum import Enum
from typing import Any

import construct
import numpy as np
import numpy.typing as npt

from spec.device_state import DEVICE_STATE
from spec.vhost_user import BACK_END_STATE, NO_FD, U64, MigrationPhase, TransferDirection
from vdev.device import Device
from vdev.errors import FrontEndViolation, GuestAddressError, SavedStateError
from vdev.memory import Region
from vdev.vhost_user.framing import Message
from vdev.vhost_user.memory_table import MAX_RAM_SIZE

__all__ = ["MAX_STATE_SIZE", "DeviceStateTransfer", "Transfer", "TransferEnd"]

MAX_STATE_SIZE = 64 << 20
"""Bytes; a balloon of a guest of 1 TiB has 32 MiB of pages."""

_CLAUSE = "Migrating back-end state"


class TransferEnd(Enum):
    """How a transfer went."""

    UNDER_WAY = "under way"
    DONE = "done"
    FAILED = "failed"


class Transfer:
    """One transfer through `fd`, which belongs to this object until `close`."""

    def __init__(self, fd: int, direction: TransferDirection, data: bytes = b"") -> None:
        self.fd = fd
        self.direction = direction
        self.data = data
        """What is still to be sent, when saving."""
        self.end = TransferEnd.UNDER_WAY
        self.error: str | None = None

    def succeed(self) -> None:
        """It went well, unless it was given up meanwhile."""
        if self.end is TransferEnd.UNDER_WAY:
            self.end = TransferEnd.DONE

    def fail(self, error: str) -> None:
        """It did not go well; the first reason stays."""
        if self.end is TransferEnd.UNDER_WAY:
            self.end, self.error = TransferEnd.FAILED, error

    def close(self) -> None:
        """Close the file descriptor; a second call does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class _AbsentRam:
    """Stands for a region whose file has not come yet: its size counts, its bytes are not there to be touched."""

    fd = None

    def __init__(self, size: int) -> None:
        self.size = size
        self.data: npt.NDArray[np.uint8] = np.broadcast_to(np.zeros(1, np.uint8), size)

    def give_back(self, offset: int, size: int) -> None:
        """There is nothing to give back."""

    def populate(self, offset: int, size: int) -> None:
        """There is nothing to fault in."""

    def resident_size(self) -> int:
        """Bytes lent: none."""
        return 0

    def lent(self) -> tuple[Hashable, int]:
        """Return what nobody else has a part of, and no bytes."""
        return id(self), 0


class DeviceStateTransfer:
    """The transfers of one session's device, one at a time.

    `on_start` is called with each; `before_close` is told of a descriptor that somebody may wait on.
    """

    def __init__(self, device: Device, before_close: Callable[[int], None]) -> None:
        self._device = device
        self._before_close = before_close
        self.on_start: Callable[[Transfer], None] = lambda _: None
        self.current: Transfer | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether a transfer has not come to its end."""
        return self.current is not None and self.current.end is TransferEnd.UNDER_WAY

    def start(self, payload: Any, message: Message) -> bytes:
        """SET_DEVICE_STATE_FD: the front end's channel is used. Raises FrontEndViolation."""
        try:
            direction, _ = TransferDirection(payload.direction), MigrationPhase(payload.phase)
        except ValueError as error:
            raise FrontEndViolation(_CLAUSE, str(error)) from error
        mode = os.fstat(message.fds[0]).st_mode
        if not stat.S_ISFIFO(mode) and not stat.S_ISSOCK(mode):
            raise FrontEndViolation(_CLAUSE, "the file descriptor is neither a pipe nor a socket")
        self.close()
        [fd] = message.take_fds()
        self.current = Transfer(fd, direction, self.save() if direction is TransferDirection.SAVE else b"")
        self.on_start(self.current)
        answer: bytes = U64.build({"value": NO_FD})
        return answer

    def check(self, _: Any, __: Message) -> bytes:
        """CHECK_DEVICE_STATE: whether the last transfer is done. Raises FrontEndViolation if there was none."""
        transfer = self.current
        if transfer is None:
            raise FrontEndViolation(_CLAUSE, "there was no transfer")
        if transfer.end is not TransferEnd.DONE:
            raise FrontEndViolation(_CLAUSE, f"the transfer is {transfer.end.value}: {transfer.error or 'no end yet'}")
        answer: bytes = U64.build({"value": 0})
        return answer

    def save(self) -> bytes:
        """Return the device's state, and the RAM to which its page numbers belong."""
        regions = [{"guest_address": region.guest_address, "size": region.size} for region in self._regions()]
        state: bytes = BACK_END_STATE.build({"regions": regions, "device": self._device.save()})
        return state

    def _regions(self) -> tuple[Region, ...]:
        return self._device.memory.regions

    def load(self, state: bytes) -> None:
        """Go on from what another back end saved. Raises SavedStateError, and is then a device that was reset."""
        try:
            saved = BACK_END_STATE.parse(state)
        except construct.ConstructError as error:
            raise SavedStateError(f"the saved back end cannot be read: {error}") from error
        if sum(region.size for region in saved.regions) > MAX_RAM_SIZE:
            raise SavedStateError("the saved back end is one of more RAM than there is")
        self._check_suspended(saved.device)
        before = self._regions()
        try:
            # Page numbers mean the RAM that they were saved with, which may be told only later.
            self._device.replace_memory(
                [Region(region.guest_address, _AbsentRam(region.size)) for region in saved.regions]
            )
            self._device.restore(saved.device)
        except (ValueError, GuestAddressError) as error:
            self._device.reset()
            raise SavedStateError(f"the saved back end does not fit: {error}") from error
        except SavedStateError:
            self._device.reset()
            raise
        finally:
            if before:
                self._device.replace_memory(before)

    def _check_suspended(self, state: bytes) -> None:
        try:
            device = DEVICE_STATE.parse(state)
        except construct.ConstructError as error:
            raise SavedStateError(f"the saved {self._device.name} cannot be read: {error}") from error
        if any(queue.ready for queue in device.queues):
            raise SavedStateError(f"the saved {self._device.name} has a ring in use: it was not suspended")

    def close(self) -> None:
        """Give a transfer up that is under way, and close its channel."""
        if self.current is not None:
            self.current.fail("it was given up")
            if self.current.fd >= 0:
                self._before_close(self.current.fd)
            self.current.close()
