"""Indirect descriptors: what a table must be before a byte of it is believed (virtio 1.4, "Indirect Descriptors")."""

from spec.split_ring import DESCRIPTOR, DescriptorFlag
from vdev.errors import DriverViolation
from vdev.memory import GuestMemory

__all__ = ["DESCRIPTOR_SIZE", "read_indirect_table"]

DESCRIPTOR_SIZE: int = DESCRIPTOR.sizeof()
_STATEMENT = "Indirect Descriptors"


def read_indirect_table(
    memory: GuestMemory, address: int, size: int, flags: int, *, negotiated: bool, queue_size: int, queue: int, at: int
) -> bytes:
    """Return a copy of the indirect table of `size` bytes that the descriptor `at` of the main table refers to.

    The copy is the snapshot: the driver may change the table while it is walked. WRITE in `flags` means nothing here.

    Raises DriverViolation.
    """

    def violation(message: str) -> DriverViolation:
        return DriverViolation(_STATEMENT, message, queue=queue, descriptor=at, address=address)

    if not negotiated:
        raise violation("an indirect descriptor, but INDIRECT_DESC was not negotiated")
    if flags & DescriptorFlag.NEXT:
        raise violation("INDIRECT and NEXT in one descriptor")
    if size == 0 or size % DESCRIPTOR_SIZE:
        raise violation(f"an indirect table of {size} bytes is not made of {DESCRIPTOR_SIZE}-byte descriptors")
    if size // DESCRIPTOR_SIZE > queue_size:
        raise violation(f"an indirect table of {size // DESCRIPTOR_SIZE} descriptors for a queue of {queue_size}")
    if not memory.contains(address, size):
        raise violation(f"an indirect table of {size} bytes that is not wholly in RAM")
    return memory.read(address, size)
