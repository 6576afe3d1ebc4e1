"""The balloon driver: starting, hints as Linux posts them, giving up, and living on after a migration."""

import pytest
from device_setup import BASE, BalloonPair, Guest, Wire, break_used_ring, of_type

from guest_agent.allocator import BuddyAllocator
from guest_agent.drivers.balloon import BALLOON_DRIVER_FEATURES, BalloonDriver
from guest_agent.marked_ram import MarkedRam
from guest_agent.mmio import DeviceRefused, MmioDriver
from guest_agent.page_database import Owner
from guest_agent.ram_layout import BootPage
from guest_agent.virtqueue.queue import NoQueueHere
from spec.balloon import BalloonFeature, BalloonQueue, CommandId, QueueNumbering
from spec.device import DeviceStatus, Feature, feature_mask
from vdev.devices.balloon import BalloonDevice, HintState
from vdev.errors import DriverViolation
from vdev.events import HintRefused, HintStateChanged
from vdev.memory import GuestMemory

pytestmark = pytest.mark.usefixtures("each_ring")

MIB = 1 << 20
BLOCK = 1024
HINTS_ALONE = feature_mask(Feature.VERSION_1, Feature.EVENT_IDX, BalloonFeature.FREE_PAGE_HINT)


def without(*bits):
    return BALLOON_DRIVER_FEATURES & ~feature_mask(*bits)


def restart_driver(pair, **options):
    """Return another driver object over the same RAM, as after a migration."""
    allocator = BuddyAllocator.attach(BootPage.attach(MarkedRam(pair.memory)), pair.guest.allocator.database)
    return BalloonDriver.resume(
        MmioDriver(pair.wire, BASE),
        pair.memory,
        allocator,
        pair.guest.area_address,
        statistics=lambda: pair.statistics,
        **options,
    )


# Hints


@pytest.mark.parametrize("numbering", list(QueueNumbering))
@pytest.mark.parametrize("defer_kicks", [False, True])
@pytest.mark.parametrize("queue_size", [2, 4, 16, 128])
def test_every_large_free_block_is_hinted_once_and_held_until_done(numbering, defer_kicks, queue_size):
    features = without(BalloonFeature.PAGE_REPORTING)
    pair = BalloonPair(numbering=numbering, defer_kicks=defer_kicks, queue_size=queue_size, features=features)
    blocks = pair.guest.allocator.free_block_counts()[10]
    pages = pair.hints()
    pair.device.hinting.request()
    pair.settle()
    assert len(pages) == len(set(pages)) == blocks * BLOCK
    assert pair.guest.held(Owner.HINTED) == blocks * BLOCK
    assert pair.guest.allocator.free_block_counts()[10] == 0
    assert pair.device.hinting.state is HintState.STOP
    assert pair.device.hinting.refused_count == 0
    pair.device.hinting.done()
    pair.settle()
    assert pair.guest.held(Owner.HINTED) == 0
    assert pair.guest.allocator.free_block_counts()[10] == blocks
    assert pair.device.violation is None


def test_stop_alone_releases_nothing():
    pair = BalloonPair()
    pair.hints()
    pair.device.hinting.request()
    pair.settle()
    held = pair.guest.held(Owner.HINTED)
    pair.device.hinting.stop()
    pair.settle()
    assert pair.guest.held(Owner.HINTED) == held > 0


def test_a_cancelled_migration_gives_the_memory_back_also_before_the_id_was_seen():
    pair = BalloonPair()
    pair.hints()
    pair.device.hinting.request()
    pair.settle()
    pair.device.hinting.stop()
    pair.device.hinting.request()
    pair.device.hinting.done()
    pair.settle()
    assert pair.guest.held(Owner.HINTED) == 0


