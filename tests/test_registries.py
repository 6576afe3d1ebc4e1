"""A device type is added by entering it in two registries: nothing else of the project knows which types there are."""

import math
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from construct import Int32ul, Struct
from front_end_setup import PATIENCE, front_end, serving, shared_memory
from guest_setup import copy_of, memory_of

from guest_agent.drivers.area import REASON, DriverArea
from guest_agent.drivers.driver import DriverKind
from guest_agent.drivers.registry import DRIVERS
from guest_agent.drivers.rings import RING_DRIVER_FEATURES
from guest_agent.kernel import Guest, GuestConfig
from guest_agent.virtqueue import attach_driver_queue, driver_area_size, make_driver_queue
from spec.device import Feature
from vdev.bus import MmioBus
from vdev.cli.main import vdev
from vdev.device import Device
from vdev.devices.kind import Carrier, DeviceKind, DeviceOption, OptionType
from vdev.devices.registry import DEVICES, device_kind
from vdev.memory import PAGE_SIZE, GuestMemory
from vdev.mmio import MmioRegisters

NUMBER = 63
PAGE_COUNT = 2048


class Repeater(Device):
    """Writes what it reads, some times over."""

    device_id = NUMBER
    name = "repeater"
    queue_sizes = (8,)

    def __init__(self, memory, *, times, events):
        super().__init__(memory, events=events)
        self.times = times

    def handle_queue(self, number):
        for chain in self.chains(number):
            written_size = chain.write(self.memory, chain.read(self.memory) * self.times)
            self.queues[number].push(chain.head, written_size)


class RepeaterArea(DriverArea):
    name = "repeater"
    layout = Struct("magic" / Int32ul, "answer_count" / Int32ul, REASON)
    magic = 0x52455054


class RepeaterDriver:
    """Sends "ab" when the guest keeps house."""

    gave_up = None

    def __init__(self, transport, area, queue):
        self.transport, self.area, self.queue = transport, area, queue
        self.buffer = area.address + PAGE_SIZE // 2

    @staticmethod
    def area_size(options=None):
        return PAGE_SIZE + driver_area_size(8)

    @classmethod
    def start(cls, transport, area_address, guest, options):
        transport.acknowledge_device()
        features = transport.negotiate(options.allowed(RING_DRIVER_FEATURES), required=(Feature.VERSION_1,))
        area = RepeaterArea(guest.memory, area_address)
        area["magic"] = area.magic
        queue = make_driver_queue(guest.memory, 0, 8, area_address + PAGE_SIZE, features)
        transport.set_up_queue(0, queue.addresses)
        transport.drive()
        return cls(transport, area, queue)

    @classmethod
    def resume(cls, transport, area_address, guest):
        RepeaterArea.require(guest.memory, area_address)
        queue = attach_driver_queue(guest.memory, 0, area_address + PAGE_SIZE)
        return cls(transport, RepeaterArea(guest.memory, area_address), queue)

    @property
    def answer(self):
        return self.area.memory.read(self.buffer + 16, 6)

    def handle_interrupt(self):
        self.transport.take_interrupt()

    def work(self):
        if self.queue.collect() is not None:
            self.area["answer_count"] += 1
        return False

    def housekeep(self, now):
        if self.queue.free_count == self.queue.size:
            self.area.memory.write(self.buffer, b"ab")
            self.queue.add([(self.buffer, 2)], [(self.buffer + 16, 32)], 0)
            self.transport.publish(self.queue)
        return math.inf


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """The two entries that a new device type needs."""
    option = DeviceOption("times", OptionType.COUNT, "How often.", default=2, defaults={Carrier.VHOST_USER: 3})
    kind = DeviceKind(
        "repeater",
        NUMBER,
        "an echo",
        (option,),
        lambda memory, options, events: Repeater(memory, times=options["times"], events=events),
    )
    monkeypatch.setitem(DEVICES, "repeater", kind)
    monkeypatch.setitem(
        DRIVERS, NUMBER, DriverKind(RepeaterDriver.area_size, RepeaterDriver.start, RepeaterDriver.resume)
    )


def live(guest, interrupted, is_done):
    """Let the guest run on a clock of its own until `is_done`, a simulated minute at most."""
    now = 0.0
    while not is_done():
        now += max(guest.step(now), 1e-3)
        if interrupted():
            guest.handle_interrupt()
        assert now < 60


class OnABus:
    """The device in its window."""

    def __init__(self, memory):
        device = device_kind("repeater").make(memory)
        self.registers = MmioRegisters(device)
        self.bus = MmioBus([self.registers])
        self._causes = []
        device.interrupt = lambda: self._causes.append(1)

    def interrupted(self):
        return bool(self._causes and self._causes.pop())


@pytest.mark.parametrize("ring_features", [0, RING_DRIVER_FEATURES], ids=["split", "packed"])
def test_a_guest_finds_it_on_its_bus_and_takes_it_along_in_a_move(ring_features):
    memory = memory_of((0, PAGE_COUNT), marks=True)
    here = OnABus(memory)
    config = GuestConfig(mmio_addresses=tuple(here.bus.addresses), ring_features=ring_features)
    guest = Guest.boot(memory, here.bus, config)
    (driver,) = guest.drivers
    live(guest, here.interrupted, lambda: driver.area["answer_count"] == 2)
    assert driver.answer == b"abab\0\0"

    copy = copy_of(memory, marks=True)
    there = OnABus(copy)
    there.registers.restore(here.registers.save())
    moved = Guest.restore(copy, there.bus, guest.save())
    (driver,) = moved.drivers
    live(moved, there.interrupted, lambda: driver.area["answer_count"] == 4)
    assert moved.verify().mismatched == 0


def test_a_guest_drives_it_over_vhost_user():
    memory = shared_memory((0, PAGE_COUNT * PAGE_SIZE))
    device = device_kind("repeater").make(GuestMemory.absent(), carrier=Carrier.VHOST_USER)
    nothing = SimpleNamespace(read=None, write=None)
    with serving(device) as served:
        transport = front_end(served, memory)
        guest = Guest.boot(memory, nothing, GuestConfig(), slots=[transport])
        (driver,) = guest.drivers

        def interrupted():
            return transport.wait_interrupt(PATIENCE if driver.queue.free_count < driver.queue.size else 0)

        live(guest, interrupted, lambda: driver.area["answer_count"] == 2)
        assert driver.answer == b"ababab"
        transport.close()


def test_the_command_serves_it_with_its_options():
    assert "repeater" in CliRunner().invoke(vdev, ["serve", "--help"]).output
    shown = CliRunner().invoke(vdev, ["serve", "repeater", "--help"]).output
    assert "Serve an echo." in shown
    assert "How often.  [default: 3" in shown
