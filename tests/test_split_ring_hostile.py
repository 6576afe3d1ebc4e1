"""What a hostile driver or device can do to the other side: a named error, and nothing else."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import Refused, read_chain
from ring_setup import make_ends, make_features

import vdev.virtqueue.descriptor_batch as descriptor_batch
import vdev.virtqueue.split as split
from spec.layout import struct_of
from spec.split_ring import DESCRIPTOR, USED_ELEMENT, DescriptorFlag
from vdev.errors import DeviceViolation, DriverViolation
from vdev.memory import PAGE_SIZE, GuestMemory, PrivateBacking, Region
from vdev.virtqueue import QueueAddresses, QueueState, SplitDeviceQueue
from vdev.virtqueue.descriptor_batch import clean_prefix
from vdev.virtqueue.descriptors import DescriptorTable

NEXT, WRITE, INDIRECT = DescriptorFlag.NEXT, DescriptorFlag.WRITE, DescriptorFlag.INDIRECT
SIZE = 16
TABLE, AVAILABLE, USED, INDIRECT_TABLE, DATA = 0x0, 0x1000, 0x2000, 0x3000, 0x4000
RAM_END = 0x8000
LIMIT_64 = (1 << 64) - 1


def pack(*descriptors):
    return b"".join(struct_of(DESCRIPTOR).pack(*descriptor) for descriptor in descriptors)


def words(*values):
    return struct.pack(f"<{len(values)}H", *values)


class HostileDriver:
    """Rings whose every byte the test chooses; RAM is two regions side by side, so that a range can cross."""

    def __init__(self, size=SIZE, ram_end=RAM_END, **features):
        self.memory = GuestMemory([Region(0, PrivateBacking(DATA)), Region(DATA, PrivateBacking(ram_end - DATA))])
        self.addresses = QueueAddresses(size, TABLE, AVAILABLE, USED)
        self.features = make_features(**features)
        self.device = self.new_device()

    def new_device(self):
        return SplitDeviceQueue(self.memory, 7, self.addresses, self.features)

    def offer(self, table, heads, *, indirect_table=(), index=None):
        self.memory.write(TABLE, pack(*table))
        self.memory.write(INDIRECT_TABLE, pack(*indirect_table))
        self.memory.write(AVAILABLE + 4, words(*heads))
        self.memory.write(AVAILABLE + 2, words(len(heads) if index is None else index))


SEGMENT = (DATA, 16, 0, 0)

VIOLATIONS = {
    # name: (what the message says, descriptor table from 8 on, indirect table)
    "next outside the table": ("next is 16", [(DATA, 16, NEXT, SIZE)], []),
    "a chain that loops": ("loops", [(DATA, 16, NEXT, 9), (DATA, 16, NEXT, 8)], []),
    "a descriptor that is its own next": ("loops", [(DATA, 16, NEXT, 8)], []),
    "readable behind writable": ("readable segment", [(DATA, 16, NEXT | WRITE, 9), SEGMENT], []),
    "readable behind writable in an indirect table": (
        "readable segment",
        [(INDIRECT_TABLE, 32, INDIRECT, 0)],
        [(DATA, 16, NEXT | WRITE, 1), SEGMENT],
    ),
    "INDIRECT and NEXT": ("INDIRECT and NEXT", [(INDIRECT_TABLE, 16, INDIRECT | NEXT, 9), SEGMENT], [SEGMENT]),
    "an indirect table in an indirect table": (
        "inside an indirect",
        [(INDIRECT_TABLE, 16, INDIRECT, 0)],
        [(INDIRECT_TABLE, 16, INDIRECT, 0)],
    ),
    "an empty indirect table": ("0 bytes", [(INDIRECT_TABLE, 0, INDIRECT, 0)], []),
    "an indirect table of 24 bytes": ("24 bytes", [(INDIRECT_TABLE, 24, INDIRECT, 0)], [SEGMENT] * 2),
    "an indirect table outside RAM": ("not wholly in RAM", [(RAM_END, 16, INDIRECT, 0)], []),
    "an indirect table across two regions": ("not wholly in RAM", [(DATA - 16, 32, INDIRECT, 0)], []),
    "an indirect table longer than the queue": (
        "17 descriptors for a queue of 16",
        [(INDIRECT_TABLE, 17 * 16, INDIRECT, 0)],
        [SEGMENT] * 17,
    ),
    "a chain longer than the queue": (
        "longer than the queue size",
        [(DATA, 16, NEXT, 9), (INDIRECT_TABLE, 16 * 16, INDIRECT, 0)],
        [(DATA, 16, NEXT, index + 1) for index in range(15)] + [SEGMENT],
    ),
    "next outside the indirect table": (
        "next is 2 in a table of 2",
        [(INDIRECT_TABLE, 32, INDIRECT, 0)],
        [(DATA, 16, NEXT, 2), SEGMENT, SEGMENT],
    ),
    "a loop in the indirect table": (
        "loops",
        [(INDIRECT_TABLE, 32, INDIRECT, 0)],
        [(DATA, 16, NEXT, 1), (DATA, 16, NEXT, 0)],
    ),
    "a segment outside RAM": ("not wholly in RAM", [(RAM_END - 8, 16, 0, 0)], []),
    "a segment across two regions": ("not wholly in RAM", [(DATA - 8, 16, 0, 0)], []),
    "a segment past 2^64": ("not wholly in RAM", [(LIMIT_64 - 7, 16, 0, 0)], []),
    "an empty segment outside RAM": ("not wholly in RAM", [(RAM_END + 1, 0, 0, 0)], []),
    "a head that is still outstanding": ("has not given back", None, []),
    "a head outside the table": ("head 16 in a table of 16", None, []),
}


@pytest.fixture
def no_small_batches(monkeypatch):
    """The batch path is numpy's however few chains there are."""
    monkeypatch.setattr(split, "_SMALL_BATCH", 1)


