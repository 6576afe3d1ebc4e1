"""Pages into the balloon and out of it again ("Device Operation")."""

import numpy as np
import pytest
from device_setup import BalloonPair, BareBalloon, frames, of_type

from guest_agent.drivers.balloon import BALLOON_DRIVER_FEATURES
from guest_agent.page_database import Owner
from spec.balloon import BalloonFeature, BalloonQueue, QueueNumbering
from spec.device import feature_mask
from vdev.events import PagesDeflated, PagesInflated
from vdev.memory import GuestMemory
from vdev.memory.backing import MemfdBacking, PrivateBacking
from vdev.memory.guest_memory import Region

pytestmark = pytest.mark.usefixtures("each_ring")

MIB = 1 << 20
INFLATE, DEFLATE = BalloonQueue.INFLATE, BalloonQueue.DEFLATE


def without(*bits):
    return BALLOON_DRIVER_FEATURES & ~feature_mask(*bits)


def fill(memory, address, size):
    memory.bytes_view(address, size)[:] = 0xA5


@pytest.mark.parametrize("make_backing", [PrivateBacking, MemfdBacking])
def test_inflated_pages_really_go_back_to_the_operating_system(make_backing):
    bare = BareBalloon(memory=GuestMemory([Region(0, make_backing(16 * MIB))]))
    fill(bare.memory, 4 * MIB, MIB)
    before = bare.memory.resident_size()
    bare.send(INFLATE, frames(*range(1024, 1024 + 256)))
    # The request's own buffer may have taken a page of RAM.
    assert before - bare.memory.resident_size() in (MIB, MIB - 4096)
    assert bare.device.inflation.returned_size == MIB
    assert bare.memory.read(4 * MIB, 4096) == bytes(4096)
    assert of_type(bare.seen, PagesInflated) == [PagesInflated(256, MIB)]


def test_a_page_leaves_the_balloon_when_it_is_deflated_and_can_enter_again():
    bare = BareBalloon()
    bare.send(INFLATE, frames(1024, 1030))
    bare.send(DEFLATE, frames(1030))
    assert bare.device.inflation.inflated_count == 1
    bare.send(INFLATE, frames(1030))
    assert np.flatnonzero(bare.device.inflation.inflated).tolist() == [1024, 1030]
    assert of_type(bare.seen, PagesDeflated) == [PagesDeflated(1)]
    assert bare.queues[INFLATE].collect_batch().written_sizes.tolist() == [0, 0]


def test_page_frame_numbers_may_come_in_pieces_that_split_a_number():
    bare = BareBalloon()
    data = frames(1024, 2048)
    bare.send(INFLATE, data[:3], data[3:5], data[5:])
    assert np.flatnonzero(bare.device.inflation.inflated).tolist() == [1024, 2048]


def test_a_page_frame_number_with_its_top_bit_set_is_not_sign_extended():
    start = 0x8000_0000 * 4096
    bare = BareBalloon(memory=GuestMemory([Region(start, PrivateBacking(16 * MIB))]))
    bare.send(INFLATE, frames(0x8000_0000 + 1024))
    assert not bare.is_broken
    assert np.flatnonzero(bare.device.inflation.inflated).tolist() == [1024]


def test_pages_of_two_regions_are_told_apart():
    memory = GuestMemory([Region(0, PrivateBacking(8 * MIB)), Region(1 << 32, PrivateBacking(8 * MIB))])
    bare = BareBalloon(memory=memory)
    bare.send(INFLATE, frames(1024, (1 << 20) + 1))
    assert np.flatnonzero(bare.device.inflation.inflated).tolist() == [1024, 2049]
    bare.send(INFLATE, frames(2049))
    assert bare.is_broken
    assert "outside RAM" in bare.device.violation.message


@pytest.mark.parametrize(
    ("role", "data", "message"),
    [
        (INFLATE, frames(1024, 1024), "page 1024 is named twice"),
        (INFLATE, frames(1024, 1500), "page 1500 is in the balloon already"),
        (INFLATE, frames(4096), "the page is outside RAM"),
        (INFLATE, frames(0xFFFF_FFFF), "the page is outside RAM"),
        (INFLATE, bytes(6), "6 bytes are no array of 4-byte page frame numbers"),
        (DEFLATE, frames(1500, 1024), "page 1024 is not in the balloon"),
        (DEFLATE, frames(1500, 1500), "page 1500 is named twice"),
        (DEFLATE, frames(0x0010_0000), "the page is outside RAM"),
        (DEFLATE, bytes(3), "3 bytes are no array of 4-byte page frame numbers"),
    ],
)
def test_a_bad_request_is_named_and_changes_nothing(role, data, message):
    bare = BareBalloon()
    bare.send(INFLATE, frames(1500))
    bare.queues[role].collect_batch()
    head = bare.send(role, data)
    violation = bare.device.violation
    assert bare.is_broken
    assert violation.message == message
    assert (violation.queue, violation.descriptor) == (role, head)
    assert violation.statement == "Memory Balloon Device / Device Operation"
    assert np.flatnonzero(bare.device.inflation.inflated).tolist() == [1500]
    assert len(bare.queues[role].collect_batch().heads) == 0


@pytest.mark.parametrize("role", [INFLATE, DEFLATE])
def test_a_writable_request_is_named(role):
    bare = BareBalloon()
    bare.send(role, writable=[(8 * MIB, 4)])
    assert bare.device.violation.message == "page frame numbers in a device-writable buffer"


