"""Every way in which a guest can give hints (HintBehaviour), driver and device joined."""

import itertools
import math

import numpy as np
import pytest
from device_setup import BASE, BalloonPair, of_type

from guest_agent.allocator import BuddyAllocator
from guest_agent.drivers.balloon import BalloonDriver, HintBehaviour, Piece
from guest_agent.marked_ram import MarkedRam
from guest_agent.mmio import MmioDriver
from guest_agent.page_database import Owner
from guest_agent.ram_layout import BootPage
from spec.balloon import BalloonFeature, BalloonQueue, CommandId
from spec.device import Feature, feature_mask
from vdev.devices.balloon import HintState
from vdev.errors import UserError
from vdev.events import HintStateChanged

pytestmark = pytest.mark.usefixtures("each_ring")

BLOCK = 1024
HINTS_ALONE = feature_mask(
    Feature.VERSION_1,
    Feature.EVENT_IDX,
    Feature.INDIRECT_DESC,
    Feature.RING_PACKED,
    Feature.IN_ORDER,
    Feature.RING_RESET,
    BalloonFeature.FREE_PAGE_HINT,
)
HELD = (Owner.HINT_COLLECTED, Owner.HINTED, Owner.HINT_USED)
NAMES = ("answer", "holds", "collects", "start_buffer")
WAYS = [
    dict(zip(NAMES, words, strict=True))
    for words in itertools.product(
        ("list", "bitmap"),
        ("nothing", "until-queued", "until-used"),
        ("after-announcing", "before-announcing"),
        ("fresh", "shared"),
    )
]


def pair_with(*, queue_size=128, defer_kicks=False, listen=False, interval_field=False, checks_id=True, **words):
    pair = BalloonPair(
        features=HINTS_ALONE,
        queue_size=queue_size,
        defer_kicks=defer_kicks,
        listen=listen,
        interval_field=interval_field,
        behaviour=HintBehaviour.of(**words),
    )
    pair.device.hinting.checks_id = checks_id
    return pair


def held(pair):
    return sum(pair.guest.held(owner) for owner in HELD)


def restart_driver(pair):
    """Go on with another driver object over the same RAM."""
    allocator = BuddyAllocator.attach(BootPage.attach(MarkedRam(pair.memory)), pair.guest.allocator.database)
    pair.driver = BalloonDriver.resume(
        MmioDriver(pair.wire, BASE), pair.memory, allocator, pair.guest.area_address, statistics=dict
    )


def steps(pair, until=lambda: False, *, restarts=False):
    """Let the driver alone act, piece by piece, until it has nothing to do; return the names of the pieces."""
    names = []
    while True:
        if pair.wire.interrupt_count:
            pair.wire.interrupt_count = 0
            pair.driver.handle_interrupt()
        if restarts:
            restart_driver(pair)
        piece = pair.driver.next_piece
        if piece is Piece.IDLE or until():
            return names
        pair.driver.work()
        names.append(piece.value)
        assert len(names) < 1000


# Every way


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way.values())))
def test_what_is_free_is_hinted_once_held_as_it_should_be_and_released_by_done(way):
    pair = pair_with(**way)
    free = pair.guest.allocator.free_page_count
    blocks = pair.guest.allocator.free_block_counts()[10]
    pages = pair.hints()
    pair.device.hinting.request()
    pair.settle()
    whole = way["answer"] == "bitmap" and way["holds"] == "nothing"
    assert len(pages) == len(set(pages)) == (free if whole else blocks * BLOCK)
    owner = {"nothing": None, "until-queued": Owner.HINTED, "until-used": Owner.HINT_USED}[way["holds"]]
    assert held(pair) == (pair.guest.held(owner) if owner else 0) == (blocks * BLOCK if owner else 0)
    assert pair.device.hinting.state is HintState.STOP
    assert pair.device.hinting.sink.ends == 1
    pair.device.hinting.done()
    pair.settle()
    assert held(pair) == 0
    assert pair.guest.allocator.free_page_count == free
    assert (pair.driver.gave_up, pair.device.violation) == (None, None)
    pair.guest.allocator.check()


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way.values())))
def test_two_migrations_with_new_driver_objects_all_the_time(way):
    # Where STOP overwrites the id before the device reads it, the answer is one to no request.
    pair = pair_with(defer_kicks=way["start_buffer"] == "fresh", queue_size=8, **way)
    pages = pair.hints()
    for _ in range(2):
        pair.device.hinting.request()
        for _ in range(60):
            restart_driver(pair)
            if pair.wire.interrupt_count:
                pair.wire.interrupt_count = 0
                pair.driver.handle_interrupt()
            if not pair.driver.work():
                pair.wire.deliver_kicks()
        assert pair.device.hinting.state is HintState.STOP
        pair.device.hinting.done()
        pair.settle()
        assert held(pair) == 0
    assert len(pages) == 2 * len(set(pages)) > 0
    assert pair.driver.gave_up is None


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way.values())))
def test_a_stop_and_a_new_id_at_any_moment_end_the_answer_and_begin_another(way):
    way = {**way, "single_steps": True}
    for count in range(0, 12, 3):
        pair = pair_with(order=10, batch=4, listen=True, **way)
        pair.hints()
        pair.device.hinting.request()
        steps(pair, iter([False] * count + [True]).__next__)
        pair.device.hinting.stop()
        new_id = pair.device.hinting.request()
        pair.settle()
        moves = [(event.after, event.command_id) for event in of_type(pair.seen, HintStateChanged)]
        assert moves[-3:] == [("REQUESTED", new_id), ("START", new_id), ("STOP", new_id)]
        pair.device.hinting.done()
        pair.settle()
        assert held(pair) == 0
        assert pair.driver.next_piece is Piece.IDLE
        pair.guest.allocator.check()