@pytest.mark.parametrize("clean_count", [0, 2, 8])
@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_chain_that_breaks_the_text_is_named_and_changes_nothing(name, clean_count, no_small_batches):
    says, bad, indirect_table = VIOLATIONS[name]
    driver = HostileDriver()
    bad_head = {"a head outside the table": SIZE, "a head that is still outstanding": 9}.get(name, 8)
    before = [9] if name == "a head that is still outstanding" else []
    table = [SEGMENT] * 8 + (bad or [])
    table += [SEGMENT] * (SIZE - len(table))
    driver.offer(table, [*before, *range(clean_count), bad_head], indirect_table=indirect_table)

    for batch in (False, True):
        device = driver.new_device()
        if before:
            device.pop()
        if batch:
            taken = device.pop_batch().heads.tolist() if clean_count else []
        else:
            taken = [device.pop().head for _ in range(clean_count)]
        assert taken == list(range(clean_count))
        state = device.save()
        for _ in range(2):
            with pytest.raises(DriverViolation, match=says) as caught:
                device.pop_batch() if batch else device.pop()
            assert caught.value.queue == 7
            assert caught.value.descriptor is not None
            assert caught.value.statement
        assert device.save() == state


@pytest.mark.parametrize("small_batch", [1, 16])
def test_a_head_twice_in_one_move_of_the_index_is_named(small_batch, monkeypatch):
    monkeypatch.setattr(split, "_SMALL_BATCH", small_batch)
    driver = HostileDriver()
    driver.offer([SEGMENT] * SIZE, [3, 4, 3, 5])
    assert driver.device.pop_batch().heads.tolist() == [3, 4]
    with pytest.raises(DriverViolation, match="has not given back") as caught:
        driver.device.pop_batch()
    assert caught.value.descriptor == 3


def test_indirect_without_the_feature_is_named(no_small_batches):
    driver = HostileDriver(indirect=False)
    driver.offer([(INDIRECT_TABLE, 16, INDIRECT, 0)] * SIZE, range(SIZE), indirect_table=[SEGMENT])
    for take in (driver.device.pop, driver.device.pop_batch):
        with pytest.raises(DriverViolation, match="INDIRECT_DESC was not negotiated"):
            take()


def test_an_available_index_that_jumps_too_far_is_named():
    driver = HostileDriver()
    driver.offer([SEGMENT] * SIZE, range(SIZE), index=SIZE + 1)
    for take in (driver.device.pop, driver.device.pop_batch):
        with pytest.raises(DriverViolation, match="idx moved by 17") as caught:
            take()
        assert caught.value.address == AVAILABLE


def test_an_available_index_that_goes_back_is_named():
    driver = HostileDriver()
    driver.offer([SEGMENT] * SIZE, range(4))
    driver.device.pop_batch()
    driver.offer([SEGMENT] * SIZE, range(3))
    with pytest.raises(DriverViolation, match="idx moved by 65535"):
        driver.device.pop()


