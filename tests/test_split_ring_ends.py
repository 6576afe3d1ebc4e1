"""Driver and device of one split queue, joined: sizes, wraps, notifications, events, and a move elsewhere."""

import numpy as np
import pytest
from ring_setup import AREA, MarkChecker, fill, interrupt, make_ends, make_features

import guest_agent.virtqueue.split_used as driver_used
import vdev.virtqueue.split as device_side
from guest_agent.virtqueue import NoQueueHere, QueueFull, SplitDriverQueue, Used
from guest_agent.virtqueue.area import QueueArea
from spec.split_area import split_area
from spec.split_ring import MAX_QUEUE_SIZE
from vdev.errors import GuestAddressError
from vdev.memory import GuestMemory, PageMarks
from vdev.virtqueue import Chain, ChainBatch, QueueAddresses, Segment, SplitDeviceQueue
from vdev.virtqueue.rings import Rings


@pytest.mark.parametrize("event_idx", [False, True])
def test_the_largest_queue_fills_and_drains_in_batches_over_the_wrap(event_idx):
    ends = make_ends(MAX_QUEUE_SIZE, event_idx=event_idx, indirect=False)
    for lap in range(5):
        assert fill(ends, MAX_QUEUE_SIZE + 1, first_token=lap << 32) == MAX_QUEUE_SIZE
        assert ends.driver.free_count == 0
        with pytest.raises(QueueFull):
            ends.driver.add([(0, 1)], [], 0)
        ends.driver.publish()
        assert ends.driver.should_kick()
        batch = ends.device.pop_batch()
        assert len(batch) == MAX_QUEUE_SIZE
        assert batch.writable.all()
        ends.device.push_batch(batch.heads[::-1], np.arange(MAX_QUEUE_SIZE) % 4097)
        assert ends.device.should_call()
        used = ends.driver.collect_batch()
        assert (used.tokens == np.arange(MAX_QUEUE_SIZE)[::-1] + (lap << 32)).all()
        assert (used.written_sizes == np.arange(MAX_QUEUE_SIZE) % 4097).all()
        assert ends.device.pop() is None
        assert ends.driver.collect() is None


def test_the_indices_wrap_at_65536_one_by_one():
    ends = make_ends(1, start=65500)
    for turn in range(39):
        ends.driver.add([(turn % 4096, 1)], [], turn)
        ends.driver.publish()
        assert ends.driver.should_kick()
        chain = ends.device.pop()
        assert chain is not None
        assert chain.readable == ((turn % 4096, 1),)
        ends.device.push(chain.head, 0)
        assert ends.device.should_call()
        assert ends.driver.collect() == Used(turn, 0, 0)
    assert ends.device.save().next_avail == 3


def test_a_chain_as_long_as_the_queue_is_legal_for_both_paths():
    ends = make_ends(64, indirect=False)
    segments = [(4096 * index, index) for index in range(64)]
    for take in (ends.device.pop, lambda: ends.device.pop_batch().chain(0)):
        ends.driver.add(segments[:20], segments[20:], 1)
        ends.driver.publish()
        chain = take()
        assert (*chain.readable, *chain.writable) == tuple(segments)
        ends.device.push(chain.head, sum(range(20, 64)))
        assert ends.driver.collect().written_size == sum(range(20, 64))
    assert ends.driver.free_count == 64


def test_data_goes_there_and_back_through_chains_of_any_shape():
    ends = make_ends(16)
    ends.memory.write(0x1000, b"ping")
    ends.driver.add([(0x1000, 1), (0x1001, 0), (0x1001, 3)], [(0x2000, 2), (0x2010, 0), (0x2020, 8)], 5)
    ends.driver.publish()
    chain = ends.device.pop()
    assert chain.read(ends.memory) == b"ping"
    assert (chain.readable_size, chain.writable_size) == (4, 10)
    with pytest.raises(ValueError, match="do not fit"):
        chain.write(ends.memory, bytes(11))
    ends.device.push(chain.head, chain.write(ends.memory, b"pong!"))
    assert ends.driver.collect() == Used(5, 5, chain.head)
    assert (ends.memory.read(0x2000, 2), ends.memory.read(0x2020, 3)) == (b"po", b"ng!")


