"""The guest with its balloon: found on the bus, worked with beside the workload, found again after a move."""

import numpy as np
import pytest
from device_setup import BASE, Hints, Wire
from guest_setup import copy_of, memory_of, pages_of

from guest_agent.kernel import Guest, GuestConfig
from guest_agent.page_database import Owner
from spec.balloon import BalloonFeature, QueueNumbering, StatisticTag
from spec.device import DeviceId, Feature, feature_mask
from spec.mmio import Register
from vdev.devices.balloon import BalloonDevice
from vdev.errors import UserError
from vdev.memory import PAGE_SIZE, PageMarks

MIB = 1 << 20
PAGE_COUNT = 16384


class Nothing:
    """A bus where each window is empty: DeviceID 0."""

    def read(self, address, size):
        return {Register.MAGIC_VALUE: 0x74726976, Register.VERSION: 2}.get(address - BASE, 0)

    def write(self, address, size, value):
        raise AssertionError("a placeholder is not written to")


class Unknown(Nothing):
    """A device of a type that this guest has no driver for."""

    def read(self, address, size):
        return DeviceId.NETWORK if address - BASE == Register.DEVICE_ID else super().read(address, size)


class Side:
    """A guest and its balloon on one piece of RAM."""

    def __init__(self, memory=None, state=None, device_state=None, *, numbering=QueueNumbering.FIXED, **options):
        self.memory = memory if memory is not None else memory_of((0, PAGE_COUNT), marks=True)
        self.device = BalloonDevice(self.memory, numbering=numbering)
        self.wire = Wire(self.device)
        self.now = 0.0
        if state is None:
            config = GuestConfig(mmio_addresses=(BASE,), rate=1000, numbering=numbering.value, **options)
            self.guest = Guest.boot(self.memory, self.wire, config)
        else:
            self.device.restore(device_state)
            self.guest = Guest.restore(self.memory, self.wire, state)

    @property
    def driver(self):
        return self.guest.drivers[0]

    def live(self, seconds):
        end = self.now + seconds
        while self.now < end:
            if self.wire.interrupt_count:
                self.wire.interrupt_count = 0
                self.guest.handle_interrupt()
            self.now += max(self.guest.step(self.now), 1e-4)

    def held(self, owner):
        return int((1 << self.guest.allocator.blocks_of(owner).orders).sum())

    def moved(self, memory=None):
        return Side(
            memory if memory is not None else copy_of(self.memory, marks=True),
            self.guest.save(),
            self.device.save(),
        )


@pytest.mark.parametrize("exits", [Nothing(), Unknown()])
def test_a_window_without_a_device_that_it_knows_is_left_alone(exits):
    guest = Guest.boot(memory_of((0, 2048)), exits, GuestConfig(mmio_addresses=(BASE,)))
    assert guest._boot["area_count"] == 0
    for n in range(10):
        guest.step(n * 0.1)


@pytest.mark.parametrize("numbering", QueueNumbering)
def test_the_balloon_is_found_and_filled_while_the_workload_runs(numbering):
    side = Side(numbering=numbering)
    side.device.set_target(3000)
    side.live(1.0)
    assert side.device.actual == side.driver.actual == side.held(Owner.BALLOON) == 3000
    assert side.guest.operation_count > 900
    side.device.set_target(100)
    side.live(1.0)
    assert side.held(Owner.BALLOON) == 100
    assert side.guest.verify().mismatched == 0


def test_its_wanted_features_are_those_of_the_device_type_only():
    side = Side(wanted_features=feature_mask(BalloonFeature.STATS_VQ))
    assert side.driver.features >> Feature.VERSION_1 & 1
    assert side.driver.features >> Feature.EVENT_IDX & 1
    assert side.driver.features & 0xFFFFFF == feature_mask(BalloonFeature.STATS_VQ)
    without = Side(ring_features=0)
    assert not without.driver.features >> Feature.EVENT_IDX & 1


