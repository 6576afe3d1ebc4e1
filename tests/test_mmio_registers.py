"""The virtio-mmio register file, access by access (virtio 1.4, "MMIO Device Register Layout")."""

import pytest
from device_setup import BASE, Wire, of_type, recorded_events
from hypothesis import given
from hypothesis import strategies as st

from guest_agent.mmio import MmioDriver
from guest_agent.virtqueue.queue import DriverAddresses
from spec.device import DeviceStatus, Feature, feature_mask
from spec.mmio import CONFIG_OFFSET, READABLE, WRITABLE, Interrupt, Register
from vdev.device import RING_FEATURES, Device
from vdev.devices.balloon import BalloonDevice
from vdev.errors import DeviceViolation
from vdev.events import RegisterRead, RegisterWritten, ViolationFound
from vdev.memory import GuestMemory
from vdev.mmio import MmioRegisters

GOOD = DriverAddresses(16, 0x1000, 0x2000, 0x3000)


class Nothing(Device):
    device_id = 40
    name = "nothing"
    queue_sizes = (16, 64)


class Machine:
    """A device that does nothing, its registers, and what listeners heard."""

    def __init__(self, device_class=Nothing):
        emitter, self.seen = recorded_events()
        self.memory = GuestMemory.private(1 << 20)
        self.device = device_class(self.memory, events=emitter)
        self.registers = MmioRegisters(self.device, events=emitter)
        self.wire = Wire(self.device)
        self.wire.registers = self.registers
        self.driver = MmioDriver(self.wire, BASE)

    def read(self, register):
        return self.registers.read(register, 4)

    def write(self, register, value):
        self.registers.write(register, 4, value)

    def negotiate(self, features=RING_FEATURES):
        self.driver.acknowledge_device()
        self.driver.accept_features(features)

    def set_up(self, number=0, addresses=GOOD):
        self.driver.set_up_queue(number, addresses)

    @property
    def complaints(self):
        return [event.message for event in of_type(self.seen, ViolationFound)]


@pytest.fixture
def machine():
    return Machine()


def test_the_device_says_what_it_is(machine):
    assert machine.read(Register.MAGIC_VALUE).to_bytes(4, "little") == b"virt"
    assert machine.read(Register.VERSION) == 2
    assert machine.read(Register.DEVICE_ID) == 40
    assert machine.read(Register.VENDOR_ID).to_bytes(4, "little") == b"EVDV"


def test_offered_features_are_read_in_words_and_none_is_past_the_last(machine):
    words = []
    for word in (0, 1, 2, 3, 4, 5, 0xFFFF_FFFF):
        machine.write(Register.DEVICE_FEATURES_SEL, word)
        words.append(machine.read(Register.DEVICE_FEATURES))
    assert words == [RING_FEATURES & 0xFFFF_FFFF, RING_FEATURES >> 32, 0, 0, 0, 0, 0]


def test_a_shared_memory_region_reads_as_absent_whichever_is_selected(machine):
    for region in (0, 1, 0xFFFF_FFFF):
        machine.write(Register.SHM_SEL, region)
        for register in (Register.SHM_LEN_LOW, Register.SHM_LEN_HIGH, Register.SHM_BASE_LOW, Register.SHM_BASE_HIGH):
            assert machine.read(register) == 0xFFFF_FFFF


def test_every_register_has_the_directions_of_the_text(machine):
    assert set(machine.registers._readers) == READABLE
    assert set(machine.registers._writers) == WRITABLE


@pytest.mark.parametrize("size", [1, 2, 8])
def test_a_control_register_answers_only_to_32_bits(machine, size):
    assert machine.registers.read(Register.MAGIC_VALUE, size) == 0
    machine.registers.write(Register.STATUS, size, DeviceStatus.ACKNOWLEDGE)
    assert machine.device.status == 0
    assert machine.complaints == [
        f"read of MAGIC_VALUE with {size} bytes, not 4",
        f"write of STATUS with {size} bytes, not 4",
    ]


def test_a_read_of_a_write_only_register_gives_zero_and_a_complaint(machine):
    machine.write(Register.QUEUE_SEL, 1)
    assert machine.read(Register.QUEUE_SEL) == 0
    assert machine.complaints == ["read of QUEUE_SEL, which does not allow it"]


def test_a_write_to_a_read_only_register_changes_nothing(machine):
    machine.write(Register.MAGIC_VALUE, 1)
    assert machine.read(Register.MAGIC_VALUE) == 0x74726976
    assert machine.complaints == ["write of MAGIC_VALUE, which does not allow it"]


