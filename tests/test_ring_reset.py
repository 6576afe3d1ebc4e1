"""One queue is reset and taken into use again while the others go on (RING_RESET)."""

import numpy as np
import pytest
import trio
import trio.testing
from device_setup import BASE, BalloonPair, BareBalloon, Guest, LyingWire, frames, of_type
from echo_setup import AREAS, PLAIN, EchoPair, every_format

from guest_agent.drivers.balloon import BALLOON_DRIVER_FEATURES, BalloonDriver
from guest_agent.mmio import MmioDriver
from guest_agent.page_database import Owner
from guest_agent.transport import DeviceRefused
from guest_agent.virtqueue.factory import driver_area_size
from spec.balloon import BalloonQueue, StatisticTag
from spec.device import DeviceStatus, Feature, feature_mask
from spec.mmio import Register
from vdev.devices.balloon import BalloonDevice
from vdev.devices.balloon.hint_states import HintState
from vdev.errors import DeviceViolation
from vdev.events import ViolationFound
from vdev.notify import LoopDoorbell
from vdev.schedule import FreeSchedule
from vdev.serve import Gate, serve_queue

RING = driver_area_size(256)


def registers_of(pair, number):
    pair.driver.write(Register.QUEUE_SEL, number)
    return pair.driver.read(Register.QUEUE_READY), pair.driver.read(Register.QUEUE_RESET)


# The registers, step by step


@every_format
def test_ready_and_reset_read_as_the_text_has_them_at_each_step(features):
    pair = EchoPair(features)
    assert registers_of(pair, 0) == (1, 0)
    pair.driver.write(Register.QUEUE_RESET, 1)
    assert registers_of(pair, 0) == (0, 0)
    assert registers_of(pair, 1) == (1, 0)
    pair.make_queue(0, 8)
    assert registers_of(pair, 0) == (1, 0)
    pair.driver.reset()
    assert registers_of(pair, 0) == registers_of(pair, 1) == (0, 0)


@every_format
@pytest.mark.parametrize("size", [1, 2, 4, 16, 256])
def test_a_queue_comes_back_empty_with_another_size_at_another_place(features, size):
    pair = EchoPair(features, size=4)
    for _ in range(7):
        pair.send()
        assert pair.take() == [1]
    pair.driver.reset_queue(0)
    pair.make_queue(0, size, place=3)
    assert pair.device.queues[0].size == size
    for token in range(3 * size + 1):
        pair.send(token=token)
        assert pair.take() == [token]
    assert pair.complaints == []


@every_format
def test_the_other_queue_goes_on_while_one_is_reset(features):
    pair = EchoPair(features)
    for token in range(5):
        pair.send(1, token=token)
        assert pair.take(1) == [token]
    pair.driver.reset_queue(0)
    for token in range(5, 10):
        pair.send(1, token=token)
        assert pair.take(1) == [token]
    pair.make_queue(0, 4)
    pair.send(0, token=20)
    pair.send(1, token=21)
    assert (pair.take(0), pair.take(1)) == ([20], [21])
    assert pair.complaints == []


@every_format
def test_the_memory_of_a_queue_that_was_reset_is_the_drivers_again(features):
    pair = EchoPair(features)
    pair.device.slow = {0}
    for token in range(3):
        pair.send(token=token)
    pair.driver.reset_queue(0)
    pair.memory.write(AREAS, b"\xa5" * RING)
    pair.device.give_back(0)
    pair.device.handle_all_queues()
    assert pair.memory.read(AREAS, RING) == b"\xa5" * RING
    assert pair.complaints == []


@every_format
def test_buffers_that_were_out_are_forgotten_with_the_queue(features):
    pair = EchoPair(features, size=4)
    pair.device.slow = {0}
    for token in range(4):
        pair.send(token=token)
    assert len(pair.device.kept[0]) == 4
    pair.driver.reset_queue(0)
    pair.make_queue(0, 4)
    pair.device.give_back(0)
    assert pair.take() == []
    # All four descriptors are there again, and none is taken for one that is still out.
    pair.device.slow = set()
    for token in range(4, 12):
        pair.send(token=token)
        assert pair.take() == [token]
    assert pair.complaints == []


@every_format
def test_a_queue_that_was_never_ready_can_be_reset(features):
    pair = EchoPair(features)
    pair.driver.reset()
    pair.driver.acknowledge_device()
    pair.driver.accept_features(features)
    pair.driver.reset_queue(0)
    pair.make_queue(0, 4)
    pair.driver.drive()
    pair.send()
    assert pair.take() == [1]
    assert pair.complaints == []


