"""What a hostile driver or device can do to the other side of a packed queue: a named error, and nothing else."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import Refused, read_packed_chain
from ring_setup import make_ends, make_features

import vdev.virtqueue.packed as packed
import vdev.virtqueue.packed_batch as packed_batch
from spec.layout import struct_of
from spec.packed_ring import FIRST_POSITION, PACKED_DESCRIPTOR, EventFlag, PackedFlag
from vdev.errors import DeviceViolation, DriverViolation
from vdev.memory import PAGE_SIZE, GuestMemory, PrivateBacking, Region
from vdev.virtqueue import PackedDeviceQueue, QueueAddresses, QueueState

NEXT, WRITE, INDIRECT = int(PackedFlag.NEXT), int(PackedFlag.WRITE), int(PackedFlag.INDIRECT)
AVAIL, USED = int(PackedFlag.AVAIL), int(PackedFlag.USED)
SIZE = 16
RING, DRIVER_EVENT, DEVICE_EVENT, INDIRECT_TABLE, DATA = 0x0, 0x1000, 0x2000, 0x3000, 0x4000
RAM_END = 0x8000
LIMIT_64 = (1 << 64) - 1


def pack(*descriptors):
    return b"".join(struct_of(PACKED_DESCRIPTOR).pack(*descriptor) for descriptor in descriptors)


def available(*descriptors):
    """The descriptors with the flags that make them available in the first lap."""
    return [(address, size, buffer_id, flags ^ AVAIL) for address, size, buffer_id, flags in descriptors]


def event(position, flags):
    return struct.pack("<HH", position, flags)


class HostileDriver:
    """A ring whose every byte the test chooses; RAM is two regions side by side, so that a range can cross."""

    def __init__(self, size=SIZE, ram_end=RAM_END, **features):
        self.memory = GuestMemory([Region(0, PrivateBacking(DATA)), Region(DATA, PrivateBacking(ram_end - DATA))])
        self.addresses = QueueAddresses(size, RING, DRIVER_EVENT, DEVICE_EVENT)
        self.features = make_features(packed=True, **features)
        self.device = self.new_device()

    def new_device(self):
        return PackedDeviceQueue(self.memory, 7, self.addresses, self.features)

    def offer(self, descriptors, *, indirect_table=(), at=0):
        self.memory.write(RING + 16 * at, pack(*descriptors))
        self.memory.write(INDIRECT_TABLE, pack(*indirect_table))


SEGMENT = (DATA, 16, 0, 0)


def segments(*ids):
    return [(DATA, 16, buffer_id, 0) for buffer_id in ids]


VIOLATIONS = {
    # name: (what the message says, descriptors without AVAIL, which is added, indirect table)
    "a chain whose second descriptor was not made available": (
        "not made available",
        [(DATA, 16, 8, NEXT), (DATA, 16, 8, AVAIL)],
        [],
    ),
    "a chain whose second descriptor is of the other lap": (
        "not made available",
        [(DATA, 16, 8, NEXT), (DATA, 16, 8, AVAIL | USED)],
        [],
    ),
    "a chain with a used descriptor": ("not made available", [(DATA, 16, 8, NEXT), (DATA, 16, 8, USED)], []),
    "readable behind writable": ("readable segment", [(DATA, 16, 8, NEXT | WRITE), (DATA, 16, 8, 0)], []),
    "readable behind writable in an indirect table": (
        "readable segment",
        [(INDIRECT_TABLE, 32, 8, INDIRECT)],
        [(DATA, 16, 0, WRITE), SEGMENT],
    ),
    "INDIRECT and NEXT": ("INDIRECT and NEXT", [(INDIRECT_TABLE, 16, 8, INDIRECT | NEXT), SEGMENT], [SEGMENT]),
    "an indirect descriptor behind others": (
        "in a chain of others",
        [(DATA, 16, 8, NEXT), (INDIRECT_TABLE, 16, 8, INDIRECT)],
        [SEGMENT],
    ),
    "an empty indirect table": ("0 bytes", [(INDIRECT_TABLE, 0, 8, INDIRECT)], []),
    "an indirect table of 24 bytes": ("24 bytes", [(INDIRECT_TABLE, 24, 8, INDIRECT)], [SEGMENT] * 2),
    "an indirect table outside RAM": ("not wholly in RAM", [(RAM_END, 16, 8, INDIRECT)], []),
    "an indirect table across two regions": ("not wholly in RAM", [(DATA - 16, 32, 8, INDIRECT)], []),
    "an indirect table longer than the queue": (
        "17 descriptors for a queue of 16",
        [(INDIRECT_TABLE, 17 * 16, 8, INDIRECT)],
        [SEGMENT] * 17,
    ),
    "a chain that does not end": ("longer than the", [(DATA, 16, 8, NEXT)] * SIZE, []),
    "a segment outside RAM": ("not wholly in RAM", [(RAM_END - 8, 16, 8, 0)], []),
    "a segment across two regions": ("not wholly in RAM", [(DATA - 8, 16, 8, 0)], []),
    "a segment past 2^64": ("not wholly in RAM", [(LIMIT_64 - 7, 16, 8, 0)], []),
    "an empty segment outside RAM": ("not wholly in RAM", [(RAM_END + 1, 0, 8, 0)], []),
    "a buffer id that is still outstanding": ("has not given back", segments(9), []),
    "a buffer id outside the queue": ("buffer id 16 in a queue of 16", segments(16), []),
    "the largest buffer id": ("buffer id 65535 in a queue of 16", segments(0xFFFF), []),
}


@pytest.fixture
def no_small_batches(monkeypatch):
    """The batch path is numpy's however few chains there are."""
    monkeypatch.setattr(packed, "_SMALL_BATCH", 1)


