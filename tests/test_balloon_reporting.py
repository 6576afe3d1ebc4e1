"""Free page reporting: free pages go back to the operating system all the time ("Free Page Reporting")."""

import numpy as np
import pytest
from device_setup import BalloonPair, BareBalloon, of_type

from guest_agent.page_database import Owner
from spec.balloon import BalloonQueue, QueueNumbering
from vdev.events import PagesReported
from vdev.memory import GuestMemory
from vdev.memory.backing import MemfdBacking
from vdev.memory.guest_memory import Region

pytestmark = pytest.mark.usefixtures("each_ring")

MIB = 1 << 20
PAGE = 4096
REPORTING = BalloonQueue.REPORTING


def filled(**options):
    bare = BareBalloon(**options)
    bare.memory.bytes_view(4 * MIB, 4 * MIB)[:] = 0xA5
    return bare


def test_reported_pages_are_gone_before_the_report_is_acknowledged():
    bare = filled()
    bare.send(REPORTING, writable=[(4 * MIB, 2 * MIB), (7 * MIB, PAGE)])
    assert bare.device.reporting.reported_count == 513
    assert bare.device.reporting.returned_size == 2 * MIB + PAGE
    assert bare.memory.read(4 * MIB, PAGE) == bytes(PAGE)
    assert bare.memory.read(6 * MIB, 1) == b"\xa5"
    assert bare.queues[REPORTING].collect_batch().written_sizes.tolist() == [0]
    assert of_type(bare.seen, PagesReported) == [PagesReported(513, 2 * MIB + PAGE)]


def test_only_whole_pages_of_a_report_are_discarded():
    bare = filled()
    bare.send(REPORTING, writable=[(4 * MIB + 100, 2 * PAGE), (6 * MIB + 1, 100)])
    assert bare.memory.read(4 * MIB, PAGE) == b"\xa5" * PAGE
    assert bare.memory.read(4 * MIB + PAGE, PAGE) == bytes(PAGE)
    assert bare.memory.read(4 * MIB + 2 * PAGE, 1) == b"\xa5"
    assert bare.memory.read(6 * MIB, PAGE) == b"\xa5" * PAGE


def test_a_guest_that_poisons_its_free_pages_keeps_them_as_they_are():
    bare = filled(poison_value=0xA5A5_A5A5)
    bare.send(REPORTING, writable=[(4 * MIB, MIB)])
    assert bare.memory.read(4 * MIB, PAGE) == b"\xa5" * PAGE
    assert bare.device.reporting.returned_size == 0
    assert len(bare.queues[REPORTING].collect_batch().heads) == 1


def test_a_guest_that_zeroes_its_free_pages_can_lend_them():
    bare = filled(poison_value=0)
    bare.send(REPORTING, writable=[(4 * MIB, MIB)])
    assert bare.device.reporting.returned_size == MIB


def test_a_report_that_the_device_may_not_write_is_named():
    bare = filled()
    bare.queues[REPORTING].add([(4 * MIB, PAGE)], [], 0)
    bare.publish(REPORTING)
    assert bare.is_broken
    assert bare.device.violation.message == "a report in a buffer that the device may not write"
    assert bare.memory.read(4 * MIB, 1) == b"\xa5"


def test_a_report_past_the_end_of_ram_is_named_and_nothing_is_discarded():
    bare = filled()
    bare.send(REPORTING, writable=[(4 * MIB, PAGE), (16 * MIB - PAGE, 2 * PAGE)])
    assert bare.is_broken
    assert bare.memory.read(4 * MIB, 1) == b"\xa5"


# With the driver


@pytest.mark.parametrize("numbering", list(QueueNumbering))
@pytest.mark.parametrize("defer_kicks", [False, True])
def test_a_pass_reports_every_large_free_block_once_and_gives_all_back(numbering, defer_kicks):
    memory = GuestMemory([Region(0, MemfdBacking(64 * MIB))])
    memory.bytes_view(0, 64 * MIB)[:] = 0
    pair = BalloonPair(numbering=numbering, defer_kicks=defer_kicks, memory=memory, listen=True)
    free_before = pair.guest.allocator.free_page_count
    resident_before = memory.resident_size()
    assert pair.driver.report_free_pages()
    pair.settle()
    reported = pair.device.reporting.reported_count
    assert free_before - 1024 < reported <= free_before
    assert resident_before - memory.resident_size() == reported * PAGE
    assert pair.guest.allocator.free_page_count == free_before
    assert pair.guest.held(Owner.REPORTED) == 0
    pair.guest.allocator.check()


