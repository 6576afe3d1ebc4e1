"""Where a queue's areas must be, whatever its format (virtio 1.4, "Virtqueues")."""

from vdev.errors import DriverViolation
from vdev.memory import GuestMemory

__all__ = ["check_area"]


def check_area(memory: GuestMemory, queue: int, name: str, address: int, size: int, alignment: int) -> None:
    """Check that an area of `size` bytes is aligned and in RAM.

    Raises DriverViolation.
    """
    if address % alignment:
        raise DriverViolation(
            "Virtqueues", f"the {name} area is not a multiple of {alignment}", queue=queue, address=address
        )
    if not memory.contains(address, size):
        raise DriverViolation(
            "Virtqueues", f"the {name} area of {size} bytes is not wholly in RAM", queue=queue, address=address
        )
