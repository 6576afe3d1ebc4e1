"""A guest finds a balloon, a disk and an entropy device on its bus, uses all three, and takes them along in a move."""

import os
import random
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import trio
from block_setup import DISK_SECTORS, SECTOR, content_of, memfd_disk
from guest_setup import copy_of, memory_of

from guest_agent.drivers.balloon import BalloonDriver
from guest_agent.drivers.block import BlockDriver
from guest_agent.drivers.entropy import EntropyDriver
from guest_agent.kernel import Guest, GuestConfig
from guest_agent.page_database import Owner
from guest_agent.transport import DeviceRefused
from spec.block import BlockFeature
from spec.device import Feature, feature_mask
from vdev.bus import MmioBus
from vdev.devices.balloon import BalloonDevice
from vdev.devices.block import BlockDevice, BlockFile
from vdev.devices.entropy import EntropyDevice
from vdev.errors import DriverViolation
from vdev.events import EventStream
from vdev.machine import Machine
from vdev.memory import PAGE_SIZE, GuestMemory, MemfdBacking, PageMarks, Region
from vdev.mmio import MmioRegisters
from vdev.notify import EventfdDoorbell, InterruptLine
from vdev.schedule import FreeSchedule
from vdev.vcpu import GuestProcess, ProcessVcpu, SharedRam

PAGE_COUNT = 8192


class Side:
    """A guest and three devices on one bus and one interrupt line."""

    def __init__(self, file, *, memory=None, before=None, **options):
        self.file = file
        self.memory = memory if memory is not None else memory_of((0, PAGE_COUNT), marks=True)
        self.balloon = BalloonDevice(self.memory)
        self.disk = BlockDevice(self.memory, file, serial="the guest's disk")
        self.entropy = EntropyDevice(self.memory, source=random.Random(3).randbytes)
        self.devices = [self.balloon, self.disk, self.entropy]
        self.registers = [MmioRegisters(device) for device in self.devices]
        self.bus = MmioBus(self.registers)
        self.interrupted = False
        for device in self.devices:
            device.interrupt = self._interrupt
        self.now = 0.0
        if before is None:
            config = GuestConfig(mmio_addresses=tuple(self.bus.addresses), rate=500, **options)
            self.guest = Guest.boot(self.memory, self.bus, config)
        else:
            for registers, state in zip(self.registers, before.saved(), strict=True):
                registers.restore(state)
            self.guest = Guest.restore(self.memory, self.bus, before.guest.save())
            for device in self.devices:
                device.handle_all_queues()

    def _interrupt(self):
        self.interrupted = True

    def saved(self):
        return [registers.save() for registers in self.registers]

    @property
    def drivers(self):
        return self.guest.drivers

    def live(self, seconds):
        end = self.now + seconds
        while self.now < end:
            if self.interrupted:
                self.interrupted = False
                self.guest.handle_interrupt()
            self.now += max(self.guest.step(self.now), 1e-4)

    def moved(self):
        return Side(self.file, memory=copy_of(self.memory, marks=True), before=self)

    def buffer(self, page_count):
        """Pages of the guest's own that hold a transfer; their address."""
        order = (page_count - 1).bit_length()
        return self.memory.address_of(self.guest.allocator.allocate(order, Owner.DRIVER))


@pytest.fixture
def file():
    file = memfd_disk(np.random.default_rng(5).bytes(DISK_SECTORS * SECTOR))
    yield file
    file.close()


def test_each_device_gets_its_driver(file):
    side = Side(file)
    assert list(map(type, side.drivers)) == [BalloonDriver, BlockDriver, EntropyDriver]
    assert all(device.running for device in side.devices)
    assert side.guest._boot["area_count"] == 3
    assert side.drivers[1].capacity == DISK_SECTORS


def test_wanted_features_hold_for_every_driver(file):
    wanted = feature_mask(BlockFeature.FLUSH)
    side = Side(file, wanted_features=wanted, ring_features=feature_mask(Feature.EVENT_IDX))
    expected = feature_mask(Feature.VERSION_1, Feature.EVENT_IDX)
    assert side.drivers[1].features == expected | wanted
    assert side.drivers[2].features == expected


def test_the_guest_reads_and_writes_its_disk_while_it_works(file):
    side = Side(file)
    _, disk, _ = side.drivers
    address = side.buffer(16)
    disk.submit_read(3, [(address, 9 * SECTOR)], 1)
    disk.publish()
    side.live(0.1)
    assert [completion.token for completion in disk.collect()] == [1]
    assert side.memory.read(address, 9 * SECTOR) == content_of(file)[3 * SECTOR : 12 * SECTOR]
    disk.submit_write(100, [(address, 9 * SECTOR)], 2)
    disk.submit_get_id(3)
    disk.publish()
    side.live(0.1)
    assert [completion.data for completion in disk.collect()] == [b"", b"the guest's disk"]
    assert content_of(file)[100 * SECTOR : 109 * SECTOR] == content_of(file)[3 * SECTOR : 12 * SECTOR]
    assert side.guest.operation_count > 50
    assert side.guest.verify().mismatched == 0