@pytest.mark.parametrize("clean_count", [0, 2, 7])
@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_chain_that_breaks_the_text_is_named_and_changes_nothing(name, clean_count, no_small_batches):
    says, bad, indirect_table = VIOLATIONS[name]
    driver = HostileDriver()
    descriptors = [*segments(9, *range(clean_count)), *bad]
    descriptors = [*descriptors, *segments(*range(10, 26 - len(descriptors)))][:SIZE]
    driver.offer(available(*descriptors), indirect_table=indirect_table)

    for batch in (False, True):
        device = driver.new_device()
        assert device.pop().head == 9
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


def test_next_in_the_last_descriptor_of_a_full_ring_is_named():
    driver = HostileDriver()
    driver.offer(available(*[(DATA, 1, 3, NEXT)] * SIZE))
    for take in (driver.device.pop, driver.device.pop_batch):
        with pytest.raises(DriverViolation, match="longer than the 16 descriptors that are free") as caught:
            take()
        assert caught.value.descriptor == 0


@pytest.mark.parametrize("small_batch", [1, 16])
def test_a_buffer_id_twice_in_one_go_is_named(small_batch, monkeypatch):
    monkeypatch.setattr(packed, "_SMALL_BATCH", small_batch)
    driver = HostileDriver()
    driver.offer(available(*segments(3, 4, 3, 5)))
    assert driver.device.pop_batch().heads.tolist() == [3, 4]
    with pytest.raises(DriverViolation, match="has not given back") as caught:
        driver.device.pop_batch()
    assert caught.value.descriptor == 2


def test_indirect_without_the_feature_is_named(no_small_batches):
    driver = HostileDriver(indirect=False)
    driver.offer(available((INDIRECT_TABLE, 16, 0, INDIRECT)), indirect_table=[SEGMENT])
    for take in (driver.device.pop, driver.device.pop_batch):
        with pytest.raises(DriverViolation, match="INDIRECT_DESC was not negotiated"):
            take()