def test_more_than_4_gib_in_one_chain_is_named(no_small_batches):
    half = (1 << 32, (1 << 31) + 1)  # an address, and a byte more than 2 GiB
    memory = GuestMemory([Region(0, PrivateBacking(DATA)), Region(1 << 32, _Untouched(1 << 32))])
    memory.write(TABLE, pack((*half, NEXT, 1), *[(*half, 0, 0)] * (SIZE - 1)))
    memory.write(AVAILABLE, words(0, 9, *range(2, 10), 0))
    device = SplitDeviceQueue(memory, 0, QueueAddresses(SIZE, TABLE, AVAILABLE, USED), make_features())
    assert len(device.pop_batch()) == 8
    for take in (device.pop, device.pop_batch):
        with pytest.raises(DriverViolation, match=r"more than 2\^32 bytes"):
            take()


class _Untouched(PrivateBacking):
    """Address space only: nothing is ever stored there."""


def test_a_chain_of_exactly_4_gib_is_legal_for_both_paths(no_small_batches):
    half = (1 << 32, 1 << 31)
    memory = GuestMemory([Region(0, PrivateBacking(DATA)), Region(1 << 32, _Untouched(1 << 32))])
    memory.write(TABLE, pack(*[(*half, NEXT * (index % 2 == 0), index + 1) for index in range(SIZE * 2)]))
    memory.write(AVAILABLE, words(0, SIZE, *range(0, SIZE * 2, 2)))
    addresses = QueueAddresses(SIZE * 2, TABLE, AVAILABLE, USED)
    one_by_one = SplitDeviceQueue(memory, 0, addresses, make_features())
    batch = SplitDeviceQueue(memory, 0, addresses, make_features())
    assert [one_by_one.pop() for _ in range(SIZE)] == list(batch.pop_batch())


def test_write_on_an_indirect_descriptor_means_nothing(no_small_batches):
    driver = HostileDriver()
    table = [(INDIRECT_TABLE, 32, INDIRECT | WRITE, 0)] * SIZE
    driver.offer(table, range(SIZE), indirect_table=[(DATA, 16, NEXT, 1), (DATA + 16, 8, WRITE, 0)])
    expected = (((DATA, 16),), ((DATA + 16, 8),))
    first = driver.device.pop()
    assert (first.readable, first.writable) == expected
    assert {(chain.readable, chain.writable) for chain in driver.device.pop_batch()} == {expected}


def test_normal_descriptors_may_be_followed_by_one_indirect(no_small_batches):
    driver = HostileDriver(size=SIZE)
    table = [(DATA, 4, NEXT, 12), *[(DATA, 4, NEXT, 12)] * 11, (INDIRECT_TABLE, 16, INDIRECT, 0)] + [SEGMENT] * 3
    driver.offer(table, range(10), indirect_table=[(DATA + 64, 8, WRITE, 0)])
    one = driver.device.pop()
    assert (one.readable, one.writable) == (((DATA, 4),), ((DATA + 64, 8),))
    assert len(driver.device.pop_batch()) == 9


def test_an_empty_segment_is_legal(no_small_batches):
    driver = HostileDriver()
    driver.offer([(RAM_END, 0, 0, 0)] * SIZE, range(SIZE))
    assert driver.device.pop().readable == ((RAM_END, 0),)
    assert len(driver.device.pop_batch()) == SIZE - 1


def test_tables_of_a_hostile_driver_cost_the_batch_path_little(monkeypatch, no_small_batches):
    monkeypatch.setattr(descriptor_batch, "_SEGMENT_BUDGET", 64)
    driver = HostileDriver()
    inner = [(DATA, 1, NEXT, index + 1) for index in range(SIZE - 1)] + [SEGMENT]
    driver.offer([(INDIRECT_TABLE, 16 * SIZE, INDIRECT, 0)] * SIZE, range(SIZE), indirect_table=inner)
    sizes = []
    while len(batch := driver.device.pop_batch()):
        assert len(batch.addresses) == SIZE * len(batch)
        sizes.append(len(batch))
    assert sum(sizes) == SIZE
    assert max(sizes) <= 64 // SIZE


@pytest.mark.parametrize(
    ("addresses", "says"),
    [
        (QueueAddresses(0, TABLE, AVAILABLE, USED), "no queue size"),
        (QueueAddresses(24, TABLE, AVAILABLE, USED), "no queue size"),
        (QueueAddresses(65536, TABLE, AVAILABLE, USED), "no queue size"),
        (QueueAddresses(16, 8, AVAILABLE, USED), "descriptor area is not a multiple of 16"),
        (QueueAddresses(16, TABLE, AVAILABLE + 1, USED), "driver area is not a multiple of 2"),
        (QueueAddresses(16, TABLE, AVAILABLE, USED + 2), "device area is not a multiple of 4"),
        (QueueAddresses(16, RAM_END - 128, AVAILABLE, USED), "descriptor area .* not wholly in RAM"),
        (QueueAddresses(16, TABLE, DATA - 4, USED), "driver area .* not wholly in RAM"),
        (QueueAddresses(16, TABLE, AVAILABLE, LIMIT_64 - 3), "device area .* not wholly in RAM"),
    ],
)
def test_areas_that_cannot_be_are_refused(addresses, says):
    with pytest.raises(DriverViolation, match=says):
        SplitDeviceQueue(HostileDriver().memory, 0, addresses, 0)