def test_a_batch_and_its_chains_say_the_same():
    chains = [
        Chain(3, (Segment(0, 4), Segment(16, 8)), (Segment(32, 2),)),
        Chain(1, (), (Segment(64, 1),)),
        Chain(7, (Segment(80, 0),), ()),
    ]
    batch = ChainBatch.of(chains)
    assert list(batch) == chains
    assert batch.chain(-1) == chains[-1]
    with pytest.raises(IndexError):
        batch.chain(3)
    assert batch.segment_chain.tolist() == [0, 0, 0, 1, 2]
    assert len(ChainBatch.of([])) == 0


# Notifications


@pytest.mark.parametrize("count", [1, 15, 16, 40])
@pytest.mark.parametrize("moment", range(6))
def test_what_is_published_while_a_batch_is_taken_kicks(count, moment, monkeypatch):
    # The device takes one batch and does not look again. Wherever in that call the driver publishes one more buffer,
    # either it is in the batch or the driver kicks; and so it is with one published after the call.
    ends = make_ends(64)
    kicked = []

    def publish_one():
        fill(ends, 1)
        ends.driver.publish()
        kicked.append(ends.driver.should_kick())

    fill(ends, count)
    ends.driver.publish()
    ends.driver.should_kick()
    with monkeypatch.context() as patch:
        steps = (ends.device, "_full_fence"), (device_side, "load_fence"), (Rings, "store_used_word")
        interrupt(patch, moment, publish_one, *steps)
        batch = ends.device.pop_batch()
    if len(batch) < count + len(kicked):
        assert kicked == [True]
    else:
        publish_one()
        assert kicked[-1]


@pytest.mark.parametrize("count", [1, 7, 8, 40])
@pytest.mark.parametrize("moment", range(6))
def test_what_is_used_while_a_batch_is_collected_calls(count, moment, monkeypatch):
    ends = make_ends(64)
    called = []

    def push_one():
        ends.device.push(ends.device.pop().head, 0)
        called.append(ends.device.should_call())

    fill(ends, 64)
    ends.driver.publish()
    for _ in range(count):
        push_one()
    called.clear()
    with monkeypatch.context() as patch:
        steps = (ends.driver, "_full_fence"), (driver_used, "load_fence"), (QueueArea, "store_available_word")
        interrupt(patch, moment, push_one, *steps)
        batch = ends.driver.collect_batch()
    if len(batch.heads) < count + len(called):
        assert called == [True]
    else:
        push_one()
        assert called[-1]


def test_with_event_idx_both_flags_stay_0():
    ends = make_ends(4)
    ends.device.disable_kicks()
    ends.driver.disable_calls()
    assert ends.memory.read(ends.driver.addresses.driver, 2) == bytes(2)
    assert ends.memory.read(ends.driver.addresses.device, 2) == bytes(2)


def test_a_kick_says_where_the_next_buffer_will_be_made_available():
    ends = make_ends(16, start=65534)
    assert ends.driver.notification_data() == 65534 << 16
    fill(ends, 3)
    assert ends.driver.notification_data() == 65534 << 16  # not yet available
    ends.driver.publish()
    assert ends.driver.notification_data() == 1 << 16


# The dirty log


def test_every_kind_of_store_is_marked_where_each_part_has_pages_of_its_own():
    ends = make_ends(MAX_QUEUE_SIZE, marks=True, start=65536 - 100)
    marks = MarkChecker(ends)

    def step(*results):
        """Each call's stores must be marked by that call."""
        marks.check()
        return results[-1] if results else None

    for lap in range(2):
        step(ends.driver.add([(0, 8)], [(8, 8), (16, 8)], 1, indirect=False))
        step(ends.driver.add([(0, 8)], [(8, 8), (16, 8)], 2, indirect=True))
        step(fill(ends, MAX_QUEUE_SIZE - 6))
        step(ends.driver.publish())
        step(ends.driver.should_kick())
        first = step(ends.device.pop())
        rest = step(ends.device.pop_batch())
        step(ends.device.push_batch(np.roll(rest.heads, 1000), np.zeros(len(rest), np.int64)))
        step(ends.device.push(first.head, 16))
        for _ in range(2):
            step(ends.driver.collect())
        assert len(step(ends.driver.collect_batch()).heads) == MAX_QUEUE_SIZE - 6
        for switch in (ends.driver.disable_calls, ends.device.disable_kicks):
            step(switch())
        for switch in (ends.driver.enable_calls, ends.device.enable_kicks):
            step(switch())
        assert ends.driver.free_count == MAX_QUEUE_SIZE, lap


