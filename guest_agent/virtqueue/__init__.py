"""The driver's side of a virtqueue."""

from guest_agent.virtqueue.queue import DriverAddresses, DriverQueue, NoQueueHere, QueueFull, Used, UsedBatch
from guest_agent.virtqueue.split import SplitDriverQueue

__all__ = [
    "DriverAddresses",
    "DriverQueue",
    "NoQueueHere",
    "QueueFull",
    "SplitDriverQueue",
    "Used",
    "UsedBatch",
]
