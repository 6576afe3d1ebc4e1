"""What a device can do to the driver of a packed ring, and how it is named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ring_setup import make_ends

from guest_agent.virtqueue import packed as driver_side
from spec.layout import struct_of
from spec.packed_ring import PACKED_DESCRIPTOR, PackedFlag
from vdev.errors import DeviceViolation

WRITE, AVAIL, USED = int(PackedFlag.WRITE), int(PackedFlag.AVAIL), int(PackedFlag.USED)
_pack = struct_of(PACKED_DESCRIPTOR).pack


def used_by(ends, *entries, at=0):
    """Used descriptors, written by hand: (id, len, flags beside those that make it used in the first lap)."""
    for offset, (buffer_id, size, flags) in enumerate(entries, at):
        ends.memory.write(
            ends.driver.addresses.descriptor + 16 * offset, _pack(0, size, buffer_id, flags ^ (AVAIL | USED))
        )


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ((16, 0, 0), "buffer id 16 in a queue of 16"),
        ((0xFFFF, 0, 0), "in a queue of 16"),
        ((15, 0, 0), "does not hold"),
        ((13, 0, 0), "does not hold"),
        ((0, 0, 0), "does not hold"),
        ((12, 33, WRITE), "33 bytes written into 32"),
    ],
)
@pytest.mark.parametrize("clean_count", [1, 8])
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("in_order", [False, True])
def test_a_used_descriptor_that_breaks_the_text_is_named(entry, says, clean_count, batch, in_order):
    ends = make_ends(16, packed=True, in_order=in_order)
    for token in range(13):
        assert ends.driver.add([], [(0, 32)], token) == token
    ends.driver.publish()
    assert ends.driver.add([], [(0, 32)], 99) == 13  # not published: the device cannot have it
    used_by(ends, *[(head, 32, WRITE) for head in range(clean_count)], entry)
    if batch:
        assert ends.driver.collect_batch().tokens.tolist() == list(range(clean_count))
    else:
        assert [ends.driver.collect().token for _ in range(clean_count)] == list(range(clean_count))
    free_count = ends.driver.free_count
    for _ in range(2):
        with pytest.raises(DeviceViolation, match=says) as caught:
            ends.driver.collect_batch() if batch else ends.driver.collect()
        assert caught.value.descriptor == clean_count
    assert ends.driver.free_count == free_count


def test_a_used_descriptor_without_write_has_no_length():
    ends = make_ends(16, packed=True)
    for token in range(12):
        ends.driver.add([], [(0, 32)], token)
    ends.driver.publish()
    used_by(ends, *[(head, 0xFFFF_FFFF, 0) for head in range(12)])
    assert ends.driver.collect().written_size == 0
    assert not ends.driver.collect_batch().written_sizes.any()
    assert ends.driver.free_count == 16


def test_a_used_descriptor_where_nothing_is_outstanding_is_named():
    ends = make_ends(16, packed=True)
    used_by(ends, (0, 0, 0))
    for take in (ends.driver.collect, ends.driver.collect_batch):
        with pytest.raises(DeviceViolation, match="does not hold"):
            take()


@given(
    entries=st.lists(
        st.none() | st.tuples(st.integers(0, 17), st.integers(0, 40), st.sampled_from([0, WRITE])), max_size=16
    ),
    in_order=st.booleans(),
    chained=st.booleans(),
)
def test_both_paths_of_the_driver_agree_on_any_used_ring(entries, in_order, chained):
    results = []
    for batch in (False, True):
        ends = make_ends(16, packed=True, in_order=in_order)
        for token in range(6 if chained else 10):
            ends.driver.add([(0, 8)], [(0, 2 * token)], token, indirect=bool(token % 2) or not chained)
        ends.driver.publish()
        for offset, entry in enumerate(entries):
            if entry is not None:
                used_by(ends, entry, at=offset)
        taken, error = [], None
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(driver_side, "_SMALL_BATCH", 1)
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