def test_more_descriptors_than_the_ring_has_are_named():
    driver = HostileDriver()
    driver.offer(available(*segments(*range(SIZE))))
    assert len(driver.device.pop_batch()) == SIZE
    driver.offer([(DATA, 16, buffer_id, USED) for buffer_id in range(SIZE)])  # available in the next lap
    assert driver.device.has_available()
    for take in (driver.device.pop, driver.device.pop_batch):
        with pytest.raises(DriverViolation, match="more than the queue size 16"):
            take()


def test_a_chain_into_descriptors_that_are_not_given_back_is_named(no_small_batches):
    driver = HostileDriver()
    driver.offer(available(*segments(*range(SIZE))))
    heads = driver.device.pop_batch().heads
    driver.device.push_batch(heads[:2], np.zeros(2, np.int64))
    driver.offer([(DATA, 16, 0, USED | NEXT)] * 3)
    for take in (driver.device.pop, driver.device.pop_batch):
        with pytest.raises(DriverViolation, match="longer than the 2 descriptors that are free"):
            take()


@pytest.mark.parametrize("flags", [0, AVAIL | USED, USED])
def test_flags_that_are_of_no_available_descriptor_of_this_lap_are_nothing(flags):
    driver = HostileDriver()
    driver.offer([(DATA, 16, 1, flags)] * SIZE)
    assert not driver.device.has_available()
    assert driver.device.pop() is None
    assert len(driver.device.pop_batch()) == 0


def test_more_than_4_gib_in_one_chain_is_named_and_4_gib_are_legal(no_small_batches):
    memory = GuestMemory([Region(0, PrivateBacking(DATA)), Region(1 << 32, PrivateBacking(1 << 32))])
    half = 1 << 31
    chains = [(1 << 32, half, 1, NEXT), (1 << 32, half, 1, 0), (1 << 32, half, 2, NEXT), (1 << 32, half + 1, 2, 0)]
    memory.write(RING, pack(*available(*chains)))
    addresses = QueueAddresses(SIZE, RING, DRIVER_EVENT, DEVICE_EVENT)
    device = PackedDeviceQueue(memory, 0, addresses, make_features(packed=True))
    assert device.pop_batch().heads.tolist() == [1]
    for take in (device.pop, device.pop_batch):
        with pytest.raises(DriverViolation, match=r"more than 2\^32 bytes"):
            take()


def test_in_an_indirect_table_only_write_means_something(no_small_batches):
    driver = HostileDriver()
    # NEXT, INDIRECT, AVAIL, USED and ids are reserved there, and ignored: also a table in a table.
    table = [(DATA, 16, 77, NEXT | INDIRECT | AVAIL), (DATA + 16, 8, 0xFFFF, WRITE | INDIRECT | USED)]
    driver.offer(
        available(*[(INDIRECT_TABLE, 32, buffer_id, INDIRECT | WRITE) for buffer_id in range(SIZE)]),
        indirect_table=table,
    )
    expected = (((DATA, 16),), ((DATA + 16, 8),))
    first = driver.device.pop()
    assert (first.readable, first.writable) == expected
    rest = driver.device.pop_batch()
    assert {(chain.readable, chain.writable) for chain in rest} == {expected}
    assert len(rest) == SIZE - 1


def test_only_the_last_id_of_a_chain_counts(no_small_batches):
    driver = HostileDriver()
    driver.offer(available((DATA, 4, 0xFFFF, NEXT), (DATA, 4, 5, 0), (DATA, 4, 5, NEXT), (DATA, 4, 6, 0)))
    assert driver.device.pop().head == 5
    assert driver.device.pop_batch().heads.tolist() == [6]