@pytest.mark.parametrize(
    "state",
    [
        QueueState(next_avail=65536),
        QueueState(next_used=-1),
        QueueState(outstanding=(1,)),
        QueueState(next_avail=17),
        QueueState(next_avail=2, outstanding=(3, 3)),
        QueueState(next_avail=1, outstanding=(3,), descriptor_counts=(1,)),
        QueueState(next_avail=1, outstanding=(16,)),
        QueueState(unsignalled_count=-1),
    ],
)
def test_a_saved_state_that_contradicts_itself_is_refused(state):
    device = HostileDriver().device
    with pytest.raises(ValueError, match=r"\d"):
        device.restore(state)
    assert device.save() == QueueState()


def test_the_device_author_cannot_give_back_what_was_not_taken():
    driver = HostileDriver()
    driver.offer([SEGMENT] * SIZE, range(SIZE))
    heads = driver.device.pop_batch(4).heads
    state = driver.device.save()
    for wrong in ([0, 4], [0, 0], [-1], [SIZE]):
        with pytest.raises(ValueError, match="head"):
            driver.device.push_batch(np.array(wrong), np.zeros(len(wrong), np.int64))
    for wrong in (4, -1, SIZE):
        with pytest.raises(ValueError, match="not outstanding"):
            driver.device.push(wrong, 0)
    for wrong in (-1, 1 << 32):
        with pytest.raises(ValueError, match="written size"):
            driver.device.push(0, wrong)
        with pytest.raises(ValueError, match="written size"):
            driver.device.push_batch(heads[:1], np.array([wrong]))
    with pytest.raises(ValueError, match="2 heads and 1 written sizes"):
        driver.device.push_batch(heads[:2], np.array([0]))
    assert driver.device.save() == state


# Any table at all

addresses = st.sampled_from([0, INDIRECT_TABLE, INDIRECT_TABLE + 16, DATA - 16, DATA, RAM_END - 16, RAM_END, LIMIT_64])
sizes = st.sampled_from([0, 1, 16, 32, 48, 16 * 17, 0xFFFF_FFFF])


@st.composite
def descriptors(draw, count, flags):
    """Mostly legal, so that a chain gets somewhere before it goes wrong."""
    return [
        (
            draw(addresses) if draw(st.integers(0, 5)) == 0 else INDIRECT_TABLE,
            draw(sizes) if draw(st.integers(0, 3)) == 0 else 32,
            draw(flags),
            draw(st.integers(0, count)),
        )
        for _ in range(count)
    ]


@st.composite
def hostile_rings(draw):
    flags = st.sampled_from([0, 0, 0, NEXT, NEXT, NEXT | WRITE, WRITE, INDIRECT, INDIRECT | WRITE, INDIRECT | NEXT])
    inner_flags = st.sampled_from([0, 0, 0, NEXT, NEXT, NEXT | WRITE, WRITE, WRITE, INDIRECT])
    table = draw(descriptors(SIZE, flags))
    heads = draw(st.permutations(range(SIZE)))
    if draw(st.integers(0, 3)) == 0:
        heads[draw(st.integers(0, SIZE - 1))] = draw(st.integers(0, SIZE))
    return table, draw(descriptors(SIZE + 1, inner_flags)), heads, draw(st.booleans())


def model_chain(driver, head, indirect):
    """The model's answer: segments, or None for refused."""
    try:
        return read_chain(driver.memory, TABLE, SIZE, head, indirect=indirect)
    except Refused:
        return None


def taken_from(device, take):
    """What `take` gets until it gets nothing or a violation: chains as the model has them, and the error's text."""
    chains = []
    try:
        while got := take(device):
            chains += [(chain.head, (list(chain.readable), list(chain.writable))) for chain in got]
    except DriverViolation as violation:
        return chains, str(violation)
    return chains, None