def test_an_access_between_two_registers_reaches_neither(machine):
    assert machine.registers.read(Register.VERSION + 2, 4) == 0
    assert "where no register is" in machine.complaints[0]


@given(
    accesses=st.lists(
        st.tuples(
            st.booleans(),
            st.one_of(st.sampled_from([int(register) for register in Register]), st.integers(0, 0x1FF)),
            st.sampled_from([1, 2, 4]),
            st.one_of(st.sampled_from([0, 1, 2, 3, 11, 15]), st.integers(0, 2**32 - 1)),
        ),
        max_size=80,
    )
)
def test_no_sequence_of_accesses_makes_the_host_raise(accesses):
    machine = Machine(BalloonDevice)
    for is_write, offset, size, value in accesses:
        if is_write:
            machine.registers.write(offset, size, value)
        else:
            assert 0 <= machine.registers.read(offset, size) < 1 << 8 * size


def test_each_access_is_an_event_with_its_value(machine):
    machine.write(Register.STATUS, 1)
    machine.read(Register.STATUS)
    assert of_type(machine.seen, RegisterWritten) == [RegisterWritten("nothing", 0x70, 4, 1)]
    assert of_type(machine.seen, RegisterRead) == [RegisterRead("nothing", 0x70, 4, 1)]


# Queues


def test_a_queue_that_is_not_there_has_no_size_and_takes_no_address(machine):
    machine.negotiate()
    machine.write(Register.QUEUE_SEL, 2)
    assert machine.read(Register.QUEUE_SIZE_MAX) == 0
    machine.write(Register.QUEUE_DESC_LOW, 0x1000)
    machine.write(Register.QUEUE_READY, 1)
    assert machine.read(Register.QUEUE_READY) == 0
    assert len(machine.complaints) == 2


def test_each_queue_says_its_own_size(machine):
    assert [machine.driver.queue_size_max(number) for number in range(3)] == [16, 64, 0]


def test_both_halves_of_an_address_arrive():
    machine = Machine()
    machine.negotiate()
    machine.write(Register.QUEUE_SEL, 1)
    machine.write(Register.QUEUE_DRIVER_HIGH, 0x12345678)
    machine.write(Register.QUEUE_DRIVER_LOW, 0x9ABCDEF0)
    machine.write(Register.QUEUE_DRIVER_HIGH, 0x1)
    assert machine.device.queue_setups[1].driver == 0x1_9ABC_DEF0


def test_a_ready_queue_reads_as_ready_and_a_stopped_one_does_not(machine):
    machine.negotiate()
    machine.set_up()
    assert machine.read(Register.QUEUE_READY) == 1
    machine.write(Register.QUEUE_READY, 0)
    assert machine.read(Register.QUEUE_READY) == 0
    assert machine.device.queues == {}


def test_the_set_up_of_a_ready_queue_cannot_be_changed(machine):
    machine.negotiate()
    machine.set_up()
    machine.write(Register.QUEUE_SIZE, 8)
    machine.write(Register.QUEUE_DESC_LOW, 0x8000)
    assert machine.device.queue_setups[0].size == 16
    assert machine.device.queue_setups[0].descriptor == 0x1000
    assert machine.complaints == [
        "QUEUE_SIZE was written while queue 0 is ready",
        "QUEUE_DESC_LOW was written while queue 0 is ready",
    ]


def test_a_queue_cannot_be_ready_before_the_features_are_agreed_on(machine):
    machine.driver.acknowledge_device()
    machine.write(Register.QUEUE_SIZE, 16)
    machine.write(Register.QUEUE_READY, 1)
    assert machine.read(Register.QUEUE_READY) == 0
    assert machine.complaints == ["queue 0 was made ready before FEATURES_OK"]


@pytest.mark.parametrize(
    "addresses",
    [
        DriverAddresses(0, 0x1000, 0x2000, 0x3000),
        DriverAddresses(12, 0x1000, 0x2000, 0x3000),
        DriverAddresses(32, 0x1000, 0x2000, 0x3000),
        DriverAddresses(16, 0x1008, 0x2000, 0x3000),
        DriverAddresses(16, 0x1000, 0x2001, 0x3000),
        DriverAddresses(16, 0x1000, 0x2000, 0x3002),
        DriverAddresses(16, 1 << 40, 0x2000, 0x3000),
        DriverAddresses(16, 0x1000, 0x10_0000 - 2, 0x3000),
        DriverAddresses(16, 0x1000, 0x2000, 0xFFFF_FFFF_FFFF_FFFC),
    ],
)
def test_a_queue_that_no_split_ring_can_be_needs_a_reset(machine, addresses):
    machine.negotiate(RING_FEATURES & ~feature_mask(Feature.RING_PACKED))
    machine.write(Register.QUEUE_SEL, 0)
    machine.write(Register.QUEUE_SIZE, addresses.size)
    for low, address in zip((0x80, 0x90, 0xA0), addresses[1:], strict=True):
        machine.write(low, address & 0xFFFF_FFFF)
        machine.write(low + 4, address >> 32)
    machine.write(Register.QUEUE_READY, 1)
    assert machine.read(Register.QUEUE_READY) == 0
    assert machine.read(Register.STATUS) & DeviceStatus.DEVICE_NEEDS_RESET
    assert machine.device.violation is not None
    # Before DRIVER_OK there is nobody to tell.
    assert machine.read(Register.INTERRUPT_STATUS) == 0


