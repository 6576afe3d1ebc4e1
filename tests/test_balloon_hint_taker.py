"""Who takes hints may keep a batch, poll, flush, and look at no id: the device's side of the strategies."""

import pytest
from device_setup import BalloonPair, BareBalloon, Hints, Wire, of_type

from guest_agent.drivers.balloon import BALLOON_DRIVER_FEATURES, HintBehaviour
from spec.balloon import BalloonFeature, BalloonQueue, HintAnswer
from spec.device import Feature, feature_mask
from vdev.devices.balloon import BalloonDevice, HintState
from vdev.events import HintRefused

pytestmark = pytest.mark.usefixtures("each_ring")

MIB = 1 << 20
HINTS = BalloonQueue.FREE_PAGE
ALONE = BALLOON_DRIVER_FEATURES & ~feature_mask(BalloonFeature.PAGE_REPORTING)


def started(*, checks_id=True, keeps=False):
    bare = BareBalloon()
    bare.device.hinting.checks_id = checks_id
    bare.hints.keeps = keeps
    bare.echo(bare.device.hinting.request())
    return bare


def used_count(bare):
    return len(bare.queues[HINTS].collect_batch())


class TestKeeping:
    def test_a_batch_that_is_kept_stays_the_devices_until_it_is_given_back(self):
        bare = started()
        assert used_count(bare) > 0
        bare.hints.keeps = True
        bare.hint((4 * MIB, MIB))
        assert bare.pages == list(range(1024, 1280))
        assert bare.device.hinting.has_batch
        assert not len(bare.queues[HINTS].collect_batch().tokens)
        bare.device.hinting.give_back()
        assert len(bare.queues[HINTS].collect_batch().tokens) == 1
        assert not bare.device.hinting.has_batch
        bare.device.hinting.give_back()

    def test_batches_go_back_in_their_order(self):
        bare = started()
        bare.queues[HINTS].collect_batch()
        bare.hints.keeps = True
        heads = [bare.send(HINTS, writable=[(4 * MIB * n, MIB)]) for n in (1, 2)]
        for head in heads:
            bare.device.hinting.give_back()
            assert bare.queues[HINTS].collect_batch().heads.tolist() == [head]

    def test_the_driver_is_called_when_a_batch_goes_back(self):
        bare = started(keeps=True)
        bare.device.hinting.give_back()
        bare.queues[HINTS].collect_batch()
        bare.queues[HINTS].enable_calls()
        bare.hint((4 * MIB, MIB))
        before = bare.wire.interrupt_count
        bare.device.hinting.give_back()
        assert bare.wire.interrupt_count == before + 1

    def test_without_a_taker_whatever_was_kept_goes_back_at_the_next_look(self):
        bare = started(keeps=True)
        bare.hint((4 * MIB, MIB))
        bare.device.hinting.sink = None
        bare.device.handle_all_queues()
        assert not bare.device.hinting.has_batch

    def test_a_device_saved_with_a_batch_in_hand_gives_it_back_elsewhere_unapplied(self):
        bare = started()
        bare.queues[HINTS].collect_batch()
        bare.hints.keeps = True
        head = bare.send(HINTS, writable=[(4 * MIB, MIB)])
        moved = BalloonDevice(bare.memory)
        moved.restore(bare.device.save())
        moved.hinting.sink = None
        Wire(moved)
        moved.handle_all_queues()
        assert bare.queues[HINTS].collect_batch().heads.tolist() == [head]
        assert moved.hinting.applied_count == 0
        assert moved.violation is None

    def test_a_reset_forgets_it(self):
        bare = started(keeps=True)
        bare.hint((4 * MIB, MIB))
        bare.registers.reset()
        assert not bare.device.hinting.has_batch
        bare.device.hinting.give_back()