def test_statistics_are_what_the_allocator_says():
    side = Side(workload="idle")
    side.device.set_target(500)
    side.live(0.5)
    side.device.request_statistics()
    side.live(0.1)
    statistics = side.device.statistics
    assert statistics[StatisticTag.FREE_MEMORY] == side.guest.allocator.free_page_count * PAGE_SIZE
    assert statistics[StatisticTag.TOTAL_MEMORY] == (PAGE_COUNT - 500) * PAGE_SIZE
    assert statistics[StatisticTag.AVAILABLE_MEMORY] >= statistics[StatisticTag.FREE_MEMORY]


def test_hinted_pages_are_free_ones_and_come_back():
    side = Side()
    hinted = []
    side.device.hinting.sink = Hints(lambda ranges: hinted.append(ranges.to_pages()) or ranges.page_count)
    side.device.hinting.request()
    side.live(0.5)
    pages = np.concatenate(hinted)
    assert len(pages) == side.held(Owner.HINTED) >= 5 * 1024
    side.device.hinting.done()
    side.live(0.3)
    assert side.held(Owner.HINTED) == 0
    assert side.guest.verify().mismatched == 0


def test_reported_pages_come_back_too():
    side = Side(workload="idle")
    side.live(2.0)
    assert side.held(Owner.REPORTED) == 0
    assert side.guest.verify().mismatched == 0


@pytest.mark.parametrize("poison_value", [None, 0])
def test_a_guest_that_moves_while_hints_are_out_goes_on_with_its_balloon(poison_value):
    side = Side(poison_value=poison_value)
    side.device.set_target(700)
    side.live(0.3)
    side.device.hinting.sink = Hints(lambda ranges: 0)
    side.device.hinting.request()
    side.live(0.2)
    assert side.held(Owner.HINTED) > 0
    side.device.hinting.stop()
    side.live(0.05)
    moved = side.moved()
    assert moved.guest.verify().mismatched == 0
    moved.device.hinting.done()
    moved.device.set_target(50)
    moved.live(1.0)
    assert (moved.held(Owner.HINTED), moved.held(Owner.BALLOON)) == (0, 50)
    assert moved.guest.resumed_operations > 500
    assert moved.guest.verify().mismatched == 0


@pytest.mark.parametrize("seed", range(3))
def test_drivers_and_workload_together_leave_no_store_unmarked(seed):
    side = Side(seed=seed, memory=memory_of((0, PAGE_COUNT), marks=True))
    destination = copy_of(side.memory)
    side.device.hinting.sink = Hints(lambda ranges: 0)
    for target in (900, 100, 2000):
        side.memory.page_marks.marks[:] = 0
        side.device.set_target(target)
        side.device.hinting.request()
        side.live(0.25)
        side.device.hinting.done()
        side.live(0.05)
        for page in np.flatnonzero(side.memory.page_marks.marks).tolist():
            destination.write(destination.address_of(page), side.memory.read(side.memory.address_of(page), PAGE_SIZE))
    free, orders = side.guest.allocator.blocks_of(Owner.BALLOON)
    relied_on = np.ones(PAGE_COUNT, bool)
    for page, order in zip(free.tolist(), orders.tolist(), strict=True):
        relied_on[page : page + (1 << order)] = False
    differing = (pages_of(side.memory) != pages_of(destination)).any(axis=1)
    assert not (differing & relied_on).any()
    destination.page_marks = PageMarks(destination.page_count)
    moved = side.moved(destination)
    moved.live(0.2)
    assert moved.guest.verify().mismatched == 0


def test_what_a_driver_needs_must_fit_in_ram():
    memory = memory_of((0, 12))
    device = BalloonDevice(memory)
    with pytest.raises(UserError, match="contiguous bytes for the driver of the device at 0xfeb00000"):
        Guest.boot(memory, Wire(device), GuestConfig(mmio_addresses=(BASE,)))
