"""What the driver does to a device over other transports, and a front end only implies: from features to DRIVER_OK.

No message says that the driver is up, and none that the guest was reset. So the device is taken to FEATURES_OK when
features are set, and to DRIVER_OK when the first ring is served. After a stop, rings that go on where they stood are
those of a guest that was paused; rings that had gone on and begin anew are those of a driver that begins anew, and the
device is reset. (Rings that never went anywhere do not tell. Then nothing was done that a new driver must not find.)
"""

from collections.abc import Iterable

from spec.device import DeviceStatus, Feature
from vdev.device import Device
from vdev.errors import DriverViolation, FrontEndViolation
from vdev.negotiation import feature_violation
from vdev.vhost_user.ring_base import FRESH_PACKED, FRESH_SPLIT, ring_base
from vdev.vhost_user.vring import Vring
from vdev.virtqueue.queue import DeviceQueue

__all__ = ["BringUp"]

_DRIVER = DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER


class BringUp:
    """The driver's part of one device's negotiation."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.features: int | None = None
        """What the front end accepted of the device's features, None before it did."""
        self._keeps_state = False
        self._went_on = False
        """Whether a ring that was stopped stood elsewhere than at its beginning."""
        self._written_config: dict[str, bytes] = {}

    @property
    def needs_reset(self) -> bool:
        """Whether the device found a violation and stopped."""
        return bool(self._device.status & DeviceStatus.DEVICE_NEEDS_RESET)

    def agree(self, features: int) -> None:
        """Take the device to FEATURES_OK with these; it goes on as it is if it has them already.

        Raises FrontEndViolation if it does not offer them, or not together; then nothing has changed.
        """
        violation = feature_violation(self._device.offered_features, features)
        if violation is not None:
            raise FrontEndViolation("Front-end message types", violation.message)
        has_driver = bool(self._device.status & DeviceStatus.FEATURES_OK)
        agreed = has_driver and self._device.features == features
        if self._keeps_state and has_driver and not agreed:
            raise FrontEndViolation(
                "Migrating back-end state", f"features {features:#x}; the loaded device has {self._device.features:#x}"
            )
        self.features = features
        if not agreed or self.needs_reset:
            self._begin_anew()

    def _begin_anew(self) -> None:
        assert self.features is not None
        device = self._device
        device.reset()
        device.violation = None
        device.write_status(_DRIVER)
        for word in range(self.features.bit_length() // 32 + 1):
            device.accept_word(word, self.features >> 32 * word & 0xFFFF_FFFF)
        device.write_status(device.status | DeviceStatus.FEATURES_OK)
        for field, data in self._written_config.items():
            self._store(field, data)

    def forget(self) -> None:
        """Reset the device; features are to be agreed again."""
        self.features = None
        self._keeps_state = self._went_on = False
        self._written_config.clear()
        self._device.reset()

    def keep_state(self) -> None:
        """Start the next time from the state that the device has: it was loaded."""
        self._keeps_state = True

    def attach(self, ring: Vring, set_up: Iterable[Vring]) -> DeviceQueue | None:
        """Take a ring into use from its base on; None if the device refuses what the driver put there.

        `set_up` are the rings that have been given a base. Raises FrontEndViolation for a base that no ring can have.
        """
        assert ring.addresses is not None
        assert self.features is not None
        device, fresh = self._device, self._fresh_bases
        if not device.queues:
            bases = [base for other in set_up if (base := self._base(other)) is not None]
            may_be_new = self._went_on or self.needs_reset
            if may_be_new and not self._keeps_state and fresh.issuperset(bases):
                self._begin_anew()
            self._keeps_state = self._went_on = False
        setup = device.queue_setups[ring.number]
        setup.size, setup.descriptor = ring.size, ring.addresses.descriptor
        setup.driver, setup.device = ring.addresses.driver, ring.addresses.device
        device.enable_queue(ring.number)
        queue = device.queues.get(ring.number)
        if queue is None:
            return None
        try:
            base = self._base(ring)
            queue.start_from(max(fresh) if base is None else base)
        except ValueError as error:
            device.stop_queue(ring.number)
            raise FrontEndViolation("Vring descriptor indices", str(error), queue=ring.number) from error
        except DriverViolation as violation:
            device.stop_queue(ring.number)
            device.needs_reset(violation)
            return None
        return queue

    def drive(self) -> None:
        """Set DRIVER_OK, if it is not set: a ring is served. The device looks at its queues."""
        self._written_config.clear()
        if not self._device.status & DeviceStatus.DRIVER_OK:
            self._device.write_status(self._device.status | DeviceStatus.DRIVER_OK)

    def detach(self, ring: Vring) -> None:
        """Stop using a ring, and note in it where it stood."""
        queue = self._device.queues.get(ring.number)
        if queue is not None:
            ring.base = queue.ring_base()
            self._went_on |= ring.base not in self._fresh_bases
            self._device.stop_queue(ring.number)

    @property
    def _is_packed(self) -> bool:
        return self.features is not None and bool(self.features >> Feature.RING_PACKED & 1)

    @property
    def _fresh_bases(self) -> frozenset[int]:
        return FRESH_PACKED if self._is_packed else FRESH_SPLIT

    def _base(self, ring: Vring) -> int | None:
        return ring_base(ring, self._device.memory, packed=self._is_packed)

    # Configuration space, which the driver may write before its features are told here

    def write_field(self, field: str, data: bytes) -> None:
        """Store the driver's value of a field, and again when the device begins anew before a ring is served."""
        if not self._device.running or not self._device.queues:
            self._written_config[field] = data
        self._store(field, data)

    def _store(self, field: str, data: bytes) -> None:
        device = self._device
        if not device.status & DeviceStatus.FEATURES_OK or field not in device.writable_fields():
            return
        fields = device.config.dtype.fields
        assert fields is not None
        offset, width = fields[field][1], min(len(data), 4)
        for start in range(0, len(data), width):
            part = data[start : start + width]
            device.write_config(offset + start, len(part), int.from_bytes(part, "little"))
