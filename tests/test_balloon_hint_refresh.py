"""A guest that answers again by itself: when its last answer was consumed, or when an interval is over."""

import math

import pytest
from hint_setup import held, pair_with, steps

from guest_agent.drivers.balloon import Piece
from guest_agent.page_database import Owner

pytestmark = pytest.mark.usefixtures("each_ring")


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
