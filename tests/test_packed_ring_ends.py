"""Driver and device of one packed queue, joined: sizes, laps, notifications, events, and a move elsewhere."""

import numpy as np
import pytest
from ring_setup import AREA, MarkChecker, fill, make_ends, make_features

import guest_agent.virtqueue.packed as driver_side
import vdev.virtqueue.packed as device_side
import vdev.virtqueue.packed_ring as ring_side
from guest_agent.virtqueue import NoQueueHere, PackedDriverQueue, QueueFull, SplitDriverQueue, Used, attach_driver_queue
from spec.packed_area import packed_area
from spec.packed_ring import MAX_QUEUE_SIZE, PACKED_DESCRIPTOR, position
from vdev.errors import GuestAddressError
from vdev.memory import GuestMemory, PageMarks
from vdev.virtqueue import PackedDeviceQueue, QueueAddresses, make_device_queue


def ring_of(ends):
    """Every descriptor as construct reads it."""
    raw = ends.memory.read(ends.driver.addresses.descriptor, 16 * ends.driver.size)
    return [PACKED_DESCRIPTOR.parse(raw[at:]) for at in range(0, len(raw), 16)]


@pytest.mark.parametrize("in_order", [False, True])
@pytest.mark.parametrize("size", [MAX_QUEUE_SIZE, 32767, 1000])
def test_a_large_queue_fills_and_drains_in_batches_lap_after_lap(size, in_order):
    ends = make_ends(size, packed=True, in_order=in_order, indirect=False)
    for lap in range(5):
        assert fill(ends, size + 1, first_token=lap << 32) == size
        assert ends.driver.free_count == 0
        with pytest.raises(QueueFull):
            ends.driver.add([(0, 1)], [], 0)
        ends.driver.publish()
        assert ends.driver.should_kick()
        batch = ends.device.pop_batch()
        assert len(batch) == size
        assert batch.writable.all()
        order = np.arange(size) if in_order else np.arange(size)[::-1]
        ends.device.push_batch(batch.heads[order], np.arange(size) % 4097)
        assert ends.device.should_call()
        used = ends.driver.collect_batch()
        assert (used.tokens == order + (lap << 32)).all()
        assert (used.written_sizes == np.arange(size) % 4097).all()
        assert ends.device.pop() is None
        assert ends.driver.collect() is None


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_any_size_goes_round_one_by_one(size):
    ends = make_ends(size, packed=True)
    for turn in range(5 * size + 2):
        ends.driver.add([(turn % 4096, 1)], [], turn)
        assert not ends.device.has_available()
        ends.driver.publish()
        assert ends.driver.should_kick()
        chain = ends.device.pop()
        assert chain.readable == ((turn % 4096, 1),)
        ends.device.push(chain.head, 0)
        assert ends.device.should_call()
        assert ends.driver.collect() == Used(turn, 0, chain.head)
    assert ends.device.save().next_avail == position(5 * size + 2, size)


def test_one_slow_buffer_does_not_hold_up_the_ring():
    ends = make_ends(4, packed=True)
    ends.driver.add([], [(0, 8)], 0)
    ends.driver.publish()
    slow = ends.device.pop()
    for turn in range(1, 30):
        ends.driver.add([], [(0, 8)], turn)
        ends.driver.publish()
        ends.device.push(ends.device.pop().head, 8)
        assert ends.driver.collect().token == turn
    ends.device.push(slow.head, 3)
    assert ends.driver.collect() == Used(0, 3, slow.head)
    assert ends.driver.free_count == 4


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("laps", [1, 2, 3])
def test_a_buffer_that_stayed_for_laps_is_not_taken_for_one_that_was_just_added(laps, batch):
    ends = make_ends(5, packed=True)
    fill(ends, 1)
    ends.driver.publish()
    slow = ends.device.pop()
    for turn in range(laps * 5 - 1):
        ends.driver.add([], [(0, 8)], turn)
        ends.driver.publish()
        ends.device.push(ends.device.pop().head, 8)
        ends.driver.collect()
    fill(ends, 2)  # added, where the slow one stands, and not published
    ends.device.push(slow.head, 4096)
    used = ends.driver.collect_batch() if batch else ends.driver.collect()
    assert (used.heads.tolist() if batch else [used.head]) == [slow.head]


