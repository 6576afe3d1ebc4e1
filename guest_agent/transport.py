"""What a driver needs of the transport that carries its device, whichever it is."""

from collections.abc import Collection
from typing import Protocol

import construct

from guest_agent.virtqueue.queue import DriverAddresses, DriverQueue
from spec.device import DeviceStatus
from spec.mmio import Interrupt
from vdev.errors import VdevError

__all__ = ["DeviceRefused", "Transport"]


class DeviceRefused(VdevError):
    """The device does not do what the driver cannot do without; the driver has set FAILED. The message says what."""


class Transport(Protocol):
    """One device as its driver reaches it (virtio 1.4, "General Initialization And Device Operation").

    `guest_agent.mmio.MmioDriver` goes through registers, `guest_agent.vhost_user` through messages to a back end.
    """

    @property
    def device_id(self) -> int:
        """What kind of device it is."""
        ...

    @property
    def needs_reset(self) -> bool:
        """Whether the device can do nothing more until it is reset."""
        ...

    # Starting, in the text's order

    def reset(self) -> None:
        """Reset the device. Raises DeviceViolation if it does not complete."""
        ...

    def acknowledge_device(self) -> None:
        """Reset the device, then set ACKNOWLEDGE and DRIVER."""
        ...

    def set_status(self, bit: DeviceStatus) -> None:
        """Set one more status bit."""
        ...

    def offered_features(self) -> int:
        """Return the mask of features 0 to 127 that the device offers."""
        ...

    def accept_features(self, features: int) -> None:
        """Accept a mask of features and set FEATURES_OK. Raises DeviceRefused if the device does not take them."""
        ...

    def negotiate(self, wanted_features: int, *, required: tuple[int, ...] = ()) -> int:
        """Accept those of `wanted_features` (a mask) that are offered; return them.

        Raises DeviceRefused if one of the `required` bits is not offered, or the device does not take the set.
        """
        ...

    def queue_size_max(self, number: int) -> int:
        """Return the most descriptors that queue `number` can have, 0 if there is no such queue."""
        ...

    def set_up_queue(self, number: int, addresses: DriverAddresses) -> None:
        """Tell the device where queue `number` is and make it ready. Raises DeviceRefused or DeviceViolation."""
        ...

    def reset_queue(self, number: int) -> None:
        """Reset one queue (RING_RESET). Raises DeviceViolation if that does not complete."""
        ...

    def drive(self) -> None:
        """Set DRIVER_OK: the device is live."""
        ...

    def fail(self, why: str) -> DeviceRefused:
        """Set FAILED, and return the error to raise."""
        ...

    # Working

    def publish(self, queue: DriverQueue) -> None:
        """Show the device what was added to `queue`, and kick it if it wants to be told."""
        ...

    def take_interrupt(self) -> Interrupt:
        """Return why the device interrupted, and acknowledge just that."""
        ...

    def read_config(self, layout: construct.Construct, fields: Collection[str] | None = None) -> dict[str, int]:
        """Return integer fields of the configuration space as they were at one moment: these, or all. Raises
        DeviceViolation.

        A field that is there with a feature only is not to be read where that is not offered.
        """
        ...

    def write_config(self, layout: construct.Construct, field: str, value: int) -> None:
        """Write one integer field of the configuration space, of 1, 2 or 4 bytes."""
        ...
