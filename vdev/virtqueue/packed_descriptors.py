"""The descriptor ring of a packed queue: from a place to a checked chain, one at a time.

Every rule about chains is worded here and in `indirect.py`, and nowhere else: the batch path only says clean or not
clean, and leaves a chain that is not for this one.
"""

import struct

from spec.layout import struct_of
from spec.packed_ring import PACKED_DESCRIPTOR, PackedFlag
from vdev.errors import DriverViolation
from vdev.memory import GuestMemory
from vdev.virtqueue.chain import Chain, Segment
from vdev.virtqueue.descriptors import CHAIN_SIZE_LIMIT
from vdev.virtqueue.indirect import read_indirect_table
from vdev.virtqueue.outstanding import Outstanding
from vdev.virtqueue.packed_ring import PackedRing

__all__ = ["PackedDescriptors"]

_FORMAT = "The Virtqueue Descriptor Format"
_LIST = "Scatter-Gather Support"
_WRAP = "Driver and Device Ring Wrap Counters"

# Plain integers: an IntFlag operation costs as much as the rest of a descriptor.
_NEXT, _WRITE, _INDIRECT = int(PackedFlag.NEXT), int(PackedFlag.WRITE), int(PackedFlag.INDIRECT)
_AVAIL, _USED = int(PackedFlag.AVAIL), int(PackedFlag.USED)
_BOTH = _AVAIL | _USED

_iter_table = struct.Struct(struct_of(PACKED_DESCRIPTOR).format).iter_unpack


class PackedDescriptors:
    """The descriptors of a packed queue, and which buffers are `outstanding`.

    `indirect` says whether INDIRECT_DESC was negotiated. `number` is the queue's, for errors.
    """

    def __init__(
        self, memory: GuestMemory, ring: PackedRing, outstanding: Outstanding, *, indirect: bool, number: int
    ) -> None:
        self.memory = memory
        self.ring = ring
        self.outstanding = outstanding
        self.indirect = indirect
        self._size = ring.size
        self._number = number

    def chain(self, place: int, free_count: int) -> tuple[Chain, int]:
        """Return the chain whose first descriptor is at `place`, and how many descriptors it takes in the ring.

        `free_count` is the number of descriptors from `place` on that are not taken. Each descriptor is read once, and
        the copy is checked and used. A segment of zero bytes is allowed: the text does not forbid it.

        Raises DriverViolation.
        """
        segments: list[tuple[int, int, int]] = []
        for at in range(place, place + free_count):
            address, size, buffer_id, flags = self.ring.descriptor(at)
            if flags & _BOTH != (_USED if at // self._size & 1 else _AVAIL):
                raise self._violation(_WRAP, "a chain's descriptor that was not made available", at, address)
            if flags & _INDIRECT:
                if at != place:
                    raise self._violation(_LIST, "an indirect descriptor in a chain of others", at, address)
                segments = self._table(at, address, size, flags)
                break
            segments.append((address, size, flags))
            if not flags & _NEXT:
                break
        else:
            raise self._violation(_LIST, f"a chain longer than the {free_count} descriptors that are free", place)
        if buffer_id >= self._size:
            raise self._violation(_FORMAT, f"buffer id {buffer_id} in a queue of {self._size}", at)
        if buffer_id in self.outstanding:
            raise self._violation(_FORMAT, f"buffer id {buffer_id}, which the device has not given back", at)
        return self._checked(buffer_id, segments, place), at + 1 - place

    def _table(self, at: int, address: int, size: int, flags: int) -> list[tuple[int, int, int]]:
        """Return the entries of an indirect table: all of them, in order; only WRITE means something there."""
        table = read_indirect_table(
            self.memory,
            address,
            size,
            flags,
            negotiated=self.indirect,
            queue_size=self._size,
            queue=self._number,
            at=at % self._size,
        )
        return [(address, size, flags) for address, size, _, flags in _iter_table(table)]

    def _checked(self, buffer_id: int, segments: list[tuple[int, int, int]], place: int) -> Chain:
        readable: list[Segment] = []
        writable: list[Segment] = []
        total_size = 0
        for address, size, flags in segments:
            if flags & _WRITE:
                writable.append(Segment(address, size))
            elif writable:
                raise self._violation(_LIST, "a readable segment behind a writable one", place, address)
            else:
                readable.append(Segment(address, size))
            if not self.memory.contains(address, size):
                raise self._violation(_FORMAT, f"a segment of {size} bytes that is not wholly in RAM", place, address)
            total_size += size
        if total_size > CHAIN_SIZE_LIMIT:
            raise self._violation(_LIST, "a chain of more than 2^32 bytes", place)
        return Chain(buffer_id, tuple(readable), tuple(writable))

    def _violation(self, statement: str, message: str, place: int, address: int | None = None) -> DriverViolation:
        return DriverViolation(statement, message, queue=self._number, descriptor=place % self._size, address=address)
