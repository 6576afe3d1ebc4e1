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

    `next_avail` and `next_used` are free-running 16-bit indices in a split queue, positions (`spec.packed_ring`) in a
    packed one. `unsignalled_count` is the number of ring entries used since `should_call` last looked. `outstanding`
    are the heads popped and not yet pushed, in the order in which they were popped; `outstanding_are_last` says whether
    none was pushed that was popped after one of them. `descriptor_counts` says of each how many ring entries it takes,
    and is empty in a split queue, where it is always one.
    """

    next_avail: int = 0
    next_used: int = 0
    unsignalled_count: int = 0
    kicks_enabled: bool = True
    outstanding: tuple[int, ...] = ()
    outstanding_are_last: bool = True
    descriptor_counts: tuple[int, ...] = ()

    def check(self, size: int, *, entries_in_flight: int) -> None:
        """Raise ValueError if this cannot be the state of a queue of `size` descriptors: it may come off a wire.

        `entries_in_flight` is the number of ring entries from `next_used` to `next_avail`. It is at least what the
        outstanding buffers take; a queue that was started from a base may have more, which it will never use.
        """
        if not 0 <= self.unsignalled_count <= 0x1_0000:
            raise ValueError(f"{self.unsignalled_count} buffers used since the driver was last thought of")
        heads = set(self.outstanding)
        if len(heads) != len(self.outstanding) or not all(0 <= head < size for head in heads):
            raise ValueError(f"the outstanding heads are not distinct descriptors of a table of {size}")
        entry_count = sum(self.descriptor_counts) if self.descriptor_counts else len(heads)
        if not entry_count <= entries_in_flight <= size:
            raise ValueError(
                f"{entry_count} entries outstanding between the places {self.next_used} and {self.next_avail}"
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
        """Give a chain back as used, `written_size` bytes of it written. Ask `should_call` afterwards.

        Any order will do, unless IN_ORDER was negotiated: then it is the order in which they were popped.

        Raises ValueError if the chain is not outstanding, or not the one whose turn it is.
        """
        ...

    def push_batch(self, heads: npt.NDArray[np.int64], written_sizes: npt.NDArray[np.int64]) -> None:
        """Give several chains back, such that the driver sees all or none of them.

        With IN_ORDER, chains that were written completely may be left unmentioned between others.

        Raises ValueError if one is not outstanding, comes twice, or out of order where that matters; then none is
        given back.
        """
        ...

    def has_available(self) -> bool:
        """Say whether the driver has made a buffer available that was not popped."""
        ...

    def should_call(self) -> bool:
        """Say whether the driver wants to be told of the chains pushed since this was last asked.

        Raises DriverViolation if what the driver says about that means nothing.
        """
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

    def ring_base(self) -> int:
        """Return where in the ring another object is to go on, as GET_VRING_BASE of vhost-user has it.

        Split: the next available index. Packed: its position in bits 0 to 15, that of the next used one in bits 16 to
        31. Outstanding chains that are exactly the last ones popped come back: the base is then the place before them,
        and whoever starts there pops them again. Otherwise they count as taken, and are lost to the ring.
        """
        ...

    def start_from(self, base: int) -> None:
        """Go on from what `ring_base` gave, with nothing outstanding and kicks enabled; reads the ring.

        Raises ValueError for a number that no base can be, DriverViolation where the ring does not fit it.
        """
        ...
