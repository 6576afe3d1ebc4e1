"""Configuration space: fields, who may write them, and its generation ("Device Configuration Space")."""

import pytest
from construct import Array, Bytes, Int8ul, Int16ul, Int32ul, Int64ul, Struct
from device_setup import BASE, Wire, of_type, recorded_events

from guest_agent.mmio import MmioDriver
from spec.device import Feature, feature_mask
from spec.mmio import CONFIG_OFFSET, Register
from vdev.device import Device
from vdev.errors import DeviceViolation
from vdev.events import ConfigChanged, ViolationFound
from vdev.memory import GuestMemory

LAYOUT = "config" / Struct(
    "capacity" / Int64ul,
    "mode" / Int32ul,
    "port" / Int16ul,
    "flag" / Int8ul,
    "mac" / Bytes(3),
    "table" / Array(2, Int16ul),
)


class Configured(Device):
    device_id = 41
    name = "configured"
    config_layout = LAYOUT
    writable_config = frozenset({"mode", "mac"})

    def __init__(self, memory, **options):
        super().__init__(memory, **options)
        self.written = []

    def config_written(self, offset, size):
        self.written.append((offset, size))


class Setup:
    def __init__(self, features_ok=True):
        emitter, self.seen = recorded_events()
        self.device = Configured(GuestMemory.private(1 << 20), events=emitter)
        self.wire = Wire(self.device)
        self.driver = MmioDriver(self.wire, BASE)
        self.driver.acknowledge_device()
        if features_ok:
            self.driver.accept_features(feature_mask(Feature.VERSION_1))

    def read(self, offset, size):
        return self.wire.registers.read(CONFIG_OFFSET + offset, size)

    def write(self, offset, size, value):
        self.wire.registers.write(CONFIG_OFFSET + offset, size, value)

    @property
    def complaints(self):
        return [event.message for event in of_type(self.seen, ViolationFound)]


def test_a_field_of_each_width_reads_with_its_own_width():
    setup = Setup()
    setup.device.change_config(capacity=0x1122334455667788, mode=0x99AABBCC, port=0xDDEE, flag=0xFF)
    assert [setup.read(0, 4), setup.read(4, 4)] == [0x55667788, 0x11223344]
    assert [setup.read(8, 4), setup.read(12, 2), setup.read(14, 1)] == [0x99AABBCC, 0xDDEE, 0xFF]
    assert [setup.read(15 + at, 1) for at in range(3)] == [0, 0, 0]
    assert [setup.read(18, 2), setup.read(20, 2)] == [0, 0]
    assert setup.complaints == []


def test_the_config_view_is_live():
    setup = Setup()
    setup.device.config["mode"] = 7
    assert setup.read(8, 4) == 7


@pytest.mark.parametrize(("offset", "size"), [(0, 8), (0, 2), (10, 4), (12, 4), (22, 4), (0xF0, 4)])
def test_a_width_that_is_no_fields_is_served_as_bytes_and_reported(offset, size):
    setup = Setup()
    assert setup.read(offset, size) == 0
    assert setup.complaints == [f"read of {size} bytes at {offset:#x} of configuration space is no field's access"]


def test_fields_can_be_read_before_features_are_agreed_on_but_not_written():
    setup = Setup(features_ok=False)
    setup.device.change_config(mode=5)
    assert setup.read(8, 4) == 5
    setup.write(8, 4, 6)
    assert setup.read(8, 4) == 5
    assert setup.complaints == ["configuration space was written before FEATURES_OK"]


def test_only_the_drivers_own_fields_can_be_written():
    setup = Setup()
    setup.write(8, 4, 6)
    setup.write(16, 1, 0xAB)
    setup.write(12, 2, 9)
    assert setup.device.written == [(8, 4), (16, 1)]
    assert (setup.read(8, 4), setup.read(16, 1), setup.read(12, 2)) == (6, 0xAB, 0)
    assert setup.complaints == ["configuration field port is not the driver's to write now"]


def test_a_write_past_the_end_goes_nowhere():
    setup = Setup()
    setup.write(22, 4, 0xFFFF_FFFF)
    setup.write(0x90, 4, 0xFFFF_FFFF)
    assert setup.device.config.tobytes() == bytes(22)
    assert len(setup.complaints) == 2


def test_the_generation_moves_with_every_change_of_the_devices_and_wraps():
    setup = Setup()
    setup.device._config.generation = 0xFFFF_FFFF
    setup.device.change_config(mode=1)
    assert setup.driver.read(Register.CONFIG_GENERATION) == 0
    setup.device.store_config(mode=2)
    assert setup.driver.read(Register.CONFIG_GENERATION) == 1
    assert [event.generation for event in of_type(setup.seen, ConfigChanged)] == [0]


def test_a_change_interrupts_only_a_driver_that_is_there():
    setup = Setup()
    setup.device.change_config(mode=1)
    assert (setup.wire.interrupt_count, setup.device.interrupt_status) == (0, 0)
    setup.driver.drive()
    setup.device.change_config(mode=2)
    assert (setup.wire.interrupt_count, setup.device.interrupt_status) == (1, 2)


def test_the_driver_reads_again_when_the_configuration_changed_under_it():
    setup = Setup()
    setup.device.change_config(capacity=0x1_0000_0001)
    reads = []
    true_read = setup.wire.read

    def read(address, size):
        if address == BASE + CONFIG_OFFSET + 4 and not reads:
            reads.append(address)
            setup.device.change_config(capacity=0x2_0000_0002)
        return true_read(address, size)

    setup.wire.read = read
    layout = "start" / Struct("capacity" / Int64ul)
    assert setup.driver.read_config(layout) == {"capacity": 0x2_0000_0002}


def test_a_configuration_that_never_stands_still_is_the_devices_fault():
    setup = Setup()
    true_read = setup.wire.read

    def read(address, size):
        setup.device.store_config(mode=0)
        return true_read(address, size)

    setup.wire.read = read
    with pytest.raises(DeviceViolation, match="changes each time"):
        setup.driver.read_config("start" / Struct("capacity" / Int64ul))