class TestFlush:
    def test_what_is_unread_goes_back_unapplied(self):
        bare = started()
        bare.queues[HINTS].collect_batch()
        bare.device.hinting.polled = True
        bare.hint((4 * MIB, MIB))
        bare.hint((8 * MIB, MIB))
        assert bare.device.hinting.flush() == 2
        assert bare.pages == []
        assert [event.reason for event in of_type(bare.seen, HintRefused)] == ["the queue is flushed"] * 2
        assert len(bare.queues[HINTS].collect_batch().tokens) == 2
        assert bare.device.hinting.flush() == 0

    def test_a_broken_buffer_in_it_needs_a_reset_and_raises_nothing(self):
        bare = started()
        bare.device.hinting.polled = True
        bare.send(HINTS, b"abc")
        bare.device.hinting.flush()
        assert bare.is_broken

    def test_a_device_that_nobody_drives_has_nothing_to_flush(self):
        bare = started()
        bare.registers.reset()
        assert bare.device.hinting.flush() == 0


def test_while_the_host_polls_kicks_are_not_looked_at():
    bare = BareBalloon()
    bare.device.hinting.polled = True
    bare.echo(bare.device.hinting.request())
    bare.hint((4 * MIB, MIB))
    assert bare.device.hinting.state is HintState.REQUESTED
    assert not bare.device.poll_hints()
    assert bare.device.hinting.state is HintState.START
    assert len(bare.pages) == 256
    bare.registers.reset()
    assert not bare.device.poll_hints()


class TestNoIds:
    def test_hints_count_from_the_request_until_done_whatever_the_driver_posts(self):
        bare = BareBalloon()
        bare.device.hinting.checks_id = False
        bare.hint((4 * MIB, MIB))
        assert bare.pages == []
        command_id = bare.device.hinting.request()
        bare.hint((4 * MIB, MIB))
        bare.echo(12345)
        bare.hint((8 * MIB, MIB))
        bare.echo(0)
        assert bare.hints.ends == 1
        assert bare.device.config["free_page_hint_cmd_id"] == command_id
        bare.hint((12 * MIB, MIB))
        assert len(bare.pages) == 3 * 256
        bare.device.hinting.done()
        bare.hint((4 * MIB, MIB))
        bare.echo(0)
        assert (len(bare.pages), bare.hints.ends) == (3 * 256, 1)

    def test_the_end_of_an_answer_under_an_id_is_told_once(self):
        bare = started()
        bare.echo(0)
        bare.echo(0)
        assert bare.hints.ends == 1


class TestInterval:
    def test_a_device_without_the_field_has_no_interval(self):
        with pytest.raises(ValueError, match="without a field"):
            BalloonPair(features=ALONE).device.hinting.set_refresh_interval(5)

    def test_the_driver_reads_it_only_where_it_was_told_to(self):
        for refresh, expected in (("never", 0), ("interval", 70)):
            pair = BalloonPair(features=ALONE, interval_field=True, behaviour=HintBehaviour.of(refresh=refresh))
            pair.device.hinting.set_refresh_interval(70)
            pair.settle()
            assert pair.driver._area["refresh_interval"] == expected

    def test_a_reset_ends_it(self):
        pair = BalloonPair(features=ALONE, interval_field=True)
        pair.device.hinting.set_refresh_interval(70)
        pair.device.reset()
        assert pair.device.config["free_page_hint_interval"] == 0


def test_a_device_that_asks_for_bitmaps_offers_no_in_order():
    device = BareBalloon(hint_answer=HintAnswer.BITMAP).device
    assert not device.offered_features >> Feature.IN_ORDER & 1
    assert BareBalloon().device.offered_features >> Feature.IN_ORDER & 1


def test_each_batch_is_taken_once_and_in_the_order_of_its_buffers():
    bare = started()
    bare.device.hinting.sink = Hints()
    bare.post(HINTS, writable=[(4 * MIB, MIB)])
    bare.post(HINTS, writable=[(8 * MIB, MIB)])
    bare.publish(HINTS)
    assert bare.device.hinting.sink.batch_count == 1
    assert bare.device.hinting.sink.pages == [*range(1024, 1280), *range(2048, 2304)]
