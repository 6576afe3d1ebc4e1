"""The descriptor table: from a head to a checked chain, one at a time.

Every rule about chains is worded here and in `indirect.py`, and nowhere else: the batch path only says clean or not
clean, and leaves a chain that is not for this one.
"""

from typing import Any

import numpy.typing as npt

from spec.layout import struct_of
from spec.split_ring import DESCRIPTOR, DescriptorFlag, descriptor_table_size
from vdev.errors import DriverViolation
from vdev.memory import GuestMemory
from vdev.virtqueue.chain import Chain, Segment
from vdev.virtqueue.indirect import DESCRIPTOR_SIZE, read_indirect_table

__all__ = ["CHAIN_SIZE_LIMIT", "DescriptorTable"]

CHAIN_SIZE_LIMIT = 1 << 32
"""The most bytes that one chain may have ("The Virtqueue Descriptor Table")."""

_TABLE = "The Virtqueue Descriptor Table"
_INDIRECT = "Indirect Descriptors"
_FRAMING = "Message Framing"

# Plain integers: an IntFlag operation costs as much as the rest of a descriptor.
_NEXT, _WRITE, _INDIRECT_FLAG = int(DescriptorFlag.NEXT), int(DescriptorFlag.WRITE), int(DescriptorFlag.INDIRECT)

_GOES_ON = _NEXT | _INDIRECT_FLAG

_unpack_descriptor = struct_of(DESCRIPTOR).unpack_from


class DescriptorTable:
    """The table of a queue of `size` descriptors at guest-physical `address`.

    `indirect` says whether INDIRECT_DESC was negotiated. `number` is the queue's, for errors.
    """

    def __init__(self, memory: GuestMemory, address: int, size: int, *, indirect: bool, number: int) -> None:
        self.memory = memory
        self.size = size
        self.indirect = indirect
        self._number = number
        self.records: npt.NDArray[Any] = memory.view(address, DESCRIPTOR, size)
        self._words = memory.bytes_view(address, descriptor_table_size(size)).data.cast("Q")

    def chain(self, head: int) -> Chain:
        """Return the chain that begins at descriptor `head`, which is below `size`.

        Each descriptor is read once, and the copy is checked and used. A segment of zero bytes is allowed: the text
        does not forbid it. (QEMU does.)

        Raises DriverViolation.
        """
        word = 2 * head
        address, rest = self._words[word], self._words[word + 1]
        size, flags = rest & 0xFFFF_FFFF, rest >> 32 & 0xFFFF
        if not flags & _GOES_ON and self.memory.contains(address, size):
            only = (Segment(address, size),)
            return Chain(head, (), only) if flags & _WRITE else Chain(head, only, ())
        return self._long_chain(head, (address, size, flags, rest >> 48))

    def _read(self, index: int) -> tuple[int, int, int, int]:
        """Return a copy of address, size, flags and next of a descriptor."""
        word = 2 * index
        address, rest = self._words[word], self._words[word + 1]
        return address, rest & 0xFFFF_FFFF, rest >> 32 & 0xFFFF, rest >> 48

    def _long_chain(self, head: int, descriptor: tuple[int, int, int, int]) -> Chain:
        """Return the chain whose first descriptor was read, and is not all of it, or not right."""
        readable: list[Segment] = []
        writable: list[Segment] = []
        table = b""
        entry_count, in_indirect = self.size, False
        index, visited_count, total_size = head, 0, 0
        while True:
            address, size, flags, next_index = descriptor
            visited_count += 1
            if flags & _INDIRECT_FLAG:
                if in_indirect:
                    raise self._violation(_INDIRECT, "an indirect descriptor inside an indirect table", index, address)
                table = read_indirect_table(
                    self.memory,
                    address,
                    size,
                    flags,
                    negotiated=self.indirect,
                    queue_size=self.size,
                    queue=self._number,
                    at=index,
                )
                entry_count, in_indirect = size // DESCRIPTOR_SIZE, True
                index = visited_count = 0
                descriptor = _unpack_descriptor(table, 0)
                continue
            if flags & _WRITE:
                writable.append(Segment(address, size))
            elif writable:
                raise self._violation(_FRAMING, "a readable segment behind a writable one", index, address)
            else:
                readable.append(Segment(address, size))
            if not self.memory.contains(address, size):
                raise self._violation(_TABLE, f"a segment of {size} bytes that is not wholly in RAM", index, address)
            total_size += size
            if total_size > CHAIN_SIZE_LIMIT:
                raise self._violation(_TABLE, "a chain of more than 2^32 bytes", index, address)
            if len(readable) + len(writable) > self.size:
                raise self._violation(_INDIRECT, f"a chain longer than the queue size {self.size}", index, address)
            if not flags & _NEXT:
                return Chain(head, tuple(readable), tuple(writable))
            if next_index >= entry_count:
                raise self._violation(_TABLE, f"next is {next_index} in a table of {entry_count}", index, address)
            if visited_count >= entry_count:
                raise self._violation(_TABLE, "the chain loops", index, address)
            index = next_index
            descriptor = _unpack_descriptor(table, index * DESCRIPTOR_SIZE) if in_indirect else self._read(index)

    def _violation(self, statement: str, message: str, index: int, address: int) -> DriverViolation:
        return DriverViolation(statement, message, queue=self._number, descriptor=index, address=address)
