"""The driver's side of a queue in the format that was negotiated."""

from guest_agent.virtqueue.noted_area import AreaHead
from guest_agent.virtqueue.packed import PackedDriverQueue
from guest_agent.virtqueue.queue import DriverQueue
from guest_agent.virtqueue.split import SplitDriverQueue
from spec.device import Feature
from spec.packed_area import PACKED_AREA_MAGIC
from vdev.events import SILENT, Emitter
from vdev.memory import GuestMemory

__all__ = ["attach_driver_queue", "driver_area_size", "make_driver_queue"]


def driver_area_size(size: int, indirect_capacity: int = 0) -> int:
    """Return the bytes of guest RAM, whole pages, that a queue of at most `size` descriptors takes in any format."""
    kinds = SplitDriverQueue, PackedDriverQueue
    return max(kind.area_size(size, indirect_capacity) for kind in kinds)


def make_driver_queue(
    memory: GuestMemory,
    number: int,
    size: int,
    area_address: int,
    features: int,
    events: Emitter = SILENT,
    *,
    indirect_capacity: int = 0,
) -> DriverQueue:
    """Return an empty queue at `area_address`: packed if the mask of negotiated `features` has RING_PACKED.

    It takes at most `driver_area_size(size, indirect_capacity)` bytes. Raises what the format's `create` raises.
    """
    kind = PackedDriverQueue if features >> Feature.RING_PACKED & 1 else SplitDriverQueue
    return kind.create(memory, number, size, area_address, features, events, indirect_capacity=indirect_capacity)


def attach_driver_queue(memory: GuestMemory, number: int, area_address: int, events: Emitter = SILENT) -> DriverQueue:
    """Return the queue that `make_driver_queue` made at `area_address`, exactly as it stands. Stores nothing.

    Raises NoQueueHere.
    """
    head = AreaHead.read(memory, area_address)
    is_packed = head is not None and head[0] == PACKED_AREA_MAGIC
    return (PackedDriverQueue if is_packed else SplitDriverQueue).attach(memory, number, area_address, events)
