"""The driver's side of virtio-mmio: finding a device, agreeing on features, setting queues up (virtio 1.4, "Virtio Over
MMIO" and "Device Initialization").
"""

from collections.abc import Collection

import construct

from guest_agent.exits import Exits
from guest_agent.transport import DeviceRefused
from guest_agent.virtqueue.queue import DriverAddresses, DriverQueue
from spec.device import DeviceId, DeviceStatus, Feature, feature_mask
from spec.layout import dtype_of
from spec.mmio import CONFIG_OFFSET, MAGIC_VALUE, VERSION, Interrupt, Register
from vdev.errors import DeviceViolation

__all__ = ["DeviceRefused", "MmioDriver"]

_CLAUSE = "Virtio Over MMIO / MMIO Device Register Layout"
_GENERATION_TRIES = 1000
_RESET_TRIES = 1000


class MmioDriver:
    """One device's registers at guest-physical address `base`, reached through `exits`.

    Keeps nothing of the device's state, so a guest that was moved just makes another one.
    """

    def __init__(self, exits: Exits, base: int) -> None:
        self.base = base
        self._exits = exits

    @classmethod
    def probe(cls, exits: Exits, base: int) -> "MmioDriver | None":
        """Return the driver for the device at `base`; None for a placeholder (DeviceID 0), which is no error.

        Raises DeviceViolation if what is there is not a virtio-mmio device of version 2.
        """
        driver = cls(exits, base)
        for register, expected in ((Register.MAGIC_VALUE, MAGIC_VALUE), (Register.VERSION, VERSION)):
            found = driver.read(register)
            if found != expected:
                raise DeviceViolation(_CLAUSE, f"{register.name} is {found:#x}, not {expected:#x}", address=base)
        return driver if driver.device_id != DeviceId.NONE else None

    # Registers

    def read(self, register: Register) -> int:
        """Return a register's value."""
        return self._exits.read(self.base + register, 4)

    def write(self, register: Register, value: int) -> None:
        """Write a register."""
        self._exits.write(self.base + register, 4, value)

    @property
    def device_id(self) -> int:
        """What kind of device it is."""
        return self.read(Register.DEVICE_ID)

    @property
    def status(self) -> DeviceStatus:
        """The device status."""
        return DeviceStatus(self.read(Register.STATUS))

    @property
    def needs_reset(self) -> bool:
        """Whether the device can do nothing more until it is reset."""
        return bool(self.status & DeviceStatus.DEVICE_NEEDS_RESET)

    # Starting, in the text's order

    def reset(self) -> None:
        """Reset the device.

        Raises DeviceViolation if its status does not become 0.
        """
        self.write(Register.STATUS, 0)
        for _ in range(_RESET_TRIES):
            if not self.read(Register.STATUS):
                return
        raise DeviceViolation("Basic Facilities of a Virtio Device / Device Reset", "the status stays set after reset")

    def acknowledge_device(self) -> None:
        """Reset the device, then set ACKNOWLEDGE and DRIVER."""
        self.reset()
        self.set_status(DeviceStatus.ACKNOWLEDGE)
        self.set_status(DeviceStatus.DRIVER)

    def set_status(self, bit: DeviceStatus) -> None:
        """Set one more status bit."""
        self.write(Register.STATUS, int(self.status | bit))

    def offered_features(self) -> int:
        """Return the mask of features 0 to 127 that the device offers."""
        offered = 0
        for word in range(4):
            self.write(Register.DEVICE_FEATURES_SEL, word)
            offered |= self.read(Register.DEVICE_FEATURES) << 32 * word
        return offered

    def accept_features(self, features: int) -> None:
        """Accept a mask of features and set FEATURES_OK.

        Raises DeviceRefused if the device does not take them.
        """
        for word in range(4):
            self.write(Register.DRIVER_FEATURES_SEL, word)
            self.write(Register.DRIVER_FEATURES, features >> 32 * word & 0xFFFF_FFFF)
        self.set_status(DeviceStatus.FEATURES_OK)
        if not self.status & DeviceStatus.FEATURES_OK:
            raise self.fail(f"the device refuses features {features:#x}")

    def negotiate(self, wanted_features: int, *, required: tuple[int, ...] = ()) -> int:
        """Accept those of `wanted_features` (a mask) that are offered; return them.

        Raises DeviceRefused if one of the `required` bits is not offered, or the device does not take the set.
        """
        features = self.offered_features() & wanted_features
        if missing := feature_mask(*required) & ~features:
            raise self.fail(f"the device does not offer features {missing:#x}, which this driver needs")
        self.accept_features(features)
        return features

    def queue_size_max(self, number: int) -> int:
        """Return the most descriptors that queue `number` can have, 0 if there is no such queue."""
        self.write(Register.QUEUE_SEL, number)
        return self.read(Register.QUEUE_SIZE_MAX)

    def set_up_queue(self, number: int, addresses: DriverAddresses) -> None:
        """Tell the device where queue `number` is and make it ready.

        Raises DeviceRefused if the device has no such queue, or does not become ready, and DeviceViolation if it was
        ready before.
        """
        size_max = self.queue_size_max(number)
        if addresses.size > size_max:
            raise self.fail(f"queue {number} has at most {size_max} descriptors, not {addresses.size}")
        if self.read(Register.QUEUE_READY):
            raise DeviceViolation(_CLAUSE, "a queue was ready before it was set up", queue=number)
        self.write(Register.QUEUE_SIZE, addresses.size)
        for low, address in (
            (Register.QUEUE_DESC_LOW, addresses.descriptor),
            (Register.QUEUE_DRIVER_LOW, addresses.driver),
            (Register.QUEUE_DEVICE_LOW, addresses.device),
        ):
            self.write(low, address & 0xFFFF_FFFF)
            self.write(Register(low + 4), address >> 32)
        self.write(Register.QUEUE_READY, 1)
        if not self.read(Register.QUEUE_READY):
            raise self.fail(f"queue {number} did not become ready")

    def reset_queue(self, number: int) -> None:
        """Reset one queue (RING_RESET); after it, the driver may use its memory for something else.

        `set_up_queue` takes it into use again. Raises DeviceViolation if the reset does not complete, or leaves the
        queue ready.
        """
        self.write(Register.QUEUE_SEL, number)
        self.write(Register.QUEUE_RESET, 1)
        for _ in range(_RESET_TRIES):
            if not self.read(Register.QUEUE_RESET):
                break
        else:
            raise DeviceViolation(_CLAUSE, "the queue's reset does not complete", queue=number)
        if self.read(Register.QUEUE_READY):
            raise DeviceViolation(_CLAUSE, "a queue is ready after its reset", queue=number)

    def drive(self) -> None:
        """Set DRIVER_OK: the device is live."""
        self.set_status(DeviceStatus.DRIVER_OK)

    def fail(self, why: str) -> DeviceRefused:
        """Set FAILED, and return the error to raise."""
        self.set_status(DeviceStatus.FAILED)
        return DeviceRefused(f"device at {self.base:#x}: {why}")

    # Working

    def notify(self, notification: int) -> None:
        """Kick a queue: its number, or with NOTIFICATION_DATA what `DriverQueue.notification_data` says."""
        self._exits.write(self.base + Register.QUEUE_NOTIFY, 4, notification)

    def publish(self, queue: DriverQueue) -> None:
        """Show the device what was added to `queue`, and kick it if it wants to be told."""
        queue.publish()
        if queue.should_kick():
            carries_data = queue.features >> Feature.NOTIFICATION_DATA & 1
            self.notify(queue.notification_data() if carries_data else queue.number)

    def take_interrupt(self) -> Interrupt:
        """Return why the device interrupted, and acknowledge just that."""
        causes = Interrupt(
            self.read(Register.INTERRUPT_STATUS) & int(Interrupt.USED_BUFFER | Interrupt.CONFIGURATION_CHANGE)
        )
        if causes:
            self.write(Register.INTERRUPT_ACK, int(causes))
        return causes

    def read_config(self, layout: construct.Construct, fields: Collection[str] | None = None) -> dict[str, int]:
        """Return integer fields of the configuration space as they were at one moment: these, or all.

        Raises DeviceViolation if the device changes it each time it is read.
        """
        places = dtype_of(layout).fields
        assert places is not None
        wanted = places if fields is None else {name: places[name] for name in places if name in fields}
        for _ in range(_GENERATION_TRIES):
            before = self.read(Register.CONFIG_GENERATION)
            values = {
                name: self._read_field(int(offset), dtype.itemsize) for name, (dtype, offset, *_) in wanted.items()
            }
            if self.read(Register.CONFIG_GENERATION) == before:
                return values
        raise DeviceViolation(_CLAUSE, "the configuration changes each time that it is read")

    def _read_field(self, offset: int, size: int) -> int:
        # A 64-bit field is read in two halves; the generation says whether they belong together.
        pieces = range(0, size, 4)
        return sum(self._exits.read(self.base + CONFIG_OFFSET + offset + at, min(size, 4)) << 8 * at for at in pieces)

    def write_config(self, layout: construct.Construct, field: str, value: int) -> None:
        """Write one integer field of the configuration space, of 1, 2 or 4 bytes."""
        fields = dtype_of(layout).fields
        assert fields is not None
        dtype, offset = fields[field][:2]
        self._exits.write(self.base + CONFIG_OFFSET + int(offset), dtype.itemsize, value)
