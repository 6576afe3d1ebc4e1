"""IN_ORDER, and where a restarted ring goes on: what both formats promise alike."""

import struct

import numpy as np
import pytest
from ring_setup import fill, make_ends

from spec.packed_ring import FIRST_POSITION
from vdev.errors import DeviceViolation, DriverViolation

both_formats = pytest.mark.parametrize("packed", [False, True])


def used_entries(ends):
    """The used entries that the device has written since the ring was made, by place: (id, len)."""
    addresses = ends.driver.addresses
    if ends.driver.notification_data() >> 31:
        raw = ends.memory.read(addresses.descriptor, 16 * addresses.size)
        descriptors = [struct.unpack_from("<QIHH", raw, at) for at in range(0, len(raw), 16)]
        return {
            place: (buffer_id, size)
            for place, (_, size, buffer_id, flags) in enumerate(descriptors)
            if flags & 0x8080 == 0x8080
        }
    raw = ends.memory.read(addresses.device + 4, 8 * addresses.size)
    entries = [struct.unpack_from("<II", raw, at) for at in range(0, len(raw), 8)]
    return {place: entry for place, entry in enumerate(entries) if entry != (0, 0)}


@both_formats
@pytest.mark.parametrize("first_count", [1, 20])
def test_one_used_entry_speaks_for_buffers_that_were_written_completely(packed, first_count):
    ends = make_ends(64, packed=packed, in_order=True)
    fill(ends, 30)
    ends.driver.publish()
    heads = ends.device.pop_batch().heads
    assert heads.tolist() == list(range(30))
    sizes = np.full(30, 4096)
    sizes[[9, 29]] = 5, 6
    ends.device.push_batch(heads, sizes)
    # At the place of the first buffer that it speaks for, with the id of the last.
    assert used_entries(ends) == {0: (9, 5), 10: (29, 6)}
    assert ends.driver.has_used()
    collected = ends.driver.collect_batch(first_count)
    rest = ends.driver.collect_batch()
    assert [*collected.heads.tolist(), *rest.heads.tolist()] == list(range(30))
    assert [*collected.written_sizes.tolist(), *rest.written_sizes.tolist()] == sizes.tolist()
    assert not ends.driver.has_used()
    assert ends.driver.free_count == 64


@both_formats
def test_a_batch_can_be_collected_one_by_one_also_by_another_driver_object(packed):
    ends = make_ends(8, packed=packed, in_order=True, indirect=False)
    for lap in range(6):
        ends.driver.add([(0, 1)], [(0, 4), (8, 4)], 100 * lap)
        fill(ends, 3, first_token=100 * lap + 1)
        ends.driver.publish()
        heads = ends.device.pop_batch().heads
        ends.device.push_batch(heads, np.array([8, 4096, 4096, 7]))
        for token, size in ((0, 8), (1, 4096), (2, 4096), (3, 7)):
            assert ends.driver.has_used()
            used = ends.driver.collect()
            assert (used.token, used.written_size) == (100 * lap + token, size)
            ends.reopen_driver()
        assert ends.driver.collect() is None


@both_formats
def test_a_device_that_writes_every_entry_is_understood_as_well(packed):
    ends = make_ends(8, packed=packed, in_order=True)
    for _ in range(5):
        fill(ends, 7)
        ends.driver.publish()
        for head in ends.device.pop_batch().heads.tolist():
            ends.device.push(head, 4096)
        assert ends.driver.collect_batch().written_sizes.tolist() == [4096] * 7


@both_formats
def test_buffers_may_not_be_given_back_out_of_order(packed):
    ends = make_ends(8, packed=packed, in_order=True)
    fill(ends, 3)
    ends.driver.publish()
    heads = ends.device.pop_batch().heads
    with pytest.raises(ValueError, match="not the oldest"):
        ends.device.push(int(heads[1]), 0)
    for wrong in (heads[::-1], heads[1:], heads[[0, 2]]):
        with pytest.raises(ValueError, match="out of order"):
            ends.device.push_batch(wrong, np.zeros(len(wrong), np.int64))
    ends.device.push_batch(heads, np.zeros(3, np.int64))
    assert ends.driver.collect_batch().heads.tolist() == heads.tolist()


@both_formats
def test_after_a_move_no_entry_is_left_out_whose_buffer_could_be_larger_than_was_written(packed):
    ends = make_ends(8, packed=packed, in_order=True)
    fill(ends, 4)
    ends.driver.publish()
    heads = ends.device.pop_batch().heads
    ends.reopen_device()
    assert ends.device.save().outstanding == tuple(heads.tolist())
    ends.device.push_batch(heads, np.full(4, 4096))
    assert len(used_entries(ends)) == 4
    assert ends.driver.collect_batch().written_sizes.tolist() == [4096] * 4


