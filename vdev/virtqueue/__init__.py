"""The device's side of a virtqueue."""

from vdev.virtqueue.chain import Chain, ChainBatch, Segment
from vdev.virtqueue.queue import DeviceQueue, QueueAddresses, QueueState
from vdev.virtqueue.split import SplitDeviceQueue

__all__ = [
    "Chain",
    "ChainBatch",
    "DeviceQueue",
    "QueueAddresses",
    "QueueState",
    "Segment",
    "SplitDeviceQueue",
]