@every_format
def test_a_queue_between_reset_and_re_enabling_moves_as_it_is(features):
    pair = EchoPair(features)
    pair.send(1)
    pair.driver.reset_queue(0)
    state = pair.wire.registers.save()
    pair.device.reset()
    pair.wire.registers.restore(state)
    assert registers_of(pair, 0) == (0, 0)
    assert pair.take(1) == [1]
    pair.make_queue(0, 4)
    for number in (0, 1):
        pair.send(number, token=5)
        assert pair.take(number) == [5]
    assert pair.complaints == []


# What no driver may do


@every_format
def test_a_reset_forgets_the_set_up_so_that_making_ready_alone_is_no_queue(features):
    pair = EchoPair(features)
    pair.driver.reset_queue(0)
    pair.driver.write(Register.QUEUE_READY, 1)
    assert registers_of(pair, 0) == (0, 0)
    assert pair.driver.needs_reset
    assert "QueueSize 0" in pair.device.violation.message


@every_format
def test_a_kick_of_a_queue_that_was_reset_is_reported_and_not_followed(features):
    pair = EchoPair(features)
    pair.queues[0].add([(0x1000, 16)], [], 1)
    pair.queues[0].publish()
    pair.driver.reset_queue(0)
    pair.driver.notify(0)
    assert pair.complaints == ["a queue that is not ready was kicked"]
    assert pair.device.handled == []
    assert not pair.driver.needs_reset


def test_what_cannot_be_reset_is_reported():
    pair = EchoPair(PLAIN)
    pair.driver.write(Register.QUEUE_SEL, 2)
    pair.driver.write(Register.QUEUE_RESET, 1)
    pair.driver.write(Register.QUEUE_SEL, 0xFFFF_FFFF)
    pair.driver.write(Register.QUEUE_RESET, 1)
    pair.driver.write(Register.QUEUE_SEL, 0)
    pair.driver.write(Register.QUEUE_RESET, 0)
    pair.driver.write(Register.QUEUE_RESET, 3)
    assert pair.complaints == [
        "QueueReset was written for queue 2, which does not exist",
        "QueueReset was written for queue 4294967295, which does not exist",
        "QueueReset was written with 0, not 1",
        "QueueReset was written with 3, not 1",
    ]
    assert registers_of(pair, 0) == (1, 0)
    assert not pair.driver.needs_reset


@every_format
def test_resets_in_every_order_never_break_the_host(features):
    """A driver that resets, makes ready, kicks and writes set-ups as it likes: at worst the device needs a reset."""
    random = np.random.default_rng(6)
    for _ in range(40):
        pair = EchoPair(features)
        for _ in range(60):
            register = [
                Register.QUEUE_SEL,
                Register.QUEUE_RESET,
                Register.QUEUE_READY,
                Register.QUEUE_SIZE,
                Register.QUEUE_NOTIFY,
                Register.QUEUE_DESC_LOW,
                Register.QUEUE_DRIVER_LOW,
                Register.QUEUE_DEVICE_LOW,
            ][random.integers(8)]
            value = [0, 1, 2, 4, 0x1000, AREAS, 0xFFFF_0001][random.integers(7)]
            pair.driver.write(register, value)
            pair.driver.read(Register.QUEUE_READY)
        pair.driver.reset()
        assert pair.device.queues == {}


# A device that does not do it


def test_a_queue_that_stays_ready_after_its_reset_is_named():
    wire = LyingWire(EchoPair(PLAIN).device, {Register.QUEUE_READY: 1})
    with pytest.raises(DeviceViolation, match="a queue is ready after its reset"):
        MmioDriver(wire, BASE).reset_queue(0)


# A ring of the doorbell says nothing of its moment


@pytest.mark.parametrize("made_again", [False, True])
async def test_a_doorbell_that_was_rung_before_the_reset_is_no_fault(made_again):
    pair = EchoPair(PLAIN, defer_kicks=True)
    doorbell, gate = LoopDoorbell(), Gate()
    pair.queues[0].add([(0x1000, 16)], [], 1)
    pair.driver.publish(pair.queues[0])
    doorbell.ring()
    pair.driver.reset_queue(0)
    if made_again:
        pair.make_queue(0, 4)
    gate.open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_queue, pair.device, 0, doorbell, gate, FreeSchedule())
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert pair.device.handled == []
    assert pair.complaints == []


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