def test_split_descriptors_are_taken_in_ring_order():
    ends = make_ends(8, in_order=True, indirect=False)
    for token, (count, heads) in enumerate([(3, 0), (3, 3), (2, 6), (3, 0)]):
        assert ends.driver.add([(0, 1)] * count, [], token) == heads
        ends.driver.publish()
        ends.device.push(ends.device.pop().head, 0)
        assert ends.driver.collect().head == heads
    assert ends.driver.add([(0, 1)] * 6, [], 9) == 3
    raw = ends.memory.read(ends.driver.addresses.descriptor, 128)
    nexts = [struct.unpack_from("<HH", raw, 16 * index + 12) for index in (3, 4, 5, 6, 7, 0)]
    assert nexts == [(1, 4), (1, 5), (1, 6), (1, 7), (1, 0), (0, 0)]


@pytest.mark.parametrize("batch", [False, True])
def test_an_entry_for_more_than_the_used_index_covers_is_named(batch):
    ends = make_ends(16, in_order=True)
    fill(ends, 12)
    ends.driver.publish()
    ends.memory.write(ends.driver.addresses.device + 4, struct.pack("<II", 11, 0))
    ends.memory.write(ends.driver.addresses.device + 2, struct.pack("<H", 9))
    for _ in range(2):
        with pytest.raises(DeviceViolation, match="idx does not cover") as caught:
            ends.driver.collect_batch() if batch else ends.driver.collect()
        assert caught.value.descriptor == 11
    assert ends.driver.free_count == 4


@both_formats
@pytest.mark.parametrize("batch", [False, True])
def test_an_entry_in_order_for_a_buffer_that_was_given_back_is_named(packed, batch):
    ends = make_ends(16, packed=packed, in_order=True)
    fill(ends, 12)
    ends.driver.publish()
    ends.device.push_batch(ends.device.pop_batch(2).heads, np.zeros(2, np.int64))
    assert len(ends.driver.collect_batch().heads) == 2
    if packed:
        ends.memory.write(ends.driver.addresses.descriptor + 32, struct.pack("<QIHH", 0, 0, 1, 0x8080))
    else:
        ends.memory.write(ends.driver.addresses.device + 4 + 16, struct.pack("<II", 1, 0))
        ends.memory.write(ends.driver.addresses.device + 2, struct.pack("<H", 12))
    with pytest.raises(DeviceViolation, match="does not hold"):
        ends.driver.collect_batch() if batch else ends.driver.collect()


# Where a restarted ring goes on


@both_formats
def test_a_fresh_ring_has_the_base_that_everybody_starts_from(packed):
    assert make_ends(8, packed=packed).device.ring_base() == (FIRST_POSITION * 0x1_0001 if packed else 0)


@both_formats
@pytest.mark.parametrize("in_order", [False, True])
@pytest.mark.parametrize("moves_before", [False, True])
def test_outstanding_buffers_come_back_when_they_are_the_last_ones(packed, in_order, moves_before):
    ends = make_ends(8, packed=packed, in_order=in_order)
    for lap in range(7):
        fill(ends, 3)
        ends.driver.add([(0, 1)], [(0, 4)], 77, indirect=False)
        ends.driver.publish()
        first, *rest = ends.device.pop_batch()
        ends.device.push(first.head, 0)
        if moves_before:
            ends.reopen_device()
        ends.restart_device()
        again = list(ends.device.pop_batch())
        assert again == rest, lap
        ends.device.push_batch(np.array([chain.head for chain in again]), np.zeros(3, np.int64))
        assert ends.driver.collect_batch().tokens.tolist() == [0, 1, 2, 77]


@both_formats
@pytest.mark.parametrize("moves_before", [False, True])
def test_outstanding_buffers_count_as_taken_when_a_later_one_was_given_back(packed, moves_before):
    ends = make_ends(8, packed=packed)
    fill(ends, 3)
    ends.driver.publish()
    heads = ends.device.pop_batch().heads
    ends.device.push(int(heads[1]), 0)
    if moves_before:
        ends.reopen_device()
    ends.restart_device()
    assert ends.device.pop() is None
    ends.reopen_device()  # a hole in the ring can be saved, too
    fill(ends, 2, first_token=5)
    ends.driver.publish()
    assert len(ends.device.pop_batch()) == 2
    assert ends.driver.collect().token == 1


def test_a_split_ring_whose_used_index_does_not_fit_the_base_is_named():
    ends = make_ends(8)
    with pytest.raises(DriverViolation, match="go on from 9") as caught:
        ends.device.start_from(9)
    assert caught.value.address == ends.driver.addresses.device
    with pytest.raises(ValueError, match="16-bit"):
        ends.device.start_from(1 << 16)
