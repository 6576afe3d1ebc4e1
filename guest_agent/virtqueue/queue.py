"""What every virtqueue gives a driver, whatever its format."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from vdev.errors import VdevError

__all__ = ["DriverAddresses", "DriverQueue", "NoQueueHere", "QueueFull", "Used", "UsedBatch"]


class QueueFull(VdevError):
    """The queue has fewer free descriptors than the buffer needs; collect used buffers first."""


class NoQueueHere(VdevError):
    """The area in guest RAM holds no queue that `attach` could go on with."""


class DriverAddresses(NamedTuple):
    """What the device is told: the size in descriptors, and the guest-physical addresses of the three areas."""

    size: int
    descriptor: int
    driver: int
    device: int


class Used(NamedTuple):
    """A buffer that the device gave back: the driver's own token, bytes written, and the chain's head."""

    token: int
    written_size: int
    head: int


class UsedBatch(NamedTuple):
    """Buffers that the device gave back, in its order: arrays of one length."""

    tokens: npt.NDArray[np.uint64]
    written_sizes: npt.NDArray[np.int64]
    heads: npt.NDArray[np.int64]


class DriverQueue(Protocol):
    """The driver's side of one virtqueue.

    A *kick* is an available buffer notification (driver to device), a *call* a used buffer notification (device to
    driver). A buffer is a list of (address, size) pairs, guest-physical and in bytes. What the device breaks raises
    DeviceViolation, and the queue's own state is then as before the call.
    """

    number: int
    size: int

    @property
    def addresses(self) -> DriverAddresses:
        """What the device is to be told."""
        ...

    @property
    def features(self) -> int:
        """The mask of negotiated bits that the queue was made with."""
        ...

    @property
    def free_count(self) -> int:
        """Descriptors that are free."""
        ...

    def add(
        self,
        readable: Sequence[tuple[int, int]],
        writable: Sequence[tuple[int, int]],
        token: int,
        *,
        indirect: bool | None = None,
    ) -> int:
        """Place a buffer, which the device sees after `publish`; returns its head.

        `token` (64 bits) comes back with the used buffer. `indirect` says whether to use an indirect table; None
        means where it saves descriptors and is possible.

        Raises QueueFull, and ValueError for a buffer that the text forbids or a table that does not exist.
        """
        ...

    def add_batch(
        self,
        addresses: npt.NDArray[np.uint64],
        sizes: npt.NDArray[np.uint64],
        *,
        writable: bool,
        tokens: npt.NDArray[np.uint64],
    ) -> int:
        """Place buffers of one descriptor each, as many as fit; returns how many."""
        ...

    def publish(self) -> None:
        """Make all buffers added since the last call visible at once. Ask `should_kick` afterwards."""
        ...

    def should_kick(self) -> bool:
        """Say whether the device wants to be told of the buffers published since this was last asked."""
        ...

    def notification_data(self) -> int:
        """Return what a kick says with NOTIFICATION_DATA negotiated: 32 bits ("Driver Notifications").

        The queue's number in bits 0 to 15, and above it where the next buffer will be made available.
        """
        ...

    def has_used(self) -> bool:
        """Say whether the device has given back a buffer that was not collected."""
        ...

    def collect(self) -> Used | None:
        """Take the next used buffer back; None if there is none, and then, with calls enabled, the next one calls.

        Raises DeviceViolation.
        """
        ...

    def collect_batch(self, limit: int | None = None) -> UsedBatch:
        """Take all used buffers back, or the first `limit` of them.

        Buffers behind one that breaks the text are left: a later call finds it in front and raises. So collect until
        a batch is empty.

        Raises DeviceViolation.
        """
        ...

    def disable_calls(self) -> None:
        """Advise the device that calls are not needed; some may still come."""
        ...

    def enable_calls(self) -> bool:
        """Ask for a call at the next used buffer; true when some came in meanwhile: look again."""
        ...