def test_tables_of_a_hostile_driver_cost_the_batch_path_little(monkeypatch, no_small_batches):
    monkeypatch.setattr(packed_batch, "_SEGMENT_BUDGET", 64)
    driver = HostileDriver()
    descriptors = [(INDIRECT_TABLE, 16 * SIZE, buffer_id, INDIRECT) for buffer_id in range(SIZE)]
    driver.offer(available(*descriptors), indirect_table=[(DATA, 1, 0, 0)] * SIZE)
    sizes = []
    real = packed_batch.clean_prefix

    def watched(*arguments):
        batch, counts = real(*arguments)
        sizes.append(len(batch))
        assert len(batch.addresses) == SIZE * len(batch)
        return batch, counts

    monkeypatch.setattr(packed, "clean_prefix", watched)
    assert len(driver.device.pop_batch()) == SIZE
    assert sum(sizes) == SIZE
    assert max(sizes) <= 64 // SIZE


# Under our feet


def test_flags_that_are_taken_back_after_the_look_are_named(monkeypatch):
    driver = HostileDriver()
    driver.offer(available(*segments(1)))
    monkeypatch.setattr(packed, "load_fence", lambda: driver.offer(segments(1)))
    with pytest.raises(DriverViolation, match="not made available"):
        driver.device.pop()
    assert driver.device.save() == driver.new_device().save()


def test_flags_that_are_taken_back_while_a_batch_is_read_end_it(monkeypatch, no_small_batches):
    driver = HostileDriver()
    driver.offer(available(*segments(*range(8))))
    with monkeypatch.context() as patch:
        patch.setattr(packed_batch, "load_fence", lambda: driver.offer(segments(5), at=5))
        assert driver.device.pop_batch().heads.tolist() == list(range(5))
    assert driver.device.pop() is None


def test_a_chain_is_used_as_it_was_when_it_was_checked(no_small_batches):
    driver = HostileDriver()
    descriptors = [(INDIRECT_TABLE, 16, buffer_id, INDIRECT) for buffer_id in range(4)]
    driver.offer(available(*descriptors), indirect_table=[SEGMENT])
    first, rest = driver.device.pop(), driver.device.pop_batch()
    driver.offer(available(*[(RAM_END, 16, 9, 0)] * 4), indirect_table=[(RAM_END, 16, 0, 0)])
    assert [chain.readable for chain in (first, *rest)] == [((DATA, 16),)] * 4


# Where and in which state


@pytest.mark.parametrize(
    ("addresses", "says"),
    [
        (QueueAddresses(0, RING, DRIVER_EVENT, DEVICE_EVENT), "no queue size"),
        (QueueAddresses(32769, RING, DRIVER_EVENT, DEVICE_EVENT), "no queue size"),
        (QueueAddresses(16, 8, DRIVER_EVENT, DEVICE_EVENT), "descriptor area is not a multiple of 16"),
        (QueueAddresses(16, RING, DRIVER_EVENT + 2, DEVICE_EVENT), "driver area is not a multiple of 4"),
        (QueueAddresses(16, RING, DRIVER_EVENT, DEVICE_EVENT + 2), "device area is not a multiple of 4"),
        (QueueAddresses(16, RAM_END - 240, DRIVER_EVENT, DEVICE_EVENT), "descriptor area .* not wholly in RAM"),
        (QueueAddresses(16, RING, RAM_END, DEVICE_EVENT), "driver area .* not wholly in RAM"),
        (QueueAddresses(16, RING, DRIVER_EVENT, LIMIT_64 - 3), "device area .* not wholly in RAM"),
    ],
)
def test_areas_that_cannot_be_are_refused(addresses, says):
    with pytest.raises(DriverViolation, match=says):
        PackedDeviceQueue(HostileDriver().memory, 0, addresses, 0)


