"""What every virtqueue gives a device, whatever its format."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from vdev.virtqueue.chain import Chain, ChainBatch

__all__ = ["DeviceQueue", "QueueAddresses", "QueueState"]


class QueueAddresses(NamedTuple):
    """Where a queue is: its size in descriptors, and the guest-physical addresses of its three areas."""

    size: int
    descriptor: int
    driver: int
    device: int


@dataclass(frozen=True, slots=True)
class QueueState:
    """What the device knows about a queue and the queue's memory does not say: what a migration must carry.

    `next_avail` and `next_used` are free-running 16-bit indices. `unsignalled_count` is the number of buffers used
    since `should_call` last looked. `outstanding` are the heads popped and not yet pushed, in ascending order.
    """

    next_avail: int = 0
    next_used: int = 0
    unsignalled_count: int = 0
    kicks_enabled: bool = True
    outstanding: tuple[int, ...] = ()

    def check(self, size: int) -> None:
        """Raise ValueError if this cannot be the state of a queue of `size` descriptors: it may come off a wire."""
        if not (0 <= self.next_avail <= 0xFFFF and 0 <= self.next_used <= 0xFFFF):
            raise ValueError(f"the indices {self.next_avail} and {self.next_used} are not 16-bit numbers")
        if not 0 <= self.unsignalled_count <= 0x1_0000:
            raise ValueError(f"{self.unsignalled_count} buffers used since the driver was last thought of")
        heads = set(self.outstanding)
        if len(heads) != len(self.outstanding) or not all(0 <= head < size for head in heads):
            raise ValueError(f"the outstanding heads are not distinct descriptors of a table of {size}")
        if (self.next_avail - self.next_used) & 0xFFFF != len(heads):
            raise ValueError(
                f"{len(heads)} outstanding heads between the indices {self.next_used} and {self.next_avail}"
            )


class DeviceQueue(Protocol):
    """The device's side of one virtqueue.

    A *kick* is an available buffer notification (driver to device), a *call* a used buffer notification (device to
    driver). Everything the driver wrote is checked on a copy; what breaks the text raises DriverViolation, and the
    queue's own state is then as before the call.
    """

    number: int
    size: int

    def pop(self) -> Chain | None:
        """Take the next available chain; None if there is none, and then, with kicks enabled, the next one kicks.

        Raises DriverViolation.
        """
        ...

    def pop_batch(self, limit: int | None = None) -> ChainBatch:
        """Take all available chains, or the first `limit` of them.

        Chains behind one that breaks the text are left: a later call finds it in front and raises. So pop until a
        batch is empty.

        Raises DriverViolation.
        """
        ...

    def push(self, head: int, written_size: int) -> None:
        """Give a chain back as used, `written_size` bytes of it written, in any order. Ask `should_call` afterwards.

        Raises ValueError if the chain is not outstanding.
        """
        ...

    def push_batch(self, heads: npt.NDArray[np.int64], written_sizes: npt.NDArray[np.int64]) -> None:
        """Give several chains back with one move of the used index.

        Raises ValueError if one is not outstanding or comes twice; then none is given back.
        """
        ...

    def has_available(self) -> bool:
        """Say whether the driver has made a buffer available that was not popped."""
        ...

    def should_call(self) -> bool:
        """Say whether the driver wants to be told of the chains pushed since this was last asked."""
        ...

    def disable_kicks(self) -> None:
        """Advise the driver that kicks are not needed; some may still come."""
        ...

    def enable_kicks(self) -> bool:
        """Ask for a kick at the next available buffer; true when some came in meanwhile: look again."""
        ...

    def save(self) -> QueueState:
        """Return what another object over the same memory needs to go on."""
        ...

    def restore(self, state: QueueState) -> None:
        """Go on from `state`. Reads and writes no guest memory. Raises ValueError if it contradicts itself."""
        ...