@given(ring=hostile_rings())
def test_both_paths_and_the_model_agree_on_any_table(ring):
    table, indirect_table, heads, indirect = ring
    driver = HostileDriver(indirect=indirect)
    driver.offer(table, heads, indirect_table=indirect_table)
    descriptors = DescriptorTable(driver.memory, TABLE, SIZE, indirect=indirect, number=0)

    for head in range(SIZE):
        expected = model_chain(driver, head, indirect)
        batch = clean_prefix(descriptors, np.array([head]))
        if expected is None:
            assert not len(batch)
            with pytest.raises(DriverViolation):
                descriptors.chain(head)
        else:
            chain = descriptors.chain(head)
            assert (list(chain.readable), list(chain.writable)) == expected
            assert list(batch) == [chain]

    expected_chains = []
    for head in heads:
        is_free = head < SIZE and head not in dict(expected_chains)
        if not is_free or (chain := model_chain(driver, head, indirect)) is None:
            break
        expected_chains.append((head, chain))
    one_by_one = taken_from(driver.new_device(), lambda device: [chain] if (chain := device.pop()) else [])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(split, "_SMALL_BATCH", 1)
        batched = taken_from(driver.new_device(), lambda device: list(device.pop_batch()))
    assert one_by_one == batched
    assert one_by_one[0] == expected_chains
    assert (one_by_one[1] is None) == (len(expected_chains) == len(heads))


# A hostile device

HOLD = 4


def used_by(ends, *entries, index=None):
    """The device's ring, written by hand: entries are (id, len)."""
    address = ends.driver.addresses.device
    ends.memory.write(address + 4, b"".join(struct_of(USED_ELEMENT).pack(*entry) for entry in entries))
    ends.memory.write(address + 2, words(len(entries) if index is None else index))


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ((16, 0), "id 16 in a table of 16"),
        ((0xFFFF_FFFF, 0), "in a table of 16"),
        ((15, 0), "does not hold"),
        ((13, 0), "does not hold"),
        ((0, 0), "does not hold"),
        ((12, 33), "33 bytes written into 32"),
    ],
)
@pytest.mark.parametrize("clean_count", [1, 8])
@pytest.mark.parametrize("batch", [False, True])
def test_a_used_entry_that_breaks_the_text_is_named(entry, says, clean_count, batch):
    ends = make_ends(16)
    for token in range(13):
        assert ends.driver.add([], [(0, 32)], token) == token
    ends.driver.publish()
    assert ends.driver.add([], [(0, 32)], 99) == 13  # not published: the device cannot have it
    used_by(ends, *[(head, 32) for head in range(clean_count)], entry)
    if batch:
        assert ends.driver.collect_batch().tokens.tolist() == list(range(clean_count))
    else:
        assert [ends.driver.collect().token for _ in range(clean_count)] == list(range(clean_count))
    free_count = ends.driver.free_count
    for _ in range(2):
        with pytest.raises(DeviceViolation, match=says) as caught:
            ends.driver.collect_batch() if batch else ends.driver.collect()
        assert caught.value.statement == "The Virtqueue Used Ring"
    assert ends.driver.free_count == free_count


@pytest.mark.parametrize("index", [5, 65535])
def test_a_used_index_that_jumps_too_far_is_named(index):
    ends = make_ends(16)
    for token in range(HOLD):
        ends.driver.add([], [(0, 32)], token)
    ends.driver.publish()
    used_by(ends, index=index)
    for take in (ends.driver.collect, ends.driver.collect_batch):
        with pytest.raises(DeviceViolation, match=f"idx moved by {index}, but the device holds 4"):
            take()


@given(
    entries=st.lists(st.tuples(st.integers(0, 17), st.integers(0, 40)), max_size=16),
    index=st.integers(0, 17) | st.just(65535),
)
def test_both_paths_of_the_driver_agree_on_any_used_ring(entries, index):
    results = []
    for batch in (False, True):
        ends = make_ends(16)
        for token in range(10):
            ends.driver.add([(0, 8)], [(0, token)], token, indirect=bool(token % 2))
        ends.driver.publish()
        used_by(ends, *entries, index=index)
        taken, error = [], None
        try:
            if batch:
                while len((got := ends.driver.collect_batch()).tokens):
                    taken += zip(*[column.tolist() for column in got], strict=True)
            else:
                while (used := ends.driver.collect()) is not None:
                    taken.append(tuple(used))
        except DeviceViolation as violation:
            error = str(violation)
        results.append((taken, error, ends.driver.free_count))
    assert results[0] == results[1]


def test_the_used_ring_is_left_alone_by_the_device_until_it_uses_something():
    driver = HostileDriver()
    before = driver.memory.read(USED, PAGE_SIZE)
    driver.new_device()
    assert driver.memory.read(USED, PAGE_SIZE) == before
