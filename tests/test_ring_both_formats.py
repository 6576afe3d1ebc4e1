"""What both ring formats promise in the same words: who is told when, what may be added, and the events."""

import numpy as np
import pytest
from ring_setup import fill, make_ends

from vdev.events import ChainsMadeAvailable, ChainsPopped, ChainsUsed, EventStream, UsedCollected

each_format = pytest.mark.parametrize(
    ("packed", "size"), [(False, 16), (True, 16), (True, 13)], ids=["split", "packed", "packed, no power of two"]
)


@each_format
@pytest.mark.parametrize("event_idx", [False, True])
def test_a_device_that_found_nothing_is_kicked_for_the_next_buffer(packed, size, event_idx):
    ends = make_ends(size, packed=packed, event_idx=event_idx)
    for turn in range(20):
        ends.driver.add([(0, 1)], [], turn)
        ends.driver.publish()
        assert ends.driver.should_kick()
        assert not ends.driver.should_kick()  # nothing new since
        ends.device.push(ends.device.pop().head, 0)
        assert ends.device.pop() is None
        ends.driver.collect()


@each_format
def test_with_event_idx_a_busy_device_is_kicked_once_for_many_buffers(packed, size):
    ends = make_ends(size, packed=packed)
    ends.device.enable_kicks()
    kicks = []
    for turn in range(10):
        ends.driver.add([(0, 1)], [], turn)
        ends.driver.publish()
        kicks.append(ends.driver.should_kick())
    assert kicks == [True] + [False] * 9
    assert len(ends.device.pop_batch()) == 10
    ends.driver.add([(0, 1)], [], 10)
    ends.driver.publish()
    assert ends.driver.should_kick()


@each_format
@pytest.mark.parametrize("event_idx", [False, True])
def test_switched_off_nobody_is_told_and_switching_on_says_what_came_meanwhile(packed, size, event_idx):
    ends = make_ends(size, packed=packed, event_idx=event_idx)
    ends.device.disable_kicks()
    ends.driver.disable_calls()
    assert not ends.device.enable_kicks()
    ends.device.disable_kicks()
    assert fill(ends, 3) == 3
    ends.driver.publish()
    assert not ends.driver.should_kick()
    assert ends.device.enable_kicks()
    for head in ends.device.pop_batch().heads.tolist():
        ends.device.push(head, 0)
    assert not ends.device.should_call()
    assert ends.driver.enable_calls()
    assert len(ends.driver.collect_batch().tokens) == 3
    fill(ends, 1)
    ends.driver.publish()
    assert ends.driver.should_kick()
    ends.device.push(ends.device.pop().head, 0)
    assert ends.device.should_call()


@each_format
def test_the_driver_author_cannot_add_what_the_text_forbids(packed, size):
    ends = make_ends(size, packed=packed, indirect_capacity=2)
    for readable, writable, token, says in (
        ([], [], 0, "needs a segment"),
        ([(0, 1)] * (size + 1), [], 0, f"{size + 1} segments in a queue of {size}"),
        ([(0, 1 << 32)], [], 0, "no descriptor can hold"),
        ([(-1, 1)], [], 0, "no descriptor can hold"),
        ([(1 << 64, 1)], [], 0, "no descriptor can hold"),
        ([(0, (1 << 32) - 1)], [(0, 2)], 0, "more than 2\\^32 bytes"),
        ([(0, 1)], [], 1 << 64, "not a 64-bit number"),
    ):
        with pytest.raises(ValueError, match=says):
            ends.driver.add(readable, writable, token)
    with pytest.raises(ValueError, match="no indirect table for 3 segments"):
        ends.driver.add([(0, 1)] * 3, [], 0, indirect=True)
    with pytest.raises(ValueError, match="no descriptor can hold"):
        ends.driver.add_batch(*np.array([[0], [1 << 32]], np.uint64), writable=True, tokens=np.zeros(1, np.uint64))
    with pytest.raises(ValueError, match="2 addresses, 1 sizes and 1 tokens"):
        ends.driver.add_batch(*[np.zeros(n, np.uint64) for n in (2, 1)], writable=True, tokens=np.zeros(1, np.uint64))
    assert ends.driver.free_count == size
    ends.driver.publish()
    assert ends.device.pop() is None


@each_format
def test_every_step_is_an_event(packed, size):
    records = []
    stream = EventStream(lambda: 0.0)
    stream.subscribe(lambda record: records.append(record.event))
    ends = make_ends(size, packed=packed, events=stream.emitter("both"))
    fill(ends, 9)
    ends.driver.publish()
    heads = tuple(ends.device.pop_batch().heads.tolist())
    ends.device.push_batch(np.array(heads), np.full(9, 5))
    ends.driver.collect_batch()
    ends.driver.add([(0, 1)], [], 0)
    ends.driver.publish()
    last = ends.device.pop().head
    ends.device.push(last, 0)
    ends.driver.collect()
    assert records == [
        ChainsMadeAvailable(0, heads),
        ChainsPopped(0, heads),
        ChainsUsed(0, heads, (5,) * 9),
        UsedCollected(0, heads),
        ChainsMadeAvailable(0, (last,)),
        ChainsPopped(0, (last,)),
        ChainsUsed(0, (last,), (0,)),
        UsedCollected(0, (last,)),
    ]