def test_a_chain_as_long_as_the_queue_is_legal_for_both_paths(monkeypatch):
    ends = make_ends(63, packed=True, indirect=False)
    monkeypatch.setattr(device_side, "_SMALL_BATCH", 1)
    segments = [(4096 * index, index) for index in range(63)]
    ends.driver.add([(0, 1)], [], 9)  # so that the chain crosses the end
    ends.driver.publish()
    ends.device.push(ends.device.pop().head, 0)
    ends.driver.collect()
    for take in (ends.device.pop, lambda: ends.device.pop_batch().chain(0)):
        ends.driver.add(segments[:20], segments[20:], 1)
        ends.driver.publish()
        chain = take()
        assert (*chain.readable, *chain.writable) == tuple(segments)
        ends.device.push(chain.head, sum(range(20, 63)))
        assert ends.driver.collect().written_size == sum(range(20, 63))
    assert ends.driver.free_count == 63


def test_the_bytes_of_a_chain_are_those_of_the_text():
    ends = make_ends(4, packed=True, start=position(3, 4))
    ends.driver.add([(0x1000, 5)], [(0x2000, 6)], 1, indirect=False)
    before = ring_of(ends)
    assert before[3].flags == 0  # the first descriptor is shown last
    ends.driver.publish()
    first, second = ring_of(ends)[3], ring_of(ends)[0]
    assert (first.addr, first.len, first.flags) == (0x1000, 5, 1 << 7 | 1)  # AVAIL 1, USED 0, NEXT
    assert (second.addr, second.len, second.flags) == (0x2000, 6, 1 << 15 | 2)  # the next lap: AVAIL 0, USED 1, WRITE
    chain = ends.device.pop()
    assert second.id == chain.head
    ends.device.push(chain.head, 6)
    used = ring_of(ends)[3]
    assert (used.id, used.len, used.flags) == (chain.head, 6, 1 << 15 | 1 << 7 | 2)
    assert ring_of(ends)[0] == second
    assert ends.device.save().next_used == 1


def test_an_indirect_table_carries_write_and_nothing_else():
    ends = make_ends(4, packed=True)
    ends.driver.add([(0x1000, 5)], [(0x2000, 6), (0x3000, 7)], 1, indirect=True)
    ends.driver.publish()
    head = ring_of(ends)[0]
    assert (head.len, head.flags) == (48, 1 << 7 | 4)
    entries = [PACKED_DESCRIPTOR.parse(ends.memory.read(head.addr + at, 16)) for at in (0, 16, 32)]
    assert [(entry.addr, entry.len, entry.id, entry.flags) for entry in entries] == [
        (0x1000, 5, 0, 0),
        (0x2000, 6, 0, 2),
        (0x3000, 7, 0, 2),
    ]
    chain = ends.device.pop()
    assert (chain.readable, chain.writable) == (((0x1000, 5),), ((0x2000, 6), (0x3000, 7)))


def test_data_goes_there_and_back_through_chains_of_any_shape():
    ends = make_ends(11, packed=True)
    ends.memory.write(0x1000, b"ping")
    ends.driver.add([(0x1000, 1), (0x1001, 0), (0x1001, 3)], [(0x2000, 2), (0x2010, 0), (0x2020, 8)], 5)
    ends.driver.publish()
    chain = ends.device.pop()
    assert chain.read(ends.memory) == b"ping"
    ends.device.push(chain.head, chain.write(ends.memory, b"pong!"))
    assert ends.driver.collect() == Used(5, 5, chain.head)
    assert (ends.memory.read(0x2000, 2), ends.memory.read(0x2020, 3)) == (b"po", b"ng!")


