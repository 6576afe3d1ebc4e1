"""The driver's side of the registers, against devices that do not keep to the text."""

import pytest
from device_setup import BASE, Guest, LyingWire, Wire

from guest_agent.drivers.balloon import BalloonDriver
from guest_agent.mmio import DeviceRefused, MmioDriver
from guest_agent.virtqueue.queue import DriverAddresses
from spec.device import DeviceStatus, Feature, feature_mask
from spec.mmio import Register
from vdev.device import RING_FEATURES, Device
from vdev.devices.balloon import BalloonDevice
from vdev.errors import DeviceViolation, GuestAddressError
from vdev.memory import GuestMemory

GOOD = DriverAddresses(16, 0x1000, 0x2000, 0x3000)


class Plain(Device):
    device_id = 40
    name = "plain"
    queue_sizes = (16,)


def driver_of(answers=None, hidden=()):
    device = Plain(GuestMemory.private(1 << 20))
    return MmioDriver(LyingWire(device, answers, hidden), BASE), device


def test_a_device_that_stays_set_after_reset_is_named():
    driver, _ = driver_of({Register.STATUS: 0x40})
    with pytest.raises(DeviceViolation, match="stays set after reset"):
        driver.reset()


def test_a_queue_reset_that_never_completes_is_named():
    driver, _ = driver_of({Register.QUEUE_RESET: 1})
    with pytest.raises(DeviceViolation, match="reset does not complete"):
        driver.reset_queue(0)


def test_a_queue_that_is_ready_too_early_is_named():
    driver, _ = driver_of({Register.QUEUE_READY: 1})
    with pytest.raises(DeviceViolation, match="ready before it was set up"):
        driver.set_up_queue(0, GOOD)


def test_a_queue_that_does_not_become_ready_fails_the_start():
    driver, device = driver_of(hidden=(Register.QUEUE_READY,))
    driver.acknowledge_device()
    driver.negotiate(RING_FEATURES)
    with pytest.raises(DeviceRefused, match="queue 0 did not become ready"):
        driver.set_up_queue(0, GOOD)
    assert device.status & DeviceStatus.FAILED


def test_a_queue_larger_than_the_device_can_is_not_tried():
    driver, device = driver_of()
    driver.acknowledge_device()
    driver.negotiate(RING_FEATURES)
    with pytest.raises(DeviceRefused, match="at most 16 descriptors, not 32"):
        driver.set_up_queue(0, DriverAddresses(32, 0x1000, 0x2000, 0x3000))
    assert device.violation is None


def test_a_feature_that_the_driver_needs_and_the_device_lacks_fails_the_start():
    driver, device = driver_of()
    driver.acknowledge_device()
    with pytest.raises(DeviceRefused, match="which this driver needs"):
        driver.negotiate(RING_FEATURES, required=(Feature.SR_IOV,))
    assert device.status & DeviceStatus.FAILED


def test_only_what_both_sides_know_is_negotiated():
    driver, device = driver_of()
    driver.acknowledge_device()
    wanted = feature_mask(Feature.VERSION_1, Feature.EVENT_IDX, Feature.SR_IOV, 7)
    assert driver.negotiate(wanted) == device.features == feature_mask(Feature.VERSION_1, Feature.EVENT_IDX)


def test_a_legacy_device_is_not_driven():
    guest = Guest()
    device = BalloonDevice(guest.memory)
    wire = LyingWire(device, {Register.DEVICE_FEATURES: 0})
    with pytest.raises(DeviceRefused, match="does not offer VERSION_1"):
        BalloonDriver.start(MmioDriver(wire, BASE), guest.memory, guest.allocator, guest.area_address, statistics=dict)


def test_undefined_interrupt_causes_are_neither_seen_nor_acknowledged():
    driver, _ = driver_of({Register.INTERRUPT_STATUS: 0xFFFF_FFFD})
    assert driver.take_interrupt() == 1


def test_a_device_that_does_not_even_reset_is_given_up_all_the_same():
    guest = Guest()
    wire = LyingWire(BalloonDevice(guest.memory))
    driver = BalloonDriver.start(
        MmioDriver(wire, BASE), guest.memory, guest.allocator, guest.area_address, statistics=dict
    )
    wire.answers = {Register.STATUS: int(DeviceStatus.DEVICE_NEEDS_RESET | DeviceStatus.DRIVER_OK)}
    while driver.work():
        pass
    assert "DEVICE_NEEDS_RESET" in driver.gave_up
    assert "stays set after reset" in driver.gave_up
    driver.handle_interrupt()
    assert not driver.work()


# The device's side of a queue, as the transport uses it


def live(device_class):
    device = device_class(GuestMemory.private(1 << 20))
    driver = MmioDriver(Wire(device), BASE)
    driver.acknowledge_device()
    driver.negotiate(RING_FEATURES & ~feature_mask(Feature.RING_PACKED))
    driver.set_up_queue(0, GOOD)
    driver.drive()
    return device, driver


def test_an_address_outside_ram_in_a_device_types_own_data_needs_a_reset():
    class Reaching(Plain):
        def handle_queue(self, number):
            self.memory.read(1 << 40, 4)

    device, driver = live(Reaching)
    assert driver.needs_reset
    assert "0x10000000000" in device.violation.message
    assert not isinstance(device.violation, GuestAddressError)


def test_a_driver_that_never_rests_cannot_keep_the_host_for_ever():
    class Fed(Plain):
        """Its driver adds a buffer whenever one is taken, as another processor could."""

        def handle_queue(self, number):
            index = int.from_bytes(self.memory.read(0x2002, 2), "little")
            for chain in self.chains(number):
                self.queues[number].push(chain.head, 0)
            self.memory.write(0x2002, (index + 1 & 0xFFFF).to_bytes(2, "little"))

    device, driver = live(Fed)
    device.memory.write(0x1000, (0x8000).to_bytes(8, "little") + (16).to_bytes(4, "little"))
    assert device.queue_notify(0) is True
    assert device.queue_notify(0) is True
    assert not driver.needs_reset