def test_the_same_free_pages_are_not_reported_for_ever():
    pair = BalloonPair()
    pair.driver.report_free_pages()
    pair.settle()
    assert not pair.driver.report_free_pages()
    block = pair.guest.allocator.allocate(10, Owner.WORKLOAD)
    assert not pair.driver.report_free_pages()
    pair.guest.allocator.free(block)
    assert pair.driver.report_free_pages()


def test_a_request_holds_at_most_32_blocks():
    pair = BalloonPair(size=256 * MIB, listen=True)
    pair.driver.report_free_pages()
    pair.settle()
    counts = [event.page_count for event in of_type(pair.seen, PagesReported)]
    assert max(counts) == 32 * 1024
    assert len(counts) == 2


def test_reported_pages_are_not_used_before_the_device_acknowledged_them():
    pair = BalloonPair(defer_kicks=True)
    pair.driver.report_free_pages()
    pair.driver.work()
    with_device = pair.guest.held(Owner.REPORTED)
    assert with_device > 0
    pair.guest.allocator.allocate_pages(1 << 20, Owner.WORKLOAD)
    assert pair.guest.allocator.allocate(0, Owner.WORKLOAD) is None
    assert pair.guest.held(Owner.REPORTED) == with_device
    pair.settle()
    assert pair.guest.held(Owner.REPORTED) == 0
    assert pair.guest.allocator.allocate(0, Owner.WORKLOAD) is not None


def test_memory_pressure_ends_a_pass_and_frees_what_was_acknowledged():
    pair = BalloonPair(size=256 * MIB, defer_kicks=True)
    pair.driver.report_free_pages()
    pair.driver.work()
    pair.wire.deliver_kicks()
    pair.driver.work()  # the first report is acknowledged, the second under way
    held = pair.guest.held(Owner.REPORTED)
    pair.guest.allocator.allocate_pages(1 << 20, Owner.WORKLOAD)
    assert pair.guest.allocator.allocate(0, Owner.WORKLOAD) is not None
    assert 0 < pair.guest.held(Owner.REPORTED) < held
    pair.settle()
    assert pair.guest.held(Owner.REPORTED) == 0
    pair.guest.allocator.check()


@pytest.mark.parametrize("defer_kicks", [False, True])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_request_for_hints_ends_a_report_and_every_large_block_is_hinted(turns, defer_kicks):
    pair = BalloonPair(size=256 * MIB, defer_kicks=defer_kicks)
    blocks = pair.guest.allocator.free_block_counts()[10]
    pages = pair.hints()
    pair.driver.report_free_pages()
    for _ in range(turns):
        pair.driver.work()
        pair.wire.deliver_kicks()
    pair.device.hinting.request()
    pair.settle()
    assert len(pages) == len(set(pages)) == blocks * 1024
    assert pair.guest.held(Owner.REPORTED) == 0


def test_no_report_begins_while_the_device_asks_for_hints_and_one_does_after():
    pair = BalloonPair(defer_kicks=True, queue_size=64)
    pair.hints()
    pair.device.hinting.request()
    pair.driver.handle_interrupt()
    for _ in range(30):
        pair.driver.work()
        assert not pair.driver.report_free_pages()
    pair.settle()
    assert not pair.driver.report_free_pages()
    pair.device.hinting.done()
    pair.settle()
    assert pair.driver.report_free_pages()


@pytest.mark.parametrize("is_acknowledged", [False, True])
def test_a_report_that_made_way_for_hints_is_made_up_for_at_once(is_acknowledged):
    pair = BalloonPair(size=256 * MIB, defer_kicks=True)
    pair.driver.report_free_pages()
    pair.driver.work()
    if is_acknowledged:
        pair.wire.deliver_kicks()
    pair.device.hinting.request()
    pair.driver.handle_interrupt()
    pair.driver.work()
    pair.device.hinting.done()
    pair.settle()
    assert pair.driver.report_free_pages()


def test_poisoned_pages_are_whole_after_a_report():
    pair = BalloonPair(poison_value=0xAAAA_AAAA)
    pair.driver.report_free_pages()
    pair.settle()
    assert pair.device.reporting.reported_count > 0
    pair.guest.allocator.check()
    page = pair.guest.allocator.allocate(0, Owner.WORKLOAD)
    words = pair.memory.bytes_view(pair.memory.address_of(page), PAGE).view("<u4")
    assert np.all(words == 0xAAAA_AAAA)