# Pieces


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ({}, "look announce reap collect queue reap collect queue reap collect end reap"),
        (
            {"collects": "before-announcing"},
            "look collect announce reap queue reap collect queue reap collect end reap",
        ),
        ({"answer": "bitmap"}, "reap look announce reap collect queue reap end reap"),
        ({"answer": "bitmap", "collects": "before-announcing"}, "reap look collect announce reap queue reap end reap"),
    ],
)
def test_the_pieces_come_in_their_order_and_are_named_before_they_are_done(way, expected, restarts):
    pair = pair_with(single_steps=True, batch=8, **way)
    pair.hints()
    pair.device.hinting.request()
    assert " ".join(steps(pair, restarts=restarts)) == expected


def test_what_is_collected_waits_for_its_turn_to_be_queued():
    pair = pair_with(single_steps=True, order=0, batch=1)
    pages = pair.hints()
    pair.device.hinting.request()
    steps(pair, lambda: pair.driver.next_piece is Piece.QUEUE)
    (page,) = pair.driver.collected_hints.tolist()
    assert pair.guest.held(Owner.HINT_COLLECTED) == 1
    assert pages == []
    pair.driver.work()
    assert pages == [page]
    assert len(pair.driver.collected_hints) == 0


def test_done_drops_what_is_collected_and_not_queued():
    pair = pair_with(single_steps=True)
    pages = pair.hints()
    pair.device.hinting.request()
    steps(pair, lambda: pair.driver.next_piece is Piece.QUEUE)
    pair.device.hinting.done()
    assert steps(pair) == ["look", "end", "reap"]
    assert (pages, held(pair)) == ([], 0)


def test_a_batch_from_before_a_new_id_is_queued_all_the_same():
    """That is what collecting before announcing is about: the new id speaks for pages that were picked before it."""
    pair = pair_with(single_steps=True, collects="before-announcing", order=0, batch=1)
    pages = pair.hints()
    pair.device.hinting.request()
    steps(pair, lambda: pair.driver.next_piece is Piece.ANNOUNCE)
    (page,) = pair.driver.collected_hints.tolist()
    pair.device.hinting.stop()
    pair.device.hinting.request()
    assert steps(pair, lambda: bool(pages))[:2] == ["look", "announce"]
    assert pages == [page]


# The start buffer


@pytest.mark.parametrize("start_buffer", ["fresh", "shared"])
def test_only_a_shared_start_buffer_can_say_something_else_than_when_it_was_queued(start_buffer):
    pair = pair_with(defer_kicks=True, start_buffer=start_buffer)
    command_id = pair.device.hinting.request()
    steps(pair)
    chains = list(pair.device.queues[BalloonQueue.FREE_PAGE].pop_batch())
    ids = [int.from_bytes(chain.read(pair.memory), "little") for chain in chains if chain.readable]
    assert ids == [command_id if start_buffer == "fresh" else CommandId.STOP, CommandId.STOP]


@pytest.mark.parametrize("answer", ["list", "bitmap"])
def test_an_answer_lost_with_its_queue_is_given_again(answer):
    pair = pair_with(defer_kicks=True, answer=answer, holds="nothing")
    pages = pair.hints()
    pair.device.hinting.request()
    pair.wire.deliver_kicks()
    steps(pair)
    pair.wire.kicks.clear()
    pair.driver.restart_queue(BalloonQueue.FREE_PAGE)
    pair.settle()
    assert pair.device.hinting.state is HintState.STOP
    assert len(pages) == len(set(pages)) > 0


# Memory pressure


