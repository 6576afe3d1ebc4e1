"""How a driver brings a device up, and what the device refuses ("Device Initialization", "Feature Bits")."""

import pytest
from device_setup import BASE, Wire, of_type, recorded_events

from guest_agent.mmio import DeviceRefused, MmioDriver
from guest_agent.virtqueue.queue import DriverAddresses
from spec.device import FEATURE_REQUIRES, DeviceStatus, Feature, feature_mask
from spec.mmio import Interrupt, Register
from vdev.device import RING_FEATURES, Device
from vdev.errors import DriverViolation
from vdev.events import DeviceStatusChanged, ViolationFound
from vdev.memory import GuestMemory
from vdev.negotiation import STATUS_STEPS, feature_violation

A, D, F, OK = DeviceStatus.ACKNOWLEDGE, DeviceStatus.DRIVER, DeviceStatus.FEATURES_OK, DeviceStatus.DRIVER_OK
VERSION_1 = feature_mask(Feature.VERSION_1)


class Probe(Device):
    """Notes what the framework tells it."""

    device_id = 40
    name = "probe"
    queue_sizes = (16,)

    def __init__(self, memory, **options):
        super().__init__(memory, **options)
        self.told = []

    def negotiated(self):
        self.told.append("negotiated")

    def started(self):
        self.told.append("started")

    def handle_queue(self, number):
        self.told.append(f"queue {number}")
        for chain in self.chains(number):
            self.queues[number].push(chain.head, 0)

    def queue_stopped(self, number):
        self.told.append(f"stopped {number}")


@pytest.fixture
def device():
    emitter, events = recorded_events()
    device = Probe(GuestMemory.private(1 << 20), events=emitter)
    device.seen = events
    device.interrupts = []
    device.interrupt = lambda: device.interrupts.append(device.interrupt_status)
    return device


def complaints(device):
    return [event.message for event in of_type(device.seen, ViolationFound)]


def bring_up(device, features=VERSION_1):
    driver = MmioDriver(Wire(device), BASE)
    device.interrupt = lambda: device.interrupts.append(device.interrupt_status)
    driver.acknowledge_device()
    driver.accept_features(features)
    return driver


def test_the_steps_in_the_texts_order_bring_a_device_up(device):
    device.accept_word(1, 1)
    for status in (A, A | D, A | D | F, A | D | F | OK):
        device.write_status(status)
        assert device.status == status
    assert device.told == ["negotiated", "started"]
    assert device.features == VERSION_1
    changes = [(event.before, event.after) for event in of_type(device.seen, DeviceStatusChanged)]
    assert changes == [(0, 1), (1, 3), (3, 11), (11, 15)]


@pytest.mark.parametrize("step", [step for step in STATUS_STEPS if step.after], ids=lambda step: step.bit.name)
def test_a_step_before_its_turn_is_not_taken(device, step):
    device.accept_word(1, 1)
    device.write_status(step.bit)
    assert device.status == 0
    assert "was set before" in complaints(device)[0]


def test_several_steps_may_come_in_one_write(device):
    device.accept_word(1, 1)
    device.write_status(A | D | F | OK)
    assert device.status == A | D | F | OK


def test_a_bit_cannot_be_cleared_but_by_a_reset(device):
    device.write_status(A | D)
    device.write_status(A)
    assert device.status == A | D
    assert complaints(device) == ["status bits 0x2 were cleared by writing 0x1"]
    device.write_status(0)
    assert device.status == 0


@pytest.mark.parametrize("bit", [DeviceStatus.DEVICE_NEEDS_RESET, DeviceStatus.SUSPEND, DeviceStatus(32)])
def test_a_bit_that_is_not_the_drivers_is_not_set(device, bit):
    device.write_status(A | bit)
    assert device.status == A
    assert complaints(device) == [f"status bits {int(bit):#x} are not the driver's to set here"]


def test_the_driver_may_give_up_at_any_time(device):
    device.write_status(DeviceStatus.FAILED)
    assert device.status == DeviceStatus.FAILED


def test_a_feature_that_was_not_offered_is_refused(device):
    driver = MmioDriver(Wire(device), BASE)
    driver.acknowledge_device()
    with pytest.raises(DeviceRefused, match="refuses features"):
        driver.accept_features(VERSION_1 | feature_mask(5))
    assert device.status == A | D | DeviceStatus.FAILED
    assert complaints(device) == ["features 5 were accepted but not offered"]


