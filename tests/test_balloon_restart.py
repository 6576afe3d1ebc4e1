"""The balloon's driver restarts its queues (RING_RESET) with buffers out."""

import pytest
from device_setup import BASE, BalloonPair, BareBalloon, Guest, LyingWire, frames, of_type

from guest_agent.drivers.balloon import BALLOON_DRIVER_FEATURES, BalloonDriver
from guest_agent.mmio import MmioDriver
from guest_agent.page_database import Owner
from guest_agent.transport import DeviceRefused
from spec.balloon import BalloonQueue, StatisticTag
from spec.device import DeviceStatus, Feature, feature_mask
from spec.mmio import Register
from vdev.devices.balloon import BalloonDevice
from vdev.devices.balloon.hint_states import HintState
from vdev.events import ViolationFound

# The balloon's driver restarts its queues with buffers out


_FORMATS = feature_mask(Feature.RING_PACKED, Feature.IN_ORDER)


@pytest.fixture(params=[(), (Feature.RING_PACKED,), (Feature.IN_ORDER,), (Feature.RING_PACKED, Feature.IN_ORDER)])
def balloon(request):
    """Make a balloon and its driver over rings of each format."""

    def make(features=BALLOON_DRIVER_FEATURES, **options):
        return BalloonPair(listen=True, features=features & ~_FORMATS | feature_mask(*request.param), **options)

    return make


def complaints(pair):
    return of_type(pair.seen, ViolationFound)


ROLES = tuple(BalloonQueue)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("size", [None, 32, 128])
def test_each_balloon_queue_can_be_restarted_and_all_work_goes_on(balloon, role, size):
    pair = balloon()
    pair.device.set_target(700)
    pair.settle()
    pair.driver.restart_queue(role, size)
    pair.settle()
    assert pair.driver.queues[role].size == (128 if size is None else size)
    for target in (900, 100):
        pair.device.set_target(target)
        pair.settle()
        assert pair.device.actual == pair.device.inflation.inflated_count == pair.guest.held(Owner.BALLOON) == target
    pair.statistics[int(StatisticTag.FREE_MEMORY)] = 77
    assert pair.device.request_statistics()
    pair.settle()
    assert pair.device.statistics[StatisticTag.FREE_MEMORY] == 77
    hinted = pair.hints()
    pair.device.hinting.request()
    pair.settle()
    assert len(hinted) > 0
    pair.device.hinting.done()
    pair.settle()
    assert pair.guest.held(Owner.HINTED) == 0
    assert pair.driver.gave_up is None
    assert complaints(pair) == []


@pytest.mark.parametrize("seen_by_device", [False, True])
def test_a_request_to_inflate_that_was_out_is_made_again(balloon, seen_by_device):
    pair = balloon(defer_kicks=True)
    pair.device.set_target(200)
    pair.driver.handle_interrupt()
    while pair.driver.work():
        pass
    assert pair.guest.held(Owner.BALLOON) == 200
    if seen_by_device:
        pair.wire.deliver_kicks()
    else:
        pair.wire.kicks.clear()
    pair.driver.restart_queue(BalloonQueue.INFLATE, 64)
    pair.settle()
    assert pair.device.actual == pair.device.inflation.inflated_count == pair.guest.held(Owner.BALLOON) == 200
    assert complaints(pair) == []


@pytest.mark.parametrize("seen_by_device", [False, True])
def test_a_request_to_deflate_that_was_out_is_made_again(balloon, seen_by_device):
    pair = balloon(defer_kicks=True)
    pair.device.set_target(200)
    pair.settle()
    pair.device.set_target(0)
    pair.driver.handle_interrupt()
    while pair.driver.work():
        pass
    if seen_by_device:
        pair.wire.deliver_kicks()
    else:
        pair.wire.kicks.clear()
    pair.driver.restart_queue(BalloonQueue.DEFLATE)
    pair.settle()
    assert pair.device.actual == pair.device.inflation.inflated_count == pair.guest.held(Owner.BALLOON) == 0
    assert complaints(pair) == []