def test_the_guest_stirs_fresh_entropy_from_time_to_time(file):
    side = Side(file)
    seeds = set()
    for _ in range(5):
        side.live(0.3)
        seeds.add(side.drivers[2].seed)
    assert len(seeds) == 5
    assert side.entropy.given_size == side.drivers[2].received_size > 0


def test_all_three_go_on_after_a_move_with_requests_under_way(file):
    side = Side(file)
    side.balloon.set_target(500)
    side.live(1.0)
    address = side.buffer(256)
    _, disk, entropy = side.drivers
    before = entropy.received_size
    disk.submit_read(0, [(address, 1 << 20)], 7)
    disk.submit_flush(8)
    for queue in disk.queues:
        queue.publish()  # and the kick is lost in the move
    assert disk.collect() == []
    moved = side.moved()
    moved.live(0.5)
    _, disk, entropy = moved.drivers
    assert [completion.token for completion in disk.collect()] == [7, 8]
    assert moved.memory.read(address, 1 << 20) == content_of(file)[: 1 << 20]
    assert entropy.received_size > before
    assert moved.balloon.actual == 500
    moved.balloon.set_target(0)
    moved.live(0.5)
    assert moved.balloon.actual == 0
    assert moved.guest.verify().mismatched == 0
    assert moved.guest.resumed_operations > 100


def test_devices_that_need_a_reset_are_given_up_and_the_guest_lives_on(file):
    side = Side(file)
    side.live(0.1)
    for device in side.devices:
        device.needs_reset(DriverViolation("a clause", "something that the device did not like"))
    side.live(1.0)
    assert all("DEVICE_NEEDS_RESET" in driver.gave_up for driver in side.drivers)
    with pytest.raises(DeviceRefused, match="was given up"):
        side.drivers[1].submit_flush(1)
    assert side.drivers[1].collect() == []
    assert not side.drivers[2].ask()
    assert side.guest.operation_count > 400
    assert side.guest.verify().mismatched == 0
    moved = side.moved()
    assert [driver.gave_up for driver in moved.drivers] == [driver.gave_up for driver in side.drivers]


# A guest process


@asynccontextmanager
async def guest_process(file, memory, *, name):
    """A machine with a disk and an entropy device, and a guest process that is plugged into it."""
    asked = trio.Event()

    def source(size):
        if entropy.given_size:
            asked.set()
        return os.urandom(size)

    disk, entropy = BlockDevice(memory, file), EntropyDevice(memory, source=source)
    events = EventStream(lambda: 0.0)
    machine = Machine(memory, [disk, entropy], FreeSchedule(), events, make_doorbell=EventfdDoorbell, name=name)
    try:
        with trio.fail_after(120):
            async with trio.open_nursery() as nursery:
                guest = await GuestProcess.start()
                await guest.wait_up()
                vcpu = ProcessVcpu.plug_in(
                    guest,
                    SharedRam(memory, None),
                    read=machine.bus.read,
                    write=machine.bus.write,
                    ioeventfds=machine.ioeventfds,
                    write_protect=False,
                    trace_fd=None,
                    events=events.emitter(name),
                )
                try:
                    machine.attach(vcpu, InterruptLine(vcpu.interrupt, events.emitter(name)))
                    nursery.start_soon(vcpu.serve_exits)
                    nursery.start_soon(machine.serve)
                    yield machine, asked
                finally:
                    await vcpu.end()
                    nursery.cancel_scope.cancel()
    finally:
        machine.close()


def is_open(path):
    return any(descriptor.resolve() == path for descriptor in Path("/proc/self/fd").iterdir())


def shared_memory():
    backing = MemfdBacking(PAGE_COUNT * PAGE_SIZE)
    return GuestMemory([Region(0, backing)], PageMarks(PAGE_COUNT)), backing


@pytest.mark.process
async def test_a_guest_process_finds_both_devices_and_goes_on_with_them_in_another_process(tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(os.urandom(64 * SECTOR))
    source_memory, source_backing = shared_memory()
    destination_memory, destination_backing = shared_memory()
    async with guest_process(BlockFile.open(path), source_memory, name="source") as (source, asked):
        await source.boot({"mmio_addresses": source.bus.addresses, "rate": 200})
        await source.resume()
        disk, entropy = source.devices
        await asked.wait()
        assert disk.running
        assert disk.queues
        state = await source.pause()
        devices = source.save_devices()
        destination_memory.write(0, source_memory.read(0, PAGE_COUNT * PAGE_SIZE))
    async with guest_process(BlockFile.open(path), destination_memory, name="destination") as (destination, asked):
        destination.restore_devices(devices)
        await destination.vcpu.restore(state)
        await destination.resume()
        disk, entropy = destination.devices
        await asked.wait()
        assert disk.running
        assert disk.queues
        await destination.pause()
        verdict = await destination.vcpu.verify()
        assert verdict["mismatched"] == 0
        assert disk.violation is entropy.violation is None
    for backing in (source_backing, destination_backing):
        backing.close()
    assert not is_open(path)