@pytest.mark.parametrize("answer", ["list", "bitmap"])
class TestPressure:
    def collected(self, answer, holds, **options):
        """A pair that has collected, and not queued."""
        pair = pair_with(answer=answer, holds=holds, single_steps=True, **{"order": 0, "batch": 2, **options})
        pair.hints()
        pair.device.hinting.request()
        steps(pair, lambda: pair.driver.next_piece is Piece.QUEUE)
        return pair

    def test_what_is_not_held_is_the_allocators(self, answer):
        pair = self.collected(answer, "nothing", order=10)
        free = pair.guest.allocator.free_page_count
        steps(pair)
        assert len(pair.driver.reclaimable_hints) == 0
        assert pair.guest.allocator.free_page_count == free
        page = int(pair.guest.allocator.allocate(0, Owner.WORKLOAD))
        pair.device.hinting.done()
        steps(pair)
        assert pair.guest.allocator.blocks_of(Owner.WORKLOAD).pages.tolist() == [page]

    def test_a_page_that_is_not_queued_yet_is_not_given(self, answer):
        for holds in ("until-queued", "until-used"):
            pair = self.collected(answer, holds)
            assert len(pair.driver.reclaimable_hints) == 0
            assert pair.driver.shrink(1) == 0

    def test_once_queued_linux_gives_it(self, answer):
        pair = self.collected(answer, "until-queued", defer_kicks=True)
        pages = pair.driver.collected_hints.tolist()
        pair.driver.work()
        assert pair.driver.reclaimable_hints.tolist() == sorted(pages)
        assert pair.driver.shrink(1) == 1
        assert pair.driver.reclaimable_hints.tolist() == sorted(pages)[:-1]

    def test_until_used_it_is_given_when_the_device_gave_it_back_and_the_driver_saw_that(self, answer):
        pair = self.collected(answer, "until-used", defer_kicks=True)
        pages = sorted(pair.driver.collected_hints.tolist())
        pair.driver.work()
        assert pair.driver.shrink(1) == 0
        pair.wire.deliver_kicks()
        assert pair.driver.shrink(1) == 0
        assert pair.driver.next_piece is Piece.REAP
        pair.driver.work()
        assert pair.driver.reclaimable_hints.tolist() == pages
        view = pair.memory.bytes_view(pair.memory.address_of(pages[0]), 4096)
        view[:] = 0xA5
        pair.memory.page_marks.marks[:] = 0
        assert pair.driver.take_back_hints(np.array(pages[:1])) == 1
        assert not view.any()
        assert np.flatnonzero(pair.memory.page_marks.marks).tolist().count(pages[0]) == 1
        pair.guest.allocator.check()


def test_memory_pressure_looks_for_itself_what_the_device_gave_back():
    pair = pair_with(holds="until-used", defer_kicks=True)
    pair.hints()
    pair.device.hinting.request()
    steps(pair)
    pair.guest.allocator.allocate_pages(1 << 20, Owner.WORKLOAD)
    assert pair.guest.allocator.allocate(0, Owner.WORKLOAD) is None
    pair.wire.deliver_kicks()
    assert pair.guest.allocator.allocate(0, Owner.WORKLOAD) is not None


def test_a_hint_given_back_after_done_frees_nothing_that_is_hinted_again():
    pair = pair_with(holds="until-used", defer_kicks=True, single_steps=True, order=0, batch=1, queue_size=16)
    pair.guest.allocator.allocate_pages(pair.guest.allocator.free_page_count - 1, Owner.WORKLOAD)
    pair.hints()
    pair.device.hinting.request()
    steps(pair, lambda: pair.driver.next_piece is Piece.COLLECT and pair.guest.held(Owner.HINTED))
    pair.device.hinting.done()
    steps(pair)
    pair.device.hinting.request()
    steps(pair, lambda: pair.driver.next_piece is Piece.QUEUE)
    pair.driver.work()
    batch = pair.device.queues[BalloonQueue.FREE_PAGE].pop_batch()
    first = int(np.argmax(batch.writable))
    # All up to the first hint go back, the second one does not.
    pair.device.queues[BalloonQueue.FREE_PAGE].push_batch(batch.heads[: first + 1], np.zeros(first + 1, np.int64))
    assert pair.driver.next_piece is Piece.REAP
    pair.driver.work()
    assert (pair.guest.held(Owner.HINTED), pair.guest.held(Owner.HINT_USED)) == (1, 0)


# Answering again