def test_pages_that_were_taken_out_for_want_of_memory_are_still_told_to_the_host(balloon):
    features = BALLOON_DRIVER_FEATURES & ~feature_mask(0)  # without MUST_TELL_HOST they are free at once
    pair = balloon(defer_kicks=True, features=features)
    pair.device.set_target(200)
    pair.settle()
    assert pair.driver.shrink(50) >= 50
    pair.wire.kicks.clear()
    assert pair.device.inflation.inflated_count == 200
    pair.driver.restart_queue(BalloonQueue.DEFLATE)
    pair.settle()
    assert pair.device.inflation.inflated_count == pair.guest.held(Owner.BALLOON) == pair.device.actual < 200
    assert complaints(pair) == []


def test_a_queue_is_restarted_over_and_over_with_a_request_out_each_time(balloon):
    pair = balloon(defer_kicks=True)
    for round_number in range(20):
        pair.device.set_target(10 * (round_number % 3) + 5)
        pair.driver.handle_interrupt()
        pair.driver.work()
        pair.driver.work()
        for role in (BalloonQueue.INFLATE, BalloonQueue.DEFLATE):
            pair.driver.restart_queue(role, 2 << round_number % 6)
    pair.settle()
    assert pair.device.actual == pair.device.inflation.inflated_count == pair.guest.held(Owner.BALLOON) == 15
    assert complaints(pair) == []


def test_the_statistics_buffer_is_posted_again_and_the_device_asks_for_it_once_more(balloon):
    pair = balloon()
    answer_count = pair.device.memory_statistics.answer_count
    pair.driver.restart_queue(BalloonQueue.STATISTICS)
    pair.settle()
    assert pair.device.memory_statistics.answer_count == answer_count + 1
    for value in (5, 6):
        pair.statistics[int(StatisticTag.FREE_MEMORY)] = value
        assert pair.device.request_statistics()
        pair.settle()
        assert pair.device.statistics[StatisticTag.FREE_MEMORY] == value
    assert complaints(pair) == []


def test_without_its_queue_the_device_asks_for_no_statistics(balloon):
    pair = balloon()
    number = pair.driver.queues[BalloonQueue.STATISTICS].number
    MmioDriver(pair.wire, BASE).reset_queue(number)
    assert not pair.device.request_statistics()
    assert pair.device.violation is None


def test_an_id_that_the_device_had_not_seen_is_announced_again(balloon):
    pair = balloon(defer_kicks=True)
    hinted = pair.hints()
    pair.device.hinting.request()
    pair.driver.handle_interrupt()
    while pair.driver.work():
        pass
    pair.wire.kicks.clear()
    held = pair.guest.held(Owner.HINTED)
    assert held > 0
    assert pair.device.hinting.state is HintState.REQUESTED
    pair.driver.restart_queue(BalloonQueue.FREE_PAGE)
    pair.settle()
    # The id and STOP were seen; the blocks of the first time are held, and were no hints.
    assert pair.device.hinting.state is HintState.STOP
    assert hinted == []
    assert pair.guest.held(Owner.HINTED) == held
    pair.device.hinting.done()
    pair.settle()
    assert pair.guest.held(Owner.HINTED) == 0
    assert pair.driver.gave_up is None
    assert complaints(pair) == []


def test_hints_go_on_where_the_device_had_seen_the_id(balloon):
    pair = balloon(defer_kicks=True)
    hinted = pair.hints()
    pair.device.hinting.request()
    pair.driver.handle_interrupt()
    while not pair.wire.kicks:
        pair.driver.work()
    pair.wire.deliver_kicks()
    assert pair.device.hinting.state is HintState.START
    pair.driver.restart_queue(BalloonQueue.FREE_PAGE)
    pair.settle()
    assert pair.device.hinting.state is HintState.STOP
    assert len(hinted) == pair.guest.held(Owner.HINTED) > 0
    assert complaints(pair) == []


def test_a_stop_that_was_lost_is_posted_again(balloon):
    pair = balloon(defer_kicks=True)
    pair.hints()
    pair.device.hinting.request()
    pair.driver.handle_interrupt()
    while not pair.wire.kicks:
        pair.driver.work()
    pair.wire.deliver_kicks()
    while pair.driver.work():
        pass
    pair.wire.kicks.clear()
    assert pair.device.hinting.state is HintState.START
    pair.driver.restart_queue(BalloonQueue.FREE_PAGE)
    pair.settle()
    assert pair.device.hinting.state is HintState.STOP
    assert complaints(pair) == []


