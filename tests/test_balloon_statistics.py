"""Memory statistics: the device keeps one buffer and returns it to ask ("Memory Statistics")."""

import struct

import pytest
from device_setup import BalloonPair, BareBalloon, of_type

from guest_agent.drivers.balloon import BALLOON_DRIVER_FEATURES
from spec.balloon import BalloonFeature, BalloonQueue, QueueNumbering, StatisticTag
from spec.device import feature_mask
from vdev.events import StatisticsReceived

pytestmark = pytest.mark.usefixtures("each_ring")

MIB = 1 << 20
STATS = BalloonQueue.STATISTICS


def entries(*pairs):
    return b"".join(struct.pack("<HQ", tag, value) for tag, value in pairs)


@pytest.mark.parametrize("numbering", list(QueueNumbering))
@pytest.mark.parametrize("defer_kicks", [False, True])
def test_each_request_brings_the_guests_present_figures(numbering, defer_kicks):
    pair = BalloonPair(numbering=numbering, defer_kicks=defer_kicks)
    assert pair.device.statistics == {StatisticTag.FREE_MEMORY: 1, StatisticTag.TOTAL_MEMORY: 2}
    for free in (77, 1 << 60):
        pair.statistics[int(StatisticTag.FREE_MEMORY)] = free
        assert pair.device.request_statistics()
        pair.settle()
        assert pair.device.statistics[StatisticTag.FREE_MEMORY] == free


def test_a_request_that_is_not_yet_answered_is_not_made_again():
    pair = BalloonPair(defer_kicks=True)
    assert pair.device.request_statistics()
    assert not pair.device.request_statistics()
    pair.settle()
    assert pair.device.request_statistics()


def test_without_the_feature_nobody_is_asked():
    pair = BalloonPair(features=BALLOON_DRIVER_FEATURES & ~feature_mask(BalloonFeature.STATS_VQ))
    assert not pair.device.request_statistics()
    assert pair.device.statistics == {}


def test_the_kept_buffer_is_not_used_until_the_device_asks():
    bare = BareBalloon()
    head = bare.send(STATS, entries((4, 1)))
    assert bare.queues[STATS].collect() is None
    assert bare.device.request_statistics()
    used = bare.queues[STATS].collect()
    assert (used.head, used.written_size) == (head, 0)


def test_unknown_tags_are_left_out_and_the_order_does_not_matter():
    bare = BareBalloon()
    bare.send(STATS, entries((9, 5), (4242, 6), (0, 7)))
    assert bare.device.statistics == {StatisticTag.SWAP_IN: 7, StatisticTag.HUGETLB_FAILURES: 5}
    assert of_type(bare.seen, StatisticsReceived) == [StatisticsReceived(((9, 5), (0, 7)))]


def test_the_first_buffer_may_be_empty():
    bare = BareBalloon()
    bare.post(STATS, b"")
    bare.publish(STATS)
    # A segment of no bytes is the queue's to judge; either way no statistic came.
    assert bare.device.statistics == {}


@pytest.mark.parametrize("size", [1, 6, 9, 11, 16])
def test_an_odd_length_is_named(size):
    bare = BareBalloon()
    bare.send(STATS, bytes(size))
    assert bare.is_broken
    assert bare.device.violation.message == f"{size} bytes are no array of 10-byte entries"


def test_a_length_that_is_a_multiple_of_10_but_not_of_6_is_right():
    bare = BareBalloon()
    bare.send(STATS, entries((4, 1)))
    assert not bare.is_broken


def test_a_second_buffer_is_named_and_the_first_is_not_lost():
    bare = BareBalloon()
    first = bare.send(STATS, entries((4, 1)))
    bare.send(STATS, entries((4, 2)))
    assert bare.is_broken
    assert bare.device.violation.message == "a second buffer in the statistics queue"
    assert bare.device.memory_statistics.kept_head == first
    assert bare.device.statistics == {StatisticTag.FREE_MEMORY: 1}


def test_statistics_of_gibibytes_are_refused_without_reading_them():
    bare = BareBalloon()
    bare.queues[STATS].add([(0, 10 * MIB)] * 16, [], 0)
    bare.publish(STATS)
    assert bare.device.violation.message == f"{160 * MIB} bytes of statistics: more entries than there are tags"


def test_a_writable_buffer_is_named():
    bare = BareBalloon()
    bare.send(STATS, writable=[(8 * MIB, 10)])
    assert bare.device.violation.message == "statistics in a device-writable buffer"


def test_a_queue_reset_takes_the_kept_buffer_with_it():
    bare = BareBalloon()
    bare.send(STATS, entries((4, 1)))
    bare.registers.reset_queue(STATS)
    assert not bare.device.request_statistics()
    bare.registers.set_up_queue(STATS, bare.queues[STATS].create(bare.memory, 2, 64, 0x70000, 0).addresses)
    assert not bare.device.request_statistics()
    assert not bare.is_broken