@pytest.mark.parametrize(
    "state",
    [
        QueueState(next_avail=16 | FIRST_POSITION, next_used=FIRST_POSITION),
        QueueState(next_avail=FIRST_POSITION, next_used=1 << 16),
        QueueState(next_avail=FIRST_POSITION, next_used=FIRST_POSITION, outstanding=(1,), descriptor_counts=(1,)),
        QueueState(next_avail=FIRST_POSITION | 2, next_used=FIRST_POSITION, outstanding=(1,)),
        QueueState(next_avail=FIRST_POSITION | 2, next_used=FIRST_POSITION, outstanding=(1,), descriptor_counts=(3,)),
        QueueState(FIRST_POSITION | 2, FIRST_POSITION, outstanding=(1, 2), descriptor_counts=(0, 2)),
        QueueState(FIRST_POSITION | 2, FIRST_POSITION, outstanding=(3, 3), descriptor_counts=(1, 1)),
        QueueState(FIRST_POSITION | 1, FIRST_POSITION, outstanding=(16,), descriptor_counts=(1,)),
        QueueState(next_avail=1, next_used=FIRST_POSITION),
        QueueState(FIRST_POSITION, FIRST_POSITION, unsignalled_count=-1),
    ],
)
def test_a_saved_state_that_contradicts_itself_is_refused(state):
    device = HostileDriver().device
    with pytest.raises(ValueError, match=r"\d"):
        device.restore(state)
    assert device.save() == QueueState(next_avail=FIRST_POSITION, next_used=FIRST_POSITION)


@pytest.mark.parametrize("base", [16, 16 | FIRST_POSITION, 1 | FIRST_POSITION, 1 << 32 | FIRST_POSITION, -1])
def test_a_base_that_no_ring_can_have_is_refused(base):
    with pytest.raises(ValueError, match="queue 7"):
        HostileDriver().device.start_from(base)


@pytest.mark.parametrize("in_order", [False, True])
def test_the_device_author_cannot_give_back_what_was_not_taken(in_order):
    driver = HostileDriver(in_order=in_order)
    driver.offer(available(*segments(*range(SIZE))))
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
    if in_order:
        with pytest.raises(ValueError, match="not the oldest"):
            driver.device.push(1, 0)
        for wrong in ([1, 0], [1], [0, 2]):
            with pytest.raises(ValueError, match="out of order"):
                driver.device.push_batch(np.array(wrong), np.zeros(len(wrong), np.int64))
    assert driver.device.save() == state


def test_the_device_stores_nothing_until_it_uses_something():
    driver = HostileDriver()
    before = driver.memory.read(0, DATA)
    driver.new_device()
    assert driver.memory.read(0, DATA) == before
    assert len(before) > PAGE_SIZE


# Wishes that mean nothing

WISHES = [
    (event(SIZE | FIRST_POSITION, EventFlag.DESC), {}, "descriptor 16 of 16"),
    (event(0x7FFF, EventFlag.DESC), {}, "descriptor 32767 of 16"),
    (event(0, 3), {}, "reserved event flags 3"),
    (event(FIRST_POSITION, EventFlag.DESC), {"event_idx": False}, "EVENT_IDX was not negotiated"),
]


@pytest.mark.parametrize(("wish", "features", "says"), WISHES)
def test_a_drivers_wish_that_means_nothing_is_named(wish, features, says):
    driver = HostileDriver(**features)
    driver.offer(available(*segments(1)))
    driver.device.push(driver.device.pop().head, 0)
    driver.memory.write(DRIVER_EVENT, wish)
    state = driver.device.save()
    for _ in range(2):
        with pytest.raises(DriverViolation, match=says) as caught:
            driver.device.should_call()
        assert caught.value.address == DRIVER_EVENT
    assert driver.device.save() == state


@pytest.mark.parametrize(("wish", "features", "says"), WISHES)
def test_a_devices_wish_that_means_nothing_is_named(wish, features, says):
    ends = make_ends(SIZE, packed=True, **features)
    ends.driver.add([(0, 1)], [], 1)
    ends.driver.publish()
    ends.memory.write(ends.driver.addresses.device, wish)
    for _ in range(2):
        with pytest.raises(DeviceViolation, match=says) as caught:
            ends.driver.should_kick()
        assert caught.value.address == ends.driver.addresses.device