def test_a_feature_past_bit_127_is_refused_and_costs_no_memory(device):
    device.write_status(A | D)
    device.accept_word(1, 1)
    device.accept_word(0xFFFF_FFFF, 1)
    assert device.driver_features.bit_length() <= 160
    device.write_status(A | D | F)
    assert not device.status & F


def test_a_driver_of_the_legacy_interface_is_refused(device):
    device.write_status(A | D | F)
    assert device.status == A | D
    assert "VERSION_1 was not accepted" in complaints(device)[0]


@pytest.mark.parametrize("bit", FEATURE_REQUIRES, ids=lambda bit: bit.name)
def test_a_feature_without_those_it_needs_is_refused(bit):
    violation = feature_violation(feature_mask(bit, *FEATURE_REQUIRES[bit]), feature_mask(bit))
    assert violation is not None
    assert f"{bit.name} ({bit.value}) was accepted without" in violation.message
    assert (
        feature_violation(feature_mask(bit, *FEATURE_REQUIRES[bit]), feature_mask(bit, *FEATURE_REQUIRES[bit])) is None
    )


@pytest.mark.parametrize("left_out", [28, 29, 40])
def test_any_valid_subset_of_the_offered_features_is_taken(device, left_out):
    bring_up(device, RING_FEATURES & ~feature_mask(left_out))
    assert device.status & F


def test_features_are_fixed_once_they_are_agreed_on(device):
    driver = bring_up(device)
    driver.write(Register.DRIVER_FEATURES_SEL, 0)
    driver.write(Register.DRIVER_FEATURES, 1 << 28)
    assert device.features == device.driver_features == VERSION_1
    assert complaints(device) == ["features were written after FEATURES_OK"]


def test_the_same_features_are_agreed_on_again_after_a_reset(device):
    for _ in range(2):
        bring_up(device, RING_FEATURES)
        assert device.features == RING_FEATURES


def test_buffers_from_before_driver_ok_are_served_when_it_is_set(device):
    driver = bring_up(device)
    driver.set_up_queue(0, DriverAddresses(16, 0x1000, 0x2000, 0x3000))
    device.memory.write(0x2002, b"\x01\x00")  # one chain: descriptor 0
    device.memory.write(0x1000, (0x8000).to_bytes(8, "little") + (16).to_bytes(4, "little"))
    driver.notify(0)
    assert device.memory.read(0x3002, 2) == b"\0\0"
    driver.drive()
    assert device.memory.read(0x3002, 2) == b"\x01\0"
    assert device.told == ["negotiated", "started", "queue 0"]


# DEVICE_NEEDS_RESET


class Breaking(Probe):
    def handle_queue(self, number):
        super().handle_queue(number)
        raise DriverViolation("Some Section", "this device takes nothing")


def test_a_violation_needs_a_reset_tells_the_driver_and_stops_the_queues():
    emitter, seen = recorded_events()
    device = Breaking(GuestMemory.private(1 << 20), events=emitter)
    device.interrupts = []
    driver = bring_up(device)
    driver.set_up_queue(0, DriverAddresses(16, 0x1000, 0x2000, 0x3000))
    driver.write(Register.STATUS, int(A | D | F | OK))
    assert driver.needs_reset
    assert device.interrupts == [Interrupt.CONFIGURATION_CHANGE]
    assert device.violation.message == "this device takes nothing"
    device.told.clear()
    driver.notify(0)
    device.handle_all_queues()
    assert device.told == []
    assert [event.message for event in of_type(seen, ViolationFound)] == ["this device takes nothing"]


def test_the_first_violation_is_remembered_and_the_driver_told_once(device):
    bring_up(device).drive()
    device.needs_reset(DriverViolation("One", "first"))
    device.needs_reset(DriverViolation("Two", "second"))
    assert device.violation.message == "first"
    assert len(device.interrupts) == 1
    device.write_status(0)
    assert device.violation.message == "first"
    assert device.status == 0


def test_a_driver_that_does_not_know_of_the_needed_reset_may_still_set_failed(device):
    bring_up(device).drive()
    device.needs_reset(DriverViolation("One", "first"))
    device.write_status(A | D | F | OK | DeviceStatus.FAILED)
    assert device.status & DeviceStatus.FAILED
    assert device.status & DeviceStatus.DEVICE_NEEDS_RESET
    assert complaints(device) == ["first"]


def test_a_reset_stops_every_queue(device):
    driver = bring_up(device)
    driver.set_up_queue(0, DriverAddresses(16, 0x1000, 0x2000, 0x3000))
    driver.reset()
    assert device.told == ["negotiated", "stopped 0"]
    assert device.queues == {}
