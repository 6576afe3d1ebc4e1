"""Every way in which a guest can give hints (HintBehaviour), driver and device joined."""

import numpy as np
import pytest
from device_setup import of_type
from hint_setup import BLOCK, WAYS, held, pair_with, restart_driver, steps

from guest_agent.drivers.balloon import HintBehaviour, Piece
from guest_agent.page_database import Owner
from spec.balloon import BalloonQueue, CommandId
from vdev.devices.balloon import HintState
from vdev.errors import UserError
from vdev.events import HintStateChanged

pytestmark = pytest.mark.usefixtures("each_ring")

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
