"""Guarded guest RAM: whatever somebody else touches is seen, in another mapping as well, and nothing else is."""

import mmap

import pytest

from vdev.check.bench.arena import HIGH_ADDRESS, LOW_ADDRESS, REGION_SIZE, Arena, Place
from vdev.check.bench.stray_pages import reads_are_seen
from vdev.check.bench.touched import Touch
from vdev.errors import GuestAddressError
from vdev.memory import PAGE_SIZE

seen_reads = pytest.mark.skipif(not reads_are_seen(), reason="shared memory has huge pages here")


@pytest.fixture
def arena():
    arena = Arena()
    yield arena
    arena.close()


@pytest.fixture
def other(arena):
    """The same RAM as another process maps it: guest-physical addresses of the low region are offsets."""
    with mmap.mmap(arena.low.fd, 2 * REGION_SIZE) as mapping:
        yield mapping


def kinds(arena):
    return [touched.kind for touched in arena.touched()]


def test_a_buffer_reads_as_it_was_filled_and_nothing_is_touched(arena, other):
    buffer = arena.allocate(100, data=b"abc", what="a buffer")
    assert other[buffer.address : buffer.address + 4] == b"abc\0"
    other[buffer.address : buffer.address + 100] = bytes(range(100))
    assert arena.read(buffer.address, 100) == bytes(range(100))
    assert arena.touched() == []


@pytest.mark.parametrize("offset", [0, 1, 4000, PAGE_SIZE - 3])
def test_a_write_beside_a_buffer_changes_a_canary(arena, other, offset):
    buffer = arena.allocate(200, what="a buffer", offset_in_page=offset)
    other[buffer.address + 200] ^= 1
    (touched,) = arena.touched()
    assert (touched.kind, touched.address, len(touched.data)) == (Touch.CANARY, buffer.address + 200, 1)
    assert touched.name == "canary behind a buffer"


def test_a_write_before_a_buffer_changes_a_canary(arena, other):
    buffer = arena.allocate(200, what="a buffer")
    other[buffer.address - 1] ^= 0xFF
    (touched,) = arena.touched()
    assert (touched.kind, touched.address, touched.name) == (
        Touch.CANARY,
        buffer.address - 1,
        "canary before a buffer",
    )


@seen_reads
def test_a_read_of_the_byte_behind_a_buffer_is_seen(arena, other):
    buffer = arena.allocate(200, what="a buffer")
    other[buffer.address + 200]
    (touched,) = arena.touched()
    assert touched.kind is Touch.GUARD
    assert touched.name == "guard page behind a buffer, read"


@seen_reads
@pytest.mark.parametrize("place", [Place.FIRST, Place.LAST, Place.HIGH])
def test_reads_are_seen_at_every_place(arena, other, place):
    buffer = arena.allocate(2 * PAGE_SIZE, what="a buffer", place=place)
    offset = buffer.address if buffer.address < HIGH_ADDRESS else buffer.address - HIGH_ADDRESS + REGION_SIZE
    assert arena.touched() == []
    other[offset - PAGE_SIZE if place is not Place.FIRST else offset + 2 * PAGE_SIZE]
    assert kinds(arena) == [Touch.GUARD]


def test_a_write_to_a_guard_page_is_shown_with_its_bytes(arena, other):
    address = arena.guard()
    other[address + 5 : address + 8] = b"xyz"
    (touched,) = arena.touched()
    assert (touched.kind, touched.address) == (Touch.GUARD, address + 5)
    assert touched.data.startswith(b"xyz")
    assert touched.name == "guard page far from every buffer, written"


@pytest.mark.parametrize("gap", [0, 40 * PAGE_SIZE])
def test_a_region_that_was_faulted_in_shows_writes_only(arena, other, gap):
    buffer = arena.allocate(200, what="a buffer")
    for page in range(gap, REGION_SIZE, PAGE_SIZE):
        other[page]
    assert arena.touched() == []
    other[buffer.address + 2 * PAGE_SIZE] = 1
    (touched,) = arena.touched()
    assert touched.kind is Touch.GUARD
    assert touched.name.endswith("written")


def test_what_is_held_may_be_changed_by_its_owner_only(arena, other):
    buffer = arena.allocate(64, data=b"table", what="a table")
    held = arena.hold(buffer)
    held.store(10, b"new")
    assert arena.touched() == []
    other[buffer.address + 11] = 0
    (touched,) = arena.touched()
    assert (touched.kind, touched.name, touched.address) == (Touch.HELD, "a table, changed", buffer.address + 11)


def test_what_was_touched_is_told_after_a_buffer_was_released_too(arena, other):
    buffer = arena.allocate(200, data=b"readable", what="a buffer")
    arena.hold(buffer)
    other[buffer.address] = 0
    other[buffer.address - 1] ^= 1
    arena.release(buffer)
    later = arena.allocate(200, what="a later one")
    assert later.address == buffer.address
    assert arena.read(later.address, 200) == bytes(200)
    assert sorted(touched.name for touched in arena.touched()) == ["a buffer, changed", "canary before a buffer"]


def test_buffers_stand_where_they_are_wanted(arena):
    first = arena.allocate(10, what="first", place=Place.FIRST)
    last = arena.allocate(10, what="last", place=Place.LAST)
    straddling = arena.allocate(10, what="straddling", offset_in_page=PAGE_SIZE - 4)
    high = arena.allocate(10, align=16, what="high", place=Place.HIGH)
    empty = arena.allocate(0, what="empty")
    assert first.address == LOW_ADDRESS
    assert last.address + last.size == HIGH_ADDRESS + REGION_SIZE
    assert straddling.address % PAGE_SIZE == PAGE_SIZE - 4
    assert high.address > 1 << 32
    assert high.address % 16 == 0
    assert empty.address % PAGE_SIZE == PAGE_SIZE - 1
    assert arena.touched() == []
    with pytest.raises(MemoryError):
        arena.allocate(1, what="another first", place=Place.FIRST)


def test_an_address_outside_is_in_no_region(arena):
    with pytest.raises(GuestAddressError):
        arena.read(arena.outside(), 1)
    assert arena.user_address(arena.outside()) == arena.outside()


def test_one_region_more_is_guarded_as_the_others(arena):
    region = arena.add_region(4 << 20)
    buffer = arena.allocate(300, what="a buffer", region=region)
    assert region.holds(buffer.address)
    assert region not in arena.regions
    assert arena.user_address(buffer.address) - region.user_address == buffer.address - region.guest_address
    with mmap.mmap(region.fd, region.file_offset + region.size) as mapping:
        mapping[region.file_offset + buffer.address - region.guest_address - 1] ^= 1
    assert kinds(arena) == [Touch.CANARY]