def test_more_numbers_than_there_are_pages_are_refused_without_reading_them():
    bare = BareBalloon()
    bare.queues[INFLATE].add([(0, 16 * MIB)] * 8, [], 0)
    bare.registers.publish(bare.queues[INFLATE])
    assert bare.device.violation.message == f"{32 * MIB} page frame numbers, of 4096 pages in all"


def test_a_reset_empties_the_balloon():
    bare = BareBalloon()
    bare.send(INFLATE, frames(1024))
    bare.registers.reset()
    assert bare.device.inflation.inflated_count == 0
    assert not bare.device.inflation.inflated.any()


# With the driver


@pytest.mark.parametrize("numbering", list(QueueNumbering))
@pytest.mark.parametrize("defer_kicks", [False, True])
def test_the_balloon_follows_its_target_up_and_down(numbering, defer_kicks):
    features = without(BalloonFeature.STATS_VQ)
    pair = BalloonPair(numbering=numbering, defer_kicks=defer_kicks, features=features)
    free_before = pair.guest.allocator.free_page_count
    for target in (1000, 300, 301, 0):
        pair.device.set_target(target)
        pair.settle()
        assert pair.device.actual == pair.device.inflation.inflated_count == pair.guest.held(Owner.BALLOON) == target
        assert pair.guest.allocator.free_page_count == free_before - target
    pair.guest.allocator.check()


def test_the_device_has_the_very_pages_that_the_page_database_says():
    pair = BalloonPair()
    pair.device.set_target(500)
    pair.settle()
    held = pair.guest.allocator.blocks_of(Owner.BALLOON).pages
    assert np.flatnonzero(pair.device.inflation.inflated).tolist() == held.tolist()


def test_actual_changes_only_after_the_device_acknowledged():
    pair = BalloonPair(defer_kicks=True)
    pair.device.set_target(100)
    pair.driver.handle_interrupt()
    while pair.driver.work():
        pass
    assert pair.guest.held(Owner.BALLOON) == 100
    assert (pair.device.actual, pair.driver.actual) == (0, 0)
    pair.wire.deliver_kicks()
    pair.driver.work()
    assert (pair.device.actual, pair.driver.actual) == (100, 100)


def test_the_driver_keeps_some_memory_for_the_guest_and_goes_on_when_there_is_more():
    pair = BalloonPair()
    workload = pair.guest.allocator.allocate_pages(3000, Owner.WORKLOAD)
    pair.device.set_target(1 << 20)
    pair.settle()
    short = pair.device.actual
    assert pair.guest.allocator.free_page_count == 256
    pair.guest.allocator.free_pages(workload)
    pair.settle()
    assert pair.device.actual == short + 3000


@pytest.mark.parametrize("must_tell", [False, True])
def test_memory_pressure_takes_pages_out_of_the_balloon(must_tell):
    features = without(*([] if must_tell else [BalloonFeature.MUST_TELL_HOST]))
    pair = BalloonPair(features=features)
    pair.device.set_target(1 << 20)
    pair.settle()
    full = pair.device.actual
    pair.guest.allocator.allocate_pages(pair.guest.allocator.free_page_count, Owner.WORKLOAD)
    assert pair.guest.allocator.allocate(0, Owner.WORKLOAD) is not None
    pair.settle()
    # What memory pressure took is not taken back before the host says something new.
    assert pair.device.actual == full - 1 == pair.guest.held(Owner.BALLOON)
    assert pair.device.violation is None
    pair.guest.allocator.check()


def test_without_deflate_on_oom_the_balloon_stays_as_it_is():
    pair = BalloonPair(features=without(BalloonFeature.DEFLATE_ON_OOM))
    pair.device.set_target(1000)
    pair.settle()
    pair.guest.allocator.allocate_pages(pair.guest.allocator.free_page_count, Owner.WORKLOAD)
    assert pair.guest.allocator.allocate(0, Owner.WORKLOAD) is None
    assert pair.device.actual == 1000


def test_a_host_that_must_be_told_first_frees_the_page_when_it_answers():
    pair = BalloonPair(defer_kicks=True)
    pair.device.set_target(1000)
    pair.settle()
    pair.guest.allocator.allocate_pages(pair.guest.allocator.free_page_count, Owner.WORKLOAD)
    assert pair.guest.allocator.allocate(0, Owner.WORKLOAD) is None
    assert pair.guest.held(Owner.BALLOON) == 1000
    pair.settle()
    assert pair.guest.allocator.allocate(0, Owner.WORKLOAD) is not None
    assert pair.device.actual == 999


def test_a_host_that_need_not_be_told_first_is_told_afterwards():
    pair = BalloonPair(defer_kicks=True, features=without(BalloonFeature.MUST_TELL_HOST))
    pair.device.set_target(1000)
    pair.settle()
    pair.guest.allocator.allocate_pages(pair.guest.allocator.free_page_count, Owner.WORKLOAD)
    assert pair.guest.allocator.allocate(0, Owner.WORKLOAD) is not None
    assert (pair.guest.held(Owner.BALLOON), pair.device.inflation.inflated_count) == (999, 1000)
    pair.settle()
    assert (pair.device.actual, pair.device.inflation.inflated_count) == (999, 999)


def test_deflated_pages_hold_the_poison_again():
    pair = BalloonPair(poison_value=0xAAAA_AAAA)
    pair.device.set_target(600)
    pair.settle()
    assert pair.device.config["poison_val"] == 0xAAAA_AAAA
    pair.device.set_target(0)
    pair.settle()
    pair.guest.allocator.check()
