"""Who is told of what in a packed ring, and when: kicks, calls, and the event suppression structures."""

import numpy as np
import pytest
from ring_setup import fill, interrupt, make_ends

import guest_agent.virtqueue.packed_used as driver_used
import vdev.virtqueue.packed as device_side
import vdev.virtqueue.packed_batch as device_batch
from guest_agent.virtqueue.packed_area import PackedQueueArea
from spec.packed_ring import FIRST_POSITION, EventFlag, position
from vdev.virtqueue.packed_ring import PackedRing


@pytest.mark.parametrize("count", [1, 15, 16, 40])
@pytest.mark.parametrize("moment", range(8))
def test_what_is_published_while_a_batch_is_taken_kicks(count, moment, monkeypatch):
    ends = make_ends(65, packed=True)
    kicked = []

    def publish_one():
        fill(ends, 1)
        ends.driver.publish()
        kicked.append(ends.driver.should_kick())

    fill(ends, 1)  # so that the device has said for which descriptor it wants to be kicked
    ends.driver.publish()
    ends.device.push(ends.device.pop().head, 0)
    ends.driver.collect()
    fill(ends, count)
    ends.driver.publish()
    ends.driver.should_kick()
    with monkeypatch.context() as patch:
        fences = (ends.device, "_full_fence"), (device_side, "load_fence"), (device_batch, "load_fence")
        interrupt(patch, moment, publish_one, *fences, (PackedRing, "store_event"))
        batch = ends.device.pop_batch()
    if len(batch) < count + len(kicked):
        assert kicked == [True]
    else:
        publish_one()
        assert kicked[-1]


@pytest.mark.parametrize("in_order", [False, True])
@pytest.mark.parametrize("count", [1, 7, 8, 40])
@pytest.mark.parametrize("moment", range(8))
def test_what_is_used_while_a_batch_is_collected_calls(count, moment, in_order, monkeypatch):
    ends = make_ends(65, packed=True, in_order=in_order)
    called = []

    def push_one():
        ends.device.push(ends.device.pop().head, 0)
        called.append(ends.device.should_call())

    fill(ends, 1)
    ends.driver.publish()
    push_one()
    ends.driver.collect()
    fill(ends, 64)
    ends.driver.publish()
    for _ in range(count):
        push_one()
    called.clear()
    with monkeypatch.context() as patch:
        fences = (ends.driver, "_full_fence"), (driver_used, "load_fence")
        interrupt(patch, moment, push_one, *fences, (PackedQueueArea, "store_driver_event"))
        batch = ends.driver.collect_batch()
    if len(batch.heads) < count + len(called):
        assert called == [True]
    else:
        push_one()
        assert called[-1]


@pytest.mark.parametrize("event_idx", [False, True])
def test_desc_is_said_only_where_event_idx_allows_it(event_idx):
    ends = make_ends(4, packed=True, event_idx=event_idx)
    for switch in (ends.device.disable_kicks, ends.driver.disable_calls, ends.device.enable_kicks):
        switch()
    ends.driver.enable_calls()
    expected = EventFlag.DESC if event_idx else EventFlag.ENABLE
    for address in (ends.driver.addresses.driver, ends.driver.addresses.device):
        assert int.from_bytes(ends.memory.read(address + 2, 2), "little") == expected


def test_a_chain_that_covers_the_awaited_descriptor_kicks():
    ends = make_ends(8, packed=True, start=position(6, 8))
    ends.device.enable_kicks()  # for descriptor 6
    ends.driver.add([(0, 1)] * 3, [], 1, indirect=False)  # 6, 7, and 0 of the next lap
    ends.driver.publish()
    assert ends.driver.should_kick()
    ends.device.push(ends.device.pop().head, 0)
    ends.driver.add([(0, 1)], [], 2)
    ends.driver.publish()
    assert ends.driver.should_kick()
    assert ends.device.save().next_avail == 1


def test_a_kick_says_where_the_next_buffer_will_be_made_available():
    ends = make_ends(3, packed=True)
    assert ends.driver.notification_data() == FIRST_POSITION << 16
    fill(ends, 2)
    assert ends.driver.notification_data() == FIRST_POSITION << 16  # not yet available
    ends.driver.publish()
    assert ends.driver.notification_data() == (FIRST_POSITION | 2) << 16
    fill(ends, 1)
    ends.driver.publish()
    assert ends.driver.notification_data() == 0


def test_an_event_that_was_reached_laps_ago_does_not_notify_once_more():
    ends = make_ends(4, packed=True)
    ends.device.enable_kicks()
    ends.driver.enable_calls()
    for _ in range(9):  # each side takes all, and so waits for what comes next; nobody asks whether to notify
        fill(ends, 2)
        ends.driver.publish()
        ends.device.push_batch(ends.device.pop_batch().heads, np.zeros(2, np.int64))
        assert len(ends.driver.collect_batch().heads) == 2
    assert not ends.driver.should_kick()
    assert not ends.device.should_call()
