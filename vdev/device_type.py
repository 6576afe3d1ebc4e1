"""What a device type says of itself, and what it overrides: all that the author of a device has to know of `Device`."""

from enum import IntEnum
from typing import ClassVar

import construct

from spec.device import Feature, feature_mask
from vdev.memory import Region

__all__ = ["RING_FEATURES", "DeviceType"]

RING_FEATURES = feature_mask(
    Feature.VERSION_1,
    Feature.INDIRECT_DESC,
    Feature.EVENT_IDX,
    Feature.RING_PACKED,
    Feature.IN_ORDER,
    Feature.NOTIFICATION_DATA,
    Feature.RING_RESET,
)
"""What every device here offers beside its own type's features."""


class DeviceType:
    """The part of `vdev.device.Device` that a subclass fills in; of the hooks only `handle_queue` is needed."""

    device_id: ClassVar[int]
    """The virtio device id ("Device Types")."""
    name: str
    """What people, events and errors call it."""
    queue_sizes: tuple[int, ...] = ()
    """The most descriptors that each queue can have."""
    offered_features: int = RING_FEATURES
    """A mask of feature bits."""
    type_features: ClassVar[tuple[IntEnum, ...]] = ()
    """The feature bits of the device type itself, for those who name them."""
    config_layout: ClassVar[construct.Construct | None] = None
    """The configuration space; None has none."""
    writable_config: ClassVar[frozenset[str]] = frozenset()
    """Fields of the configuration space that the driver may write."""

    def handle_queue(self, number: int) -> None:
        """Take the buffers that are available in queue `number`, at most one ring full of them, and serve them.

        What cannot be served yet is popped all the same and pushed later: what stays in the ring looks like new work.

        Raises DriverViolation for bad input, which puts the device into DEVICE_NEEDS_RESET.
        """

    def negotiated(self) -> None:
        """FEATURES_OK was set: `features` are known."""

    def started(self) -> None:
        """DRIVER_OK was set."""

    def config_written(self, offset: int, size: int) -> None:
        """The driver wrote `size` bytes at `offset` of the configuration space."""

    def queue_stopped(self, number: int) -> None:
        """A queue is gone: forget what was kept of it."""

    def memory_replaced(self, before: tuple[Region, ...]) -> None:
        """Guest RAM has other regions than `before`: whatever was kept by page number is to be numbered anew."""

    def save_specific(self) -> bytes:
        """Return what the device type must not forget; the base knows of queues and configuration space."""
        return b""

    def restore_specific(self, state: bytes) -> None:
        """Go on from what `save_specific` gave, after everything else was restored."""

    def close(self) -> None:
        """Give up what the device holds beside guest RAM, such as an open file; it is not used again."""

    def queue_size_max(self, number: int) -> int:
        """Return the most descriptors queue `number` can have, 0 where there is no such queue."""
        return self.queue_sizes[number] if number < len(self.queue_sizes) else 0

    def queue_name(self, number: int) -> str:
        """Return what queue `number` is for, in a word or two for people; "" where there is nothing to say."""
        return ""

    def writable_fields(self) -> frozenset[str]:
        """Return the configuration fields that the driver may write at this moment."""
        return self.writable_config
