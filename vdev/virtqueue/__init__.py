"""The device's side of a virtqueue."""

from vdev.virtqueue.chain import Chain, ChainBatch, Segment
from vdev.virtqueue.factory import make_device_queue
from vdev.virtqueue.packed import PackedDeviceQueue
from vdev.virtqueue.queue import DeviceQueue, QueueAddresses, QueueState
from vdev.virtqueue.split import SplitDeviceQueue

__all__ = [
    "Chain",
    "ChainBatch",
    "DeviceQueue",
    "PackedDeviceQueue",
    "QueueAddresses",
    "QueueState",
    "Segment",
    "SplitDeviceQueue",
    "make_device_queue",
]