def test_a_new_id_during_hinting_ends_the_old_hints_with_stop_and_starts_again():
    pair = BalloonPair(defer_kicks=True, queue_size=8, listen=True, features=HINTS_ALONE)
    pages = pair.hints()
    pair.device.hinting.request()
    pair.driver.handle_interrupt()
    for _ in range(4):
        pair.driver.work()
    pair.wire.deliver_kicks()
    first_pages = list(pages)
    assert first_pages
    pair.device.hinting.stop()
    new_id = pair.device.hinting.request()
    pair.settle()
    posted_again = pages[len(first_pages) :]
    assert not set(posted_again) & set(first_pages)
    assert pair.guest.held(Owner.HINTED) == len(pages) + len(of_type(pair.seen, HintRefused)) * BLOCK
    moves = [(event.after, event.command_id) for event in of_type(pair.seen, HintStateChanged)]
    assert moves[-3:] == [("REQUESTED", new_id), ("START", new_id), ("STOP", new_id)]


def test_start_and_stop_do_not_share_one_buffer():
    pair = BalloonPair(defer_kicks=True, features=without(BalloonFeature.PAGE_REPORTING))
    pair.hints()
    command_id = pair.device.hinting.request()
    pair.driver.handle_interrupt()
    while pair.driver.work():
        pass
    # Nothing was handled yet: the device must still find the id that was true when it was queued.
    assert pair.device.hinting.state is HintState.REQUESTED
    queue = pair.device.queues[BalloonQueue.FREE_PAGE]
    chains = list(queue.pop_batch())
    ids = [int.from_bytes(chain.read(pair.memory), "little") for chain in chains if chain.readable]
    assert ids == [command_id, CommandId.STOP]
    assert chains[0].readable
    assert chains[-1].readable


def test_each_round_has_a_fresh_id_buffer_while_the_device_holds_the_old_ones():
    pair = BalloonPair(defer_kicks=True, queue_size=16, features=HINTS_ALONE)
    pair.guest.allocator.take_free_blocks(10, 1000, Owner.WORKLOAD)
    for _ in range(3):
        pair.device.hinting.stop()
        pair.device.hinting.request()
        pair.driver.handle_interrupt()
        while pair.driver.work():
            pass
    batch = pair.device.queues[BalloonQueue.FREE_PAGE].pop_batch()
    assert len(batch) == 6
    assert len(set(batch.addresses.tolist())) == 6


def test_a_device_that_gives_nothing_back_does_not_make_the_driver_spin():
    pair = BalloonPair(defer_kicks=True, queue_size=4, features=HINTS_ALONE)
    pair.device.hinting.request()
    pair.driver.handle_interrupt()
    turns = 0
    while pair.driver.work():
        turns += 1
        assert turns < 20
    # One slot is kept for STOP.
    assert pair.driver.queues[BalloonQueue.FREE_PAGE].free_count == 1
    assert not pair.driver.work()
    # And the interrupt that comes when the device wakes up sets it going again.
    pair.wire.interrupt_count = 0
    pair.wire.deliver_kicks()
    assert pair.wire.interrupt_count >= 1
    assert pair.driver.work()
    pair.settle()
    assert pair.device.hinting.state is HintState.STOP


def test_with_room_in_the_ring_hints_interrupt_nobody():
    pair = BalloonPair(features=without(BalloonFeature.PAGE_REPORTING))
    pair.hints()
    pair.device.hinting.request()
    assert pair.wire.interrupt_count == 1
    pair.driver.handle_interrupt()
    while pair.driver.work():
        pass
    assert pair.guest.held(Owner.HINTED) > 0
    assert pair.wire.interrupt_count == 1