def test_reserved_bits_of_a_wish_are_ignored():
    driver = HostileDriver()
    driver.offer(available(*segments(1)))
    driver.device.push(driver.device.pop().head, 0)
    driver.memory.write(DRIVER_EVENT, event(0xFFFF, 0xFFFC | EventFlag.DISABLE))
    assert not driver.device.should_call()


# Any ring at all

addresses = st.sampled_from([0, INDIRECT_TABLE, INDIRECT_TABLE + 16, DATA - 16, DATA, RAM_END - 16, RAM_END, LIMIT_64])
sizes = st.sampled_from([0, 1, 16, 32, 48, 16 * 17, 0xFFFF_FFFF])


@st.composite
def descriptors(draw, count, flags, ids):
    """Mostly legal, so that a chain gets somewhere before it goes wrong."""
    return [
        (
            draw(addresses) if draw(st.integers(0, 9)) == 0 else INDIRECT_TABLE,
            draw(sizes) if draw(st.integers(0, 7)) == 0 else 32,
            buffer_id,
            draw(flags),
        )
        for buffer_id in ids
    ]


@st.composite
def hostile_rings(draw):
    ids = draw(st.permutations(range(SIZE)))
    if draw(st.integers(0, 3)) == 0:
        ids[draw(st.integers(0, SIZE - 1))] = draw(st.integers(0, SIZE))
    flags = st.sampled_from([0, 0, 0, NEXT, NEXT, NEXT | WRITE, WRITE, INDIRECT, INDIRECT | WRITE, INDIRECT | NEXT])
    ring = draw(descriptors(SIZE, flags, ids))
    if draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, SIZE - 1))
        ring[at] = (*ring[at][:3], ring[at][3] ^ draw(st.sampled_from([AVAIL, USED, AVAIL | USED])))
    inner_flags = st.sampled_from([0, 0, 0, NEXT, WRITE, WRITE, INDIRECT])
    table = draw(descriptors(SIZE + 1, inner_flags, range(SIZE + 1)))
    return ring, table, draw(st.booleans()), draw(st.integers(0, 2 * SIZE - 1))


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
def test_both_paths_and_the_model_agree_on_any_ring(ring):
    offered, table, indirect, start = ring
    driver = HostileDriver(indirect=indirect)
    at_place = [(start + number) % (2 * SIZE) for number in range(SIZE)]
    turned = [one for _, one in sorted(zip([place % SIZE for place in at_place], offered, strict=True))]
    laps = {place % SIZE: place // SIZE for place in at_place}
    turned = [(*one[:3], one[3] ^ (USED if laps[offset] else AVAIL)) for offset, one in enumerate(turned)]
    driver.offer(turned, indirect_table=table)
    position = start % SIZE | (0 if start // SIZE else FIRST_POSITION)

    def new_device():
        device = driver.new_device()
        device.restore(QueueState(next_avail=position, next_used=position))
        return device

    expected, place, refused = [], start, False
    while place < start + SIZE:
        try:
            readable, writable, buffer_id, count = read_packed_chain(
                driver.memory, RING, SIZE, place, start + SIZE - place, indirect=indirect
            )
        except Refused:
            refused = True
            break
        if buffer_id in dict(expected):
            break
        expected.append((buffer_id, (readable, writable)))
        place += count
    one_by_one = taken_from(new_device(), lambda device: [chain] if (chain := device.pop()) else [])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed, "_SMALL_BATCH", 1)
        batched = taken_from(new_device(), lambda device: list(device.pop_batch()))
    assert one_by_one == batched
    assert one_by_one[0] == expected
    if one_by_one[1] is None:
        # Either all was taken, or the next one was not made available at all.
        assert not refused or not new_device()._ring.is_available(place % (2 * SIZE))