# The dirty log


@pytest.mark.parametrize("in_order", [False, True])
def test_every_kind_of_store_is_marked_where_each_part_has_pages_of_its_own(in_order):
    size = 32000
    ends = make_ends(size, packed=True, in_order=in_order, marks=True, start=position(size - 100, size))
    marks = MarkChecker(ends)

    def step(*results):
        """Each call's stores must be marked by that call."""
        marks.check()
        return results[-1] if results else None

    for lap in range(2):
        step(ends.driver.add([(0, 8)], [(8, 8), (16, 8)], 1, indirect=False))
        step(ends.driver.add([(0, 8)], [(8, 8), (16, 8)], 2, indirect=True))
        step(fill(ends, size - 6))
        step(ends.driver.publish())
        step(ends.driver.should_kick())
        first = step(ends.device.pop())
        rest = step(ends.device.pop_batch())
        if in_order:
            step(ends.device.push(first.head, 16))
        order = rest.heads if in_order else np.roll(rest.heads, 1000)
        step(ends.device.push_batch(order, np.zeros(len(rest), np.int64)))
        if not in_order:
            step(ends.device.push(first.head, 16))
        for _ in range(2):
            step(ends.driver.collect())
        assert len(step(ends.driver.collect_batch()).heads) == size - 6
        for switch in (ends.driver.disable_calls, ends.device.disable_kicks):
            step(switch())
        for switch in (ends.driver.enable_calls, ends.device.enable_kicks):
            step(switch())
        assert ends.driver.free_count == size, lap


# Both ends move


@pytest.mark.parametrize("in_order", [False, True])
def test_a_queue_goes_on_in_a_copy_of_ram_with_chains_in_every_state(in_order):
    ends = make_ends(33, packed=True, in_order=in_order, start=position(30, 33))
    for token in range(4):
        ends.driver.add([(0x1000, 8)], [(0x2000, 16), (0x3000, 16)], token, indirect=token % 2 == 0)
    ends.driver.publish()
    held = [ends.device.pop() for _ in range(3)]
    ends.device.push(held[0].head, 32)
    fill(ends, 2, first_token=10)

    copy = GuestMemory.private(ends.memory.size)
    copy.write(0, ends.memory.read(0, ends.memory.size))
    ends.memory.bytes_view(0, ends.memory.size)[:] = 0xFF  # nothing may look here again
    driver = attach_driver_queue(copy, 0, AREA)
    device = make_device_queue(copy, 0, QueueAddresses(*driver.addresses), ends.features)
    device.restore(ends.device.save())

    assert driver.collect() == Used(0, 32, held[0].head)
    driver.publish()
    assert len(device.pop_batch()) == 3
    heads = device.save().outstanding
    device.push_batch(np.array(heads), np.zeros(len(heads), np.int64))
    assert driver.collect_batch().tokens.tolist() == [1, 2, 3, 10, 11]
    assert driver.free_count == 33


def test_attach_refuses_what_is_no_packed_queue():
    memory = GuestMemory.private(1 << 20)
    for address in (0, 8, 1 << 20, 1 << 40):
        with pytest.raises(NoQueueHere):
            PackedDriverQueue.attach(memory, 0, address)
        with pytest.raises(NoQueueHere):
            attach_driver_queue(memory, 0, address)
    PackedDriverQueue.create(memory, 0, 256, (1 << 20) - PackedDriverQueue.area_size(256), 0)
    short = GuestMemory.private((1 << 20) - 4096)
    short.write(0, memory.read(0, short.size))
    with pytest.raises(NoQueueHere):
        PackedDriverQueue.attach(short, 0, (1 << 20) - PackedDriverQueue.area_size(256))