class TestRefresh:
    @pytest.mark.parametrize("answer", ["list", "bitmap"])
    @pytest.mark.parametrize("holds", ["nothing", "until-queued", "until-used"])
    def test_when_its_last_answer_was_consumed_the_guest_gives_another_until_done(self, holds, answer):
        pair = pair_with(answer=answer, holds=holds, refresh="consumed", checks_id=False, defer_kicks=True)
        pages = pair.hints()
        pair.device.hinting.request()
        for round_count in range(1, 4):
            # A second: the guest rests a little between two answers.
            for tick in range(100):
                if pair.device.hinting.sink.ends == round_count:
                    break
                pair.driver.housekeep(round_count + tick / 100)
                steps(pair)
                pair.wire.deliver_kicks()
            assert len(pages) == round_count * len(set(pages))
        pair.device.hinting.done()
        pair.settle()
        assert pair.device.hinting.sink.ends <= 4
        assert held(pair) == 0
        pair.guest.allocator.check()

    @pytest.mark.parametrize("single_steps", [False, True])
    def test_a_guest_with_nothing_to_hint_does_not_answer_over_and_over(self, single_steps):
        pair = pair_with(refresh="consumed", checks_id=False, single_steps=single_steps)
        pair.hints()
        taken = pair.guest.allocator.take_free_blocks(10, 1000, Owner.WORKLOAD)
        pair.device.hinting.request()
        pair.settle()
        assert pair.device.hinting.sink.ends == 1
        pair.guest.allocator.free_blocks(taken[:1])
        for now in (1.0, 2.0):
            pair.driver.housekeep(now)
        pair.driver.work()
        assert pair.driver.next_piece is not Piece.IDLE

    def test_without_an_interval_the_guest_answers_once(self):
        pair = pair_with(refresh="interval", interval_field=True, checks_id=False)
        pair.hints()
        pair.device.hinting.request()
        pair.settle()
        assert pair.driver.housekeep(1000.0) == math.inf
        pair.settle()
        assert pair.device.hinting.sink.ends == 1

    def test_while_there_is_an_interval_the_guest_answers_each_time_that_it_is_over(self):
        pair = pair_with(refresh="interval", interval_field=True, checks_id=False)
        pages = pair.hints()
        pair.device.hinting.request()
        pair.device.hinting.set_refresh_interval(250)
        pair.settle()
        ends = []
        for now in (10.0, 10.2, 10.25, 10.3, 10.5, 10.75):
            left = pair.driver.housekeep(now)
            assert 0 < left <= 0.25
            pair.settle()
            ends.append(pair.device.hinting.sink.ends)
        assert ends == [1, 1, 2, 2, 3, 4]
        assert len(pages) == 4 * len(set(pages))
        pair.device.hinting.set_refresh_interval(0)
        pair.settle()
        assert pair.driver.housekeep(20.0) == math.inf

    def test_a_clock_that_jumps_back_costs_at_most_one_interval(self):
        pair = pair_with(refresh="interval", interval_field=True, checks_id=False)
        pair.hints()
        pair.device.hinting.request()
        pair.device.hinting.set_refresh_interval(250)
        pair.settle()
        pair.driver.housekeep(1e6)
        assert pair.driver.housekeep(5.0) == 0.25
        assert pair.driver.housekeep(5.25) == 0.25
        pair.settle()
        assert pair.device.hinting.sink.ends == 2

    def test_an_answer_that_is_not_consumed_is_not_released_by_the_next(self):
        pair = pair_with(refresh="interval", interval_field=True, checks_id=False, defer_kicks=True, single_steps=True)
        pair.hints()
        pair.device.hinting.request()
        pair.device.hinting.set_refresh_interval(10)
        names = steps(pair)
        # It found nothing more to hint in its second answer, for it let go of nothing.
        assert names.count("announce") == names.count("end") == 2
        assert held(pair) == pair.guest.held(Owner.HINTED) > 0

    def test_a_stop_ends_it(self):
        pair = pair_with(refresh="consumed", checks_id=False, defer_kicks=True)
        pair.hints()
        pair.device.hinting.request()
        steps(pair)
        pair.device.hinting.stop()
        pair.settle()
        assert pair.device.hinting.sink.ends <= 1
        assert pair.driver.next_piece is Piece.IDLE


# Words


@pytest.mark.parametrize("field", ["answer", "holds", "collects", "start_buffer", "refresh"])
def test_a_word_that_means_nothing_is_the_users_to_change(field):
    with pytest.raises(UserError, match="'soon'; choose one of"):
        HintBehaviour.of(**{field: "soon"})


@pytest.mark.parametrize("numbers", [{"order": 11}, {"order": -1}, {"batch": 0}, {"batch": 65}])
def test_a_number_that_cannot_be_is_the_users_to_change(numbers):
    with pytest.raises(UserError, match="give"):
        HintBehaviour.of(**numbers)


def test_without_a_word_a_guest_does_what_linux_does():
    assert HintBehaviour.of() == HintBehaviour()
