"""The device's side of a queue in the format that was negotiated."""

from spec.device import Feature
from vdev.events import SILENT, Emitter
from vdev.memory import GuestMemory
from vdev.virtqueue.packed import PackedDeviceQueue
from vdev.virtqueue.queue import DeviceQueue, QueueAddresses
from vdev.virtqueue.split import SplitDeviceQueue

__all__ = ["make_device_queue"]


def make_device_queue(
    memory: GuestMemory, number: int, addresses: QueueAddresses, features: int, events: Emitter = SILENT
) -> DeviceQueue:
    """Return the device's side of queue `number`: packed if the mask of negotiated `features` has RING_PACKED.

    Raises DriverViolation if `addresses` names areas or a size that no ring of that format can have.
    """
    kind = PackedDeviceQueue if features >> Feature.RING_PACKED & 1 else SplitDeviceQueue
    return kind(memory, number, addresses, features, events)