@pytest.mark.parametrize("seen_by_device", [False, True])
def test_blocks_in_a_report_come_back(balloon, seen_by_device):
    pair = balloon(defer_kicks=True)
    before = pair.guest.allocator.free_page_count
    assert pair.driver.report_free_pages()
    pair.driver.work()
    assert pair.guest.held(Owner.REPORTED) > 0
    if seen_by_device:
        pair.wire.deliver_kicks()
    else:
        pair.wire.kicks.clear()
    pair.driver.restart_queue(BalloonQueue.REPORTING)
    pair.settle()
    assert pair.guest.held(Owner.REPORTED) == 0
    assert pair.guest.allocator.free_page_count == before
    assert complaints(pair) == []


def test_blocks_of_a_pass_that_has_ended_come_back_at_once(balloon):
    pair = balloon(defer_kicks=True)
    assert pair.driver.report_free_pages()
    pair.driver.work()
    pair.driver.shrink(1)
    assert pair.guest.held(Owner.REPORTED) > 0
    pair.wire.kicks.clear()
    pair.driver.restart_queue(BalloonQueue.REPORTING)
    assert pair.guest.held(Owner.REPORTED) == 0


def test_a_guest_that_is_moved_finds_the_queue_that_was_restarted(balloon):
    pair = balloon(defer_kicks=True)
    pair.device.set_target(50)
    pair.driver.handle_interrupt()
    while pair.driver.work():
        pass
    pair.wire.kicks.clear()
    pair.driver.restart_queue(BalloonQueue.INFLATE, 16)
    pair.driver = BalloonDriver.resume(
        MmioDriver(pair.wire, BASE),
        pair.memory,
        pair.guest.allocator,
        pair.guest.area_address,
        statistics=lambda: pair.statistics,
    )
    assert pair.driver.queues[BalloonQueue.INFLATE].size == 16
    pair.settle()
    assert pair.device.actual == pair.device.inflation.inflated_count == 50
    assert complaints(pair) == []


def test_what_cannot_be_restarted_is_refused_before_the_device_is_touched(balloon):
    pair = balloon()
    for role, size in ((BalloonQueue.INFLATE, 0), (BalloonQueue.INFLATE, 256), (BalloonQueue.FREE_PAGE, 1)):
        with pytest.raises(ValueError, match=f"{size} descriptors for {role.name}"):
            pair.driver.restart_queue(role, size)
    pair.device.set_target(9)
    pair.settle()
    assert pair.device.actual == 9
    without = balloon(features=BALLOON_DRIVER_FEATURES & ~feature_mask(Feature.RING_RESET))
    with pytest.raises(ValueError, match="RING_RESET was not negotiated"):
        without.driver.restart_queue(BalloonQueue.INFLATE)


def lying(answers):
    guest = Guest()
    wire = LyingWire(BalloonDevice(guest.memory))
    driver = BalloonDriver.start(
        MmioDriver(wire, BASE), guest.memory, guest.allocator, guest.area_address, statistics=dict
    )
    wire.answers = answers
    return driver, wire


def test_a_device_whose_queue_does_not_reset_is_given_up():
    driver, wire = lying({Register.QUEUE_RESET: 1})
    driver.restart_queue(BalloonQueue.INFLATE)
    assert "reset does not complete" in driver.gave_up
    assert wire.device.status == DeviceStatus.FAILED
    driver.restart_queue(BalloonQueue.INFLATE)


def test_a_device_that_takes_no_such_queue_again_is_refused():
    driver, wire = lying({Register.QUEUE_SIZE_MAX: 4})
    with pytest.raises(DeviceRefused, match="at most 4 descriptors, not 128"):
        driver.restart_queue(BalloonQueue.INFLATE)
    assert wire.device.status & DeviceStatus.FAILED


def test_inflate_requests_of_a_bare_driver_are_not_served_once_their_queue_is_reset():
    bare = BareBalloon()
    bare.post(BalloonQueue.INFLATE, frames(40, 41))
    bare.queues[BalloonQueue.INFLATE].publish()
    bare.registers.reset_queue(BalloonQueue.INFLATE)
    bare.device.handle_all_queues()
    assert bare.device.inflation.inflated_count == 0
    assert not bare.is_broken
