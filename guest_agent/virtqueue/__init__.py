"""The driver's side of a virtqueue."""

from guest_agent.virtqueue.factory import attach_driver_queue, driver_area_size, make_driver_queue
from guest_agent.virtqueue.packed import PackedDriverQueue
from guest_agent.virtqueue.queue import DriverAddresses, DriverQueue, NoQueueHere, QueueFull, Used, UsedBatch
from guest_agent.virtqueue.split import SplitDriverQueue

__all__ = [
    "DriverAddresses",
    "DriverQueue",
    "NoQueueHere",
    "PackedDriverQueue",
    "QueueFull",
    "SplitDriverQueue",
    "Used",
    "UsedBatch",
    "attach_driver_queue",
    "driver_area_size",
    "make_driver_queue",
]
