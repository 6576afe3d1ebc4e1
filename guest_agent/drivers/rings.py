"""The queues of a driver's area, in whichever format is negotiated."""

from guest_agent.virtqueue.factory import attach_driver_queue, driver_area_size, make_driver_queue
from guest_agent.virtqueue.queue import DriverQueue
from vdev.events import Emitter
from vdev.memory import GuestMemory

__all__ = ["attach_ring", "make_ring", "ring_area_size", "usable_queue_size"]


def ring_area_size(size: int, indirect_capacity: int = 0) -> int:
    """Return the bytes of guest RAM, whole pages, that a queue of up to `size` descriptors takes in any format.

    `indirect_capacity` is the most entries of an indirect table; every descriptor gets such a table.
    """
    return driver_area_size(size, indirect_capacity)


def make_ring(
    memory: GuestMemory, number: int, size: int, area_address: int, features: int, events: Emitter, capacity: int = 0
) -> DriverQueue:
    """Return an empty queue in the format that `features` (a mask of negotiated bits) asks for."""
    return make_driver_queue(memory, number, size, area_address, features, events, indirect_capacity=capacity)


def attach_ring(memory: GuestMemory, number: int, area_address: int, features: int, events: Emitter) -> DriverQueue:
    """Return the queue that `make_ring` made at `area_address` with these `features`. Raises NoQueueHere."""
    return attach_driver_queue(memory, number, area_address, events)


def usable_queue_size(wanted: int, size_max: int) -> int:
    """Return the largest power of two that is at most `wanted` and at most what the device can have; 0 if none is."""
    limit = min(wanted, size_max)
    return 1 << (limit.bit_length() - 1) if limit else 0