def test_memory_pressure_takes_hinted_pages_back_as_initialized_memory():
    pair = BalloonPair(features=without(BalloonFeature.DEFLATE_ON_OOM))
    pair.hints()
    pair.device.hinting.request()
    pair.settle()
    hinted = pair.guest.allocator.blocks_of(Owner.HINTED).pages
    pair.memory.bytes_view(pair.memory.address_of(int(hinted[-1])), 4 * MIB)[:] = 0xA5
    pair.guest.allocator.allocate_pages(1 << 20, Owner.WORKLOAD)
    pair.memory.page_marks.marks[:] = 0
    page = pair.guest.allocator.allocate(0, Owner.WORKLOAD)
    assert page is not None
    assert pair.memory.read(pair.memory.address_of(page), 4096) == bytes(4096)
    # The dirty log must see it: that overrides the hint.
    assert pair.memory.page_marks.marks[page : page + 1].all()
    assert pair.guest.held(Owner.HINTED) == (len(hinted) - 1) * BLOCK
    pair.device.hinting.done()
    pair.settle()
    assert pair.guest.held(Owner.HINTED) == 0
    pair.guest.allocator.check()


def test_a_second_migration_hints_again_under_a_new_id():
    pair = BalloonPair()
    first = pair.hints()
    for _ in range(2):
        pair.device.hinting.request()
        pair.settle()
        pair.device.hinting.done()
        pair.settle()
    assert len(first) == 2 * len(set(first)) > 0


# Starting


def test_a_free_page_queue_of_one_descriptor_fails_the_start():
    guest = Guest(queue_size=1)
    device = BalloonDevice(guest.memory, features=feature_mask(BalloonFeature.FREE_PAGE_HINT))
    wire = Wire(device)
    with pytest.raises(DeviceRefused, match="FREE_PAGE"):
        BalloonDriver.start(
            MmioDriver(wire, BASE),
            guest.memory,
            guest.allocator,
            guest.area_address,
            statistics=dict,
            queue_size=1,
        )
    assert device.status & DeviceStatus.FAILED


def test_a_reporting_queue_of_fewer_than_32_descriptors_fails_the_start():
    with pytest.raises(DeviceRefused, match="REPORTING"):
        BalloonPair(queue_size=16)


def test_page_poison_is_refused_by_a_guest_that_does_not_poison():
    assert not BalloonPair().device.has_feature(BalloonFeature.PAGE_POISON)
    assert BalloonPair(poison_value=0).device.has_feature(BalloonFeature.PAGE_POISON)


def test_a_guest_that_poisons_lends_no_pages_to_a_device_that_cannot_know_it():
    pair = BalloonPair(poison_value=0xAAAA_AAAA, features=without(BalloonFeature.PAGE_POISON))
    assert not pair.device.has_feature(BalloonFeature.PAGE_REPORTING)
    assert not pair.device.has_feature(BalloonFeature.FREE_PAGE_HINT)
    assert pair.device.has_feature(BalloonFeature.STATS_VQ)


@pytest.mark.parametrize("bit", list(BalloonFeature))
def test_the_driver_works_without_any_one_feature(bit):
    pair = BalloonPair(features=without(bit), poison_value=0)
    pair.hints()
    pair.device.set_target(300)
    pair.device.hinting.request()
    pair.device.request_statistics()
    pair.driver.report_free_pages()
    pair.settle()
    assert pair.device.actual == 300
    assert pair.device.violation is None
    assert pair.driver.gave_up is None


def test_a_target_from_before_the_driver_was_up_is_followed():
    guest = Guest()
    device = BalloonDevice(guest.memory)
    device.set_target(50)
    wire = Wire(device)
    driver = BalloonDriver.start(
        MmioDriver(wire, BASE), guest.memory, guest.allocator, guest.area_address, statistics=dict
    )
    while driver.work():
        pass
    assert device.actual == 50


# Giving up


def test_a_broken_device_is_given_up_and_the_guest_has_all_its_pages():
    pair = BalloonPair(listen=True)
    free_before = pair.guest.allocator.free_page_count
    pair.hints()
    pair.device.set_target(300)
    pair.device.hinting.request()
    pair.settle()
    pair.device.needs_reset(DriverViolation("Some Section", "no reason"))
    pair.settle()
    assert "DEVICE_NEEDS_RESET" in pair.driver.gave_up
    assert pair.guest.allocator.free_page_count == free_before
    assert pair.device.status == DeviceStatus.FAILED
    assert pair.device.violation.message == "no reason"
    assert not pair.driver.work()
    assert pair.driver.shrink(100) == 0
    pair.guest.allocator.check()