def test_flags_are_marked_too():
    ends = make_ends(4096, event_idx=False, marks=True)
    marks = MarkChecker(ends)
    for switch in (
        ends.driver.disable_calls,
        ends.device.disable_kicks,
        ends.driver.enable_calls,
        ends.device.enable_kicks,
    ):
        switch()
        marks.check()


# Both ends move


def test_a_queue_goes_on_in_a_copy_of_ram_with_chains_in_every_state():
    ends = make_ends(32)
    for token in range(4):
        ends.driver.add([(0x1000, 8)], [(0x2000, 16), (0x3000, 16)], token, indirect=token % 2 == 0)
    ends.driver.publish()
    held = [ends.device.pop() for _ in range(3)]
    ends.device.push(held[1].head, 32)
    fill(ends, 2, first_token=10)

    copy = GuestMemory.private(ends.memory.size)
    copy.write(0, ends.memory.read(0, ends.memory.size))
    ends.memory.bytes_view(0, ends.memory.size)[:] = 0xFF  # nothing may look here again
    driver = SplitDriverQueue.attach(copy, 0, AREA)
    device = SplitDeviceQueue(copy, 0, QueueAddresses(*driver.addresses), ends.features)
    device.restore(ends.device.save())

    assert driver.collect() == Used(1, 32, held[1].head)
    driver.publish()
    assert len(device.pop_batch()) == 3
    heads = sorted(device.save().outstanding)
    device.push_batch(np.array(heads), np.zeros(len(heads), np.int64))
    assert sorted(driver.collect_batch().tokens.tolist()) == [0, 2, 3, 10, 11]
    assert driver.free_count == 32


def test_attach_refuses_what_is_no_queue():
    memory = GuestMemory.private(1 << 20)
    for address in (0, 8, 1 << 20, 1 << 40):
        with pytest.raises(NoQueueHere):
            SplitDriverQueue.attach(memory, 0, address)
    SplitDriverQueue.create(memory, 0, 256, (1 << 20) - SplitDriverQueue.area_size(256), 0)
    short = GuestMemory.private((1 << 20) - 4096)
    short.write(0, memory.read(0, short.size))
    with pytest.raises(NoQueueHere):
        SplitDriverQueue.attach(short, 0, (1 << 20) - SplitDriverQueue.area_size(256))


def test_create_refuses_impossible_places_and_sizes():
    memory = GuestMemory.private(1 << 20)
    for size in (0, 3, 65536):
        with pytest.raises(ValueError, match="no queue size"):
            SplitDriverQueue.create(memory, 0, size, 0, 0)
    with pytest.raises(ValueError, match="begin a page"):
        SplitDriverQueue.create(memory, 0, 16, 64, 0)
    with pytest.raises(GuestAddressError):
        SplitDriverQueue.create(memory, 0, 256, (1 << 20) - 4096, 0)


def test_create_clears_what_was_there_and_marks_it():
    memory = GuestMemory.private(1 << 20)
    memory.bytes_view(0, memory.size)[:] = 0xFF
    memory.page_marks = PageMarks(memory.page_count)
    size = SplitDriverQueue.area_size(64, 4)
    driver = SplitDriverQueue.create(memory, 0, 64, 0, make_features(), indirect_capacity=4)
    assert memory.page_marks.marks[: size // 4096].all()
    assert not memory.page_marks.marks[size // 4096 :].any()
    device = SplitDeviceQueue(memory, 0, QueueAddresses(*driver.addresses), make_features())
    assert device.pop() is None
    assert driver.collect() is None


@pytest.mark.parametrize("size", [1, 2, 64, 1024, MAX_QUEUE_SIZE])
def test_the_parts_of_an_area_are_aligned_and_share_no_cache_line(size):
    area = split_area(size, 3)
    parts = [0, area.descriptor, area.available, area.used, area.chain_notes, area.indirect, area.size]
    assert parts == sorted(set(parts))
    assert all(part % 64 == 0 for part in parts[:-1])
    assert SplitDriverQueue.area_size(size, 3) >= area.size