def test_a_queue_reset_forgets_the_queue_and_reads_as_done(machine):
    machine.negotiate()
    machine.set_up()
    machine.driver.drive()
    machine.driver.reset_queue(0)
    assert machine.read(Register.QUEUE_READY) == 0
    assert machine.read(Register.QUEUE_RESET) == 0
    machine.set_up(addresses=DriverAddresses(8, 0x4000, 0x5000, 0x6000))
    assert machine.read(Register.QUEUE_READY) == 1
    assert machine.device.queues[0].size == 8


def test_queue_reset_does_nothing_unless_it_was_negotiated(machine):
    machine.negotiate(feature_mask(Feature.VERSION_1))
    machine.set_up()
    machine.write(Register.QUEUE_RESET, 1)
    assert machine.read(Register.QUEUE_READY) == 1
    assert machine.complaints == ["QueueReset was written without RING_RESET"]


def test_a_kick_before_driver_ok_is_reported_and_not_followed(machine):
    machine.negotiate()
    machine.set_up()
    machine.driver.notify(0)
    assert machine.complaints == ["a queue was kicked before DRIVER_OK"]


def test_a_kick_of_a_queue_that_is_not_ready_is_reported(machine):
    machine.negotiate()
    machine.driver.drive()
    machine.driver.notify(7)
    assert machine.complaints == ["a queue that is not ready was kicked"]
    assert not machine.driver.needs_reset


# Interrupts


def test_an_interrupt_cause_stays_until_just_it_is_acknowledged(machine):
    machine.negotiate()
    machine.driver.drive()
    machine.device.change_config()
    machine.device.interrupt_status |= Interrupt.USED_BUFFER
    machine.write(Register.INTERRUPT_ACK, Interrupt.CONFIGURATION_CHANGE)
    assert machine.read(Register.INTERRUPT_STATUS) == Interrupt.USED_BUFFER
    machine.write(Register.INTERRUPT_ACK, 0xFFFF_FFFF)
    assert machine.read(Register.INTERRUPT_STATUS) == 0
    assert machine.complaints == ["InterruptACK was written with undefined bits: 0xffffffff"]


def test_a_reset_clears_interrupts_queues_and_features(machine):
    machine.negotiate()
    machine.set_up()
    machine.driver.drive()
    machine.device.change_config()
    machine.driver.reset()
    assert machine.read(Register.INTERRUPT_STATUS) == 0
    assert machine.read(Register.QUEUE_READY) == 0
    assert machine.device.features == 0
    assert machine.device.queue_setups[0].descriptor == 0


def test_the_configuration_space_begins_behind_the_registers():
    machine = Machine(BalloonDevice)
    machine.device.set_target(0x01020304)
    assert machine.registers.read(CONFIG_OFFSET, 4) == 0x01020304
    assert machine.registers.read(CONFIG_OFFSET, 1) == 4
    assert machine.complaints == ["read of 1 bytes at 0x0 of configuration space is no field's access"]


# The driver's side


def test_the_driver_ignores_a_placeholder_and_names_what_is_no_device():
    class Placeholder(Nothing):
        device_id = 0

    assert MmioDriver.probe(Machine(Placeholder).wire, BASE) is None

    class EmptyBus:
        def read(self, address, size):
            return 0xFFFF_FFFF

    with pytest.raises(DeviceViolation, match="MAGIC_VALUE is 0xffffffff"):
        MmioDriver.probe(EmptyBus(), BASE)


def test_the_driver_does_not_take_a_placeholder_past_its_device_id():
    class Placeholder(Nothing):
        device_id = 0

    machine = Machine(Placeholder)
    MmioDriver.probe(machine.wire, BASE)
    assert [event.offset for event in machine.seen] == [Register.MAGIC_VALUE, Register.VERSION, Register.DEVICE_ID]