def test_a_device_that_breaks_the_ring_is_given_up():
    pair = BalloonPair()
    pair.device.set_target(300)
    pair.settle()
    break_used_ring(pair.memory, pair.driver.queues[BalloonQueue.STATISTICS])
    pair.driver.work()
    assert "device's fault" in pair.driver.gave_up
    assert pair.guest.held(Owner.BALLOON) == 0


def test_a_device_that_breaks_the_ring_under_memory_pressure_is_given_up_and_gives_memory():
    pair = BalloonPair()
    pair.device.set_target(1000)
    pair.settle()
    queue = pair.driver.queues[BalloonQueue.DEFLATE]
    pair.guest.allocator.allocate_pages(1 << 20, Owner.WORKLOAD)
    pair.device.queues.pop(BalloonQueue.DEFLATE)  # it will not answer
    break_used_ring(pair.memory, queue)
    assert pair.guest.allocator.allocate(0, Owner.WORKLOAD) is None or pair.driver.gave_up
    break_used_ring(pair.memory, queue)
    assert pair.guest.allocator.allocate(0, Owner.WORKLOAD) is not None
    assert pair.driver.gave_up is not None


# Living on


def test_a_driver_object_remembers_nothing():
    pair = BalloonPair(defer_kicks=True, queue_size=32)
    pages = pair.hints()
    pair.device.hinting.request()
    for turn in range(400):
        if turn == 200:
            assert len(pages) == len(set(pages)) == pair.guest.held(Owner.HINTED) > 0
            pair.device.hinting.done()
            pair.device.set_target(700)
        pair.driver = restart_driver(pair)
        if pair.wire.interrupt_count:
            pair.wire.interrupt_count = 0
            pair.driver.handle_interrupt()
        if not pair.driver.work():
            pair.wire.deliver_kicks()
    assert pair.device.actual == pair.guest.held(Owner.BALLOON) == 700
    assert pair.guest.held(Owner.HINTED) == 0
    assert pair.driver.gave_up is None


def test_resuming_where_no_driver_was_is_named():
    pair = BalloonPair()
    with pytest.raises(NoQueueHere, match="no balloon driver's area"):
        BalloonDriver.resume(MmioDriver(pair.wire, BASE), pair.memory, pair.guest.allocator, 32 * MIB, statistics=dict)


def test_every_store_of_the_driver_is_marked():
    """Copying only marked pages gives the same driver: the guest moves by its RAM."""
    pair = BalloonPair(defer_kicks=True, queue_size=32)
    pair.hints()
    copy = GuestMemory.private(pair.memory.size)
    copy.bytes_view(0, copy.size)[:] = pair.memory.bytes_view(0, copy.size)
    marks = pair.memory.page_marks.marks
    marks[:] = 0
    # The device's own stores go without marks here: they are the host's to log.
    pair.device.set_target(500)
    pair.device.hinting.request()
    pair.statistics[4] = 99
    pair.device.request_statistics()
    pair.driver.report_free_pages()
    for _ in range(50):
        if pair.wire.interrupt_count:
            pair.wire.interrupt_count = 0
            pair.driver.handle_interrupt()
        pair.driver.work()
        pair.wire.deliver_kicks()
    size = BalloonDriver.area_size(32)
    changed = [
        page
        for page in range(pair.memory.page_count)
        if pair.memory.read(page * 4096, 4096) != copy.read(page * 4096, 4096)
    ]
    assert len(changed) > 5
    assert [page for page in changed if not marks[page]] == []
    assert size % 4096 == 0
