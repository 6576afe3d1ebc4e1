"""Guest RAM: what is inside it, what is refused, page numbers over several regions, and pages given back for good."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spec.split_ring import DESCRIPTOR
from vdev.errors import GuestAddressError
from vdev.memory import PAGE_SIZE, GuestMemory, MemfdBacking, PageMarks, PageRanges, PrivateBacking, Region

LIMIT_64 = 1 << 64
HIGH = LIMIT_64 - 4 * PAGE_SIZE


def regions(*places):
    return [Region(address, PrivateBacking(pages * PAGE_SIZE)) for address, pages in places]


def three_regions():
    """Two that touch, and one at the very end of the address space: pages 0-3, 4-5, 6-9."""
    return GuestMemory(regions((0x10_0000, 4), (0x10_4000, 2), (HIGH, 4)))


@pytest.mark.parametrize(
    ("address", "size", "says"),
    [
        (0, 1, "outside guest RAM"),
        (0x10_0000 - 1, 2, "outside guest RAM"),
        (0x10_3FFF, 2, "crosses the end of its region at 0x104000"),
        (0x10_6000 - 4, 8, "crosses the end of its region at 0x106000"),
        (0x10_6000, 1, "outside guest RAM"),
        (LIMIT_64 - 8, 16, "past 2^64"),
        (HIGH, LIMIT_64, "past 2^64"),
        (LIMIT_64, 1, "past 2^64"),
        (-1, 1, "negative"),
        (0x10_0000, -1, "negative"),
        (0x10_0000, 1 << 63, "crosses the end"),
    ],
)
def test_a_range_that_is_not_in_one_region_is_refused_by_name(address, size, says):
    memory = three_regions()
    with pytest.raises(GuestAddressError) as caught:
        memory.bytes_view(address, size)
    assert says in str(caught.value)
    assert f"{address:#x}" in str(caught.value)
    assert (caught.value.address, caught.value.size) == (address, size)
    assert not memory.contains(address, size)


def test_a_range_may_end_where_its_region_ends():
    memory = three_regions()
    for address, size in ((0x10_0000, 4 * PAGE_SIZE), (LIMIT_64 - 1, 1), (HIGH, 4 * PAGE_SIZE), (0x10_4000, 0)):
        assert len(memory.read(address, size)) == size
    assert memory.contains(0x10_6000, 0)


boundaries = st.sampled_from([0, 0x10_0000, 0x10_4000, 0x10_6000, HIGH, LIMIT_64 - 1])
ranges = st.tuples(
    st.builds(lambda base, delta: (base + delta) % LIMIT_64, boundaries, st.integers(-20, 20)),
    st.sampled_from([0, 1, 15, 16, PAGE_SIZE, 2 * PAGE_SIZE, 6 * PAGE_SIZE, 1 << 32, LIMIT_64 - 1])
    | st.integers(0, 40),
)


@given(st.lists(ranges, min_size=1, max_size=30))
def test_many_ranges_are_judged_like_one(some):
    memory = three_regions()
    addresses, sizes = np.array(some, np.uint64).T
    assert memory.contains_many(addresses, sizes).tolist() == [memory.contains(*one) for one in some]


def test_regions_must_be_whole_pages_and_apart():
    with pytest.raises(ValueError, match="overlap"):
        GuestMemory(regions((0, 2), (PAGE_SIZE, 2)))
    with pytest.raises(ValueError, match="whole pages"):
        GuestMemory(regions((100, 1)))
    with pytest.raises(ValueError, match="at least one region"):
        GuestMemory([])
    with pytest.raises(GuestAddressError, match=r"past 2\^64"):
        GuestMemory(regions((HIGH, 5)))


# Page numbers


def test_page_numbers_are_dense_over_all_regions():
    memory = GuestMemory(regions((HIGH, 4), (0x10_4000, 2), (0x10_0000, 4)))  # in any order
    assert memory.page_count == 10
    assert memory.size == 10 * PAGE_SIZE
    expected = [0x10_0000 + PAGE_SIZE * page for page in range(6)] + [HIGH + PAGE_SIZE * page for page in range(4)]
    assert [memory.address_of(page) for page in range(10)] == expected
    assert memory.addresses_of(np.arange(10)).tolist() == expected
    assert [memory.page_of(address + 4095) for address in expected] == list(range(10))
    assert memory.pages_of(np.array(expected, np.uint64) + np.uint64(4095)).tolist() == list(range(10))
    assert [memory.region_first_page(region) for region in memory.regions] == [0, 4, 6]
    for page in (-1, 10):
        with pytest.raises(IndexError):
            memory.address_of(page)
    with pytest.raises(GuestAddressError):
        memory.page_of(0)
    with pytest.raises(GuestAddressError, match="0x106000"):
        memory.pages_of(np.array([0x10_0000, 0x10_6000], np.uint64))


@given(st.lists(st.tuples(st.integers(0, 4 * PAGE_SIZE), st.integers(0, 4 * PAGE_SIZE)), max_size=20))
def test_byte_ranges_are_rounded_inwards_to_pages(pairs):
    memory = GuestMemory(regions((0x10_0000, 8)))
    addresses = np.array([0x10_0000 + offset for offset, _ in pairs], np.uint64)
    sizes = np.array([size for _, size in pairs], np.uint64)
    inside = memory.page_ranges_inside(addresses, sizes)
    whole = [
        [page for page in range(8) if offset <= page * PAGE_SIZE and (page + 1) * PAGE_SIZE <= offset + size]
        for offset, size in pairs
    ]
    assert [list(range(*one)) for one in zip(inside.first.tolist(), inside.end.tolist(), strict=True)] == whole


def test_spans_of_pages_come_region_by_region():
    memory = three_regions()
    memory.write(memory.address_of(3), b"a")
    memory.write(memory.address_of(4), b"b")
    spans = [(data[0, 0], low, high) for data, low, high in memory.page_spans(3, 7)]
    assert spans == [(ord("a"), 3, 4), (ord("b"), 4, 6), (0, 6, 7)]


@given(st.lists(st.booleans(), max_size=40), st.integers(0, 5))
def test_page_ranges_are_the_runs_of_a_mask(mask, offset):
    pages = np.flatnonzero(np.array(mask, bool)) + offset
    for runs in (PageRanges.of_mask(np.array(mask, bool), offset), PageRanges.of_pages(pages)):
        assert runs.to_pages().tolist() == pages.tolist()
        assert runs.page_count == len(pages)
        assert (runs.first[1:] > runs.end[:-1]).all()


# Many at once


def test_gather_copies_layouts_of_any_alignment_from_all_regions():
    memory = three_regions()
    places = [0x10_0001, 0x10_4FF3, HIGH, LIMIT_64 - 16, 0x10_0001]
    for number, address in enumerate(places):
        memory.write(address, DESCRIPTOR.build({"addr": address, "len": number, "flags": 1, "next": 2}))
    records = memory.gather(np.array(places, np.uint64), DESCRIPTOR)
    assert records["addr"].tolist() == places
    assert records["len"].tolist() == [4, 1, 2, 3, 4]
    memory.write(HIGH, bytes(16))
    assert records["addr"][2] == HIGH  # a copy: what the other side stores later does not show
    assert len(memory.gather(np.empty(0, np.uint64), DESCRIPTOR)) == 0


def test_gather_refuses_the_first_that_is_not_in_ram():
    memory = three_regions()
    with pytest.raises(GuestAddressError, match="0x103ff8"):
        memory.gather(np.array([0x10_0000, 0x10_3FF8, 0], np.uint64), DESCRIPTOR)


def test_a_view_is_live_and_of_the_layout():
    memory = three_regions()
    view = memory.view(0x10_0000, DESCRIPTOR, 2)
    view["len"][1] = 7
    assert memory.read(0x10_0000 + 24, 4) == b"\x07\0\0\0"
    one = memory.view(0x10_0010, DESCRIPTOR)
    assert one.shape == ()
    assert one["len"] == 7


# Marks


def test_writes_mark_every_page_they_touch_and_no_other():
    memory = three_regions()
    memory.page_marks = PageMarks(memory.page_count)
    memory.write(0x10_0FFF, b"xy")
    memory.mark_written(0x10_5FFF, 1)
    memory.mark_written(HIGH + PAGE_SIZE, PAGE_SIZE)
    memory.mark_written(HIGH + 3 * PAGE_SIZE, 0)
    memory.write(HIGH, b"")
    assert np.flatnonzero(memory.page_marks.marks).tolist() == [0, 1, 5, 7]
    memory.page_marks.mark_pages(np.array([9, 9]))
    assert np.flatnonzero(memory.page_marks.marks).tolist() == [0, 1, 5, 7, 9]


def test_shared_marks_are_seen_through_another_mapping():
    marks, fd = PageMarks.create_shared(100)
    try:
        other = PageMarks(100, fd)
    finally:
        os.close(fd)
    marks.mark(3, 5)
    assert np.flatnonzero(other.marks).tolist() == [3, 4]


# Memory given back


@pytest.mark.parametrize("backing", [PrivateBacking, MemfdBacking])
def test_pages_given_back_read_as_zero_and_cost_nothing(backing):
    memory = GuestMemory([Region(0x10_0000, backing(64 * PAGE_SIZE)), Region(HIGH, backing(4 * PAGE_SIZE))])
    memory.page_marks = PageMarks(memory.page_count)
    for page in range(memory.page_count):
        memory.bytes_view(memory.address_of(page), PAGE_SIZE)[:] = 1 + page
    assert memory.resident_size() == memory.size

    returned = memory.give_back(PageRanges.of((10, 20), (62, 66), (30, 30)))
    assert returned == 14 * PAGE_SIZE
    assert memory.resident_size() == memory.size - returned
    gone = {*range(10, 20), *range(62, 66)}
    assert np.flatnonzero(memory.page_marks.marks).tolist() == sorted(gone)
    for page in range(memory.page_count):
        expected = 0 if page in gone else 1 + page
        assert memory.read(memory.address_of(page), PAGE_SIZE) == bytes([expected]) * PAGE_SIZE


def test_a_memfd_given_back_is_gone_for_every_process_that_maps_it():
    backing = MemfdBacking(8 * PAGE_SIZE)
    other = GuestMemory([Region(0, MemfdBacking(8 * PAGE_SIZE, backing.fd))])
    memory = GuestMemory([Region(0, backing)])
    memory.write(0, bytes([7]) * memory.size)
    assert other.read(5 * PAGE_SIZE, 1) == b"\7"
    blocks = os.fstat(backing.fd).st_blocks
    memory.give_back(PageRanges.of((4, 8)))
    assert os.fstat(backing.fd).st_blocks == blocks // 2
    assert other.read(5 * PAGE_SIZE, 1) == b"\0"
    backing.close()
    backing.close()
    assert memory.read(0, 1) == b"\7"  # the mapping stays


def test_populate_keeps_what_is_there():
    backing = MemfdBacking(8 * PAGE_SIZE)
    backing.data[PAGE_SIZE] = 9
    backing.populate(0, backing.size)
    assert backing.data[PAGE_SIZE] == 9