def test_each_format_finds_its_own_queues_only():
    memory = GuestMemory.private(1 << 20)
    SplitDriverQueue.create(memory, 0, 16, 0x1_0000, 0)
    PackedDriverQueue.create(memory, 0, 16, 0x2_0000, 0)
    with pytest.raises(NoQueueHere):
        PackedDriverQueue.attach(memory, 0, 0x1_0000)
    with pytest.raises(NoQueueHere):
        SplitDriverQueue.attach(memory, 0, 0x2_0000)
    assert isinstance(attach_driver_queue(memory, 0, 0x1_0000), SplitDriverQueue)
    assert isinstance(attach_driver_queue(memory, 0, 0x2_0000), PackedDriverQueue)


def test_create_refuses_impossible_places_and_sizes():
    memory = GuestMemory.private(1 << 20)
    for size in (0, 32769):
        with pytest.raises(ValueError, match="no queue size"):
            PackedDriverQueue.create(memory, 0, size, 0, 0)
    with pytest.raises(ValueError, match="begin a page"):
        PackedDriverQueue.create(memory, 0, 16, 64, 0)
    with pytest.raises(GuestAddressError):
        PackedDriverQueue.create(memory, 0, 256, (1 << 20) - 4096, 0)


def test_create_clears_what_was_there_and_marks_it():
    memory = GuestMemory.private(1 << 20)
    memory.bytes_view(0, memory.size)[:] = 0xFF
    memory.page_marks = PageMarks(memory.page_count)
    size = PackedDriverQueue.area_size(63, 4)
    features = make_features(packed=True)
    driver = PackedDriverQueue.create(memory, 0, 63, 0, features, indirect_capacity=4)
    assert memory.page_marks.marks[: size // 4096].all()
    assert not memory.page_marks.marks[size // 4096 :].any()
    device = PackedDeviceQueue(memory, 0, QueueAddresses(*driver.addresses), features)
    assert device.pop() is None
    assert driver.collect() is None


@pytest.mark.parametrize("size", [1, 3, 64, 1000, MAX_QUEUE_SIZE])
def test_the_parts_of_an_area_are_aligned_and_share_no_cache_line(size):
    area = packed_area(size, 3)
    parts = [0, area.ring, area.driver_event, area.device_event, area.buffer_notes, area.indirect, area.size]
    assert parts == sorted(set(parts))
    assert all(part % 64 == 0 for part in parts[:-1])
    assert PackedDriverQueue.area_size(size, 3) >= area.size


# Nothing is seen before all of it is there


@pytest.mark.parametrize("in_order", [False, True])
def test_the_driver_sees_nothing_of_a_batch_before_its_last_store(in_order, monkeypatch):
    ends = make_ends(40, packed=True, in_order=in_order)
    looks = []
    monkeypatch.setattr(ring_side, "store_fence", lambda: looks.append(ends.driver.has_used()))
    for _ in range(3):  # round the end, too
        fill(ends, 30)
        ends.driver.publish()
        heads = ends.device.pop_batch().heads
        ends.device.push(int(heads[0]), 7)
        assert ends.driver.collect() is not None
        ends.device.push_batch(heads[1:], np.full(29, 7))
        assert len(ends.driver.collect_batch().heads) == 29
    assert len(looks) >= 6
    assert not any(looks)


def test_the_device_sees_nothing_of_a_batch_before_its_last_store(monkeypatch):
    ends = make_ends(40, packed=True)
    looks = []
    monkeypatch.setattr(driver_side, "store_fence", lambda: looks.append(ends.device.has_available()))
    for _ in range(3):
        fill(ends, 20)
        ends.driver.add([(0, 1)] * 3, [(8, 1)], 99, indirect=False)
        ends.driver.publish()
        batch = ends.device.pop_batch()
        assert len(batch) == 21
        ends.device.push_batch(batch.heads, np.zeros(21, np.int64))
        ends.driver.collect_batch()
    assert looks == [False] * 3
