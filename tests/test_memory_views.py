"""Many ranges of guest RAM at once: the same bytes, marks and errors as one by one."""

import numpy as np
import pytest
from guest_setup import memory_of
from hypothesis import given
from hypothesis import strategies as st

from vdev.errors import GuestAddressError
from vdev.memory import PAGE_SIZE, GuestMemory

SHAPES = {
    "one region from 0": ((0, 8),),
    "one region elsewhere": ((0x40_0000, 8),),
    "three, two of them neighbours": ((0, 3), (3 * PAGE_SIZE, 2), (0x1_0000_0000, 5)),
}
RECORD = np.dtype([("a", "<u8"), ("b", "<u4"), ("c", "<u4")])
ODD = np.dtype([("a", "<u8"), ("b", "<u2")])


def noisy(shape):
    memory = memory_of(*SHAPES[shape], marks=True)
    for number, region in enumerate(memory.regions):
        region.backing.data[:] = np.random.default_rng(number).integers(0, 256, region.size, np.uint8)
    return memory


@st.composite
def ranges(draw):
    """A memory, and ranges that lie in it, touch its ends, or miss it."""
    memory = noisy(draw(st.sampled_from(sorted(SHAPES))))
    edges = [edge for region in memory.regions for edge in (region.guest_address, region.end)]
    nearby = st.builds(lambda edge, off: (edge + off) % 2**64, st.sampled_from(edges), st.integers(-9000, 9000))
    anywhere = st.integers(0, 2**64 - 1)
    addresses = draw(st.lists(nearby | nearby | nearby | anywhere, max_size=12))
    sizes = draw(st.lists(st.sampled_from([0, 1, 7, 16, 4096, 9000]), min_size=12, max_size=12))[: len(addresses)]
    return memory, addresses, sizes


def arrays(addresses, sizes):
    return np.array(addresses, np.uint64), np.array(sizes, np.uint64)


@given(ranges())
def test_views_of_many_ranges_are_the_views_of_each(drawn):
    memory, addresses, sizes = drawn
    inside = [memory.contains(*pair) for pair in zip(addresses, sizes, strict=True)]
    assert memory.contains_many(*arrays(addresses, sizes)).tolist() == inside
    if all(inside):
        views = memory.byte_views(*arrays(addresses, sizes))
        assert [bytes(view) for view in views] == [memory.read(*pair) for pair in zip(addresses, sizes, strict=True)]
        return
    bad = inside.index(False)
    with pytest.raises(GuestAddressError) as error:
        memory.byte_views(*arrays(addresses, sizes))
    assert (error.value.address, error.value.size) == (addresses[bad], sizes[bad])


@given(ranges())
def test_marks_of_many_ranges_are_the_marks_of_each(drawn):
    memory, addresses, sizes = drawn
    pairs = [pair for pair in zip(addresses, sizes, strict=True) if memory.contains(*pair)]
    memory.mark_written_many(*arrays(*(zip(*pairs, strict=True) if pairs else ((), ()))))
    marks, memory.page_marks.marks[:] = memory.page_marks.marks.copy(), 0
    for pair in pairs:
        memory.mark_written(*pair)
    assert (memory.page_marks.marks == marks).all()


@given(ranges(), st.sampled_from([RECORD, ODD]), st.booleans())
def test_records_of_any_alignment_are_gathered(drawn, layout, is_aligned):
    memory, addresses, _ = drawn
    addresses = [address // 8 * 8 if is_aligned else address for address in addresses]
    inside = [memory.contains(address, layout.itemsize) for address in addresses]
    if all(inside):
        gathered = memory.gather(np.array(addresses, np.uint64), layout)
        assert gathered.tobytes() == b"".join(memory.read(address, layout.itemsize) for address in addresses)
        return
    with pytest.raises(GuestAddressError) as error:
        memory.gather(np.array(addresses, np.uint64), layout)
    assert (error.value.address, error.value.size) == (addresses[inside.index(False)], layout.itemsize)


def test_what_was_gathered_is_a_copy():
    memory = GuestMemory.private(PAGE_SIZE)
    gathered = memory.gather(np.array([16], np.uint64), RECORD)
    memory.write(16, b"\xff" * 16)
    assert gathered.tobytes() == bytes(16)
