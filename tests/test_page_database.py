"""The guest's tables in RAM: each store marked, each store in the digest, layouts as declared."""

import numpy as np
import pytest
from guest_setup import memory_of, new_allocator, pages_of
from hypothesis import given
from hypothesis import strategies as st

from guest_agent.checksum import page_checks, page_checksums
from guest_agent.errors import GuestCorruption
from guest_agent.marked_ram import MarkedRam
from guest_agent.page_database import ENTRY_SIZE, PAGE_ENTRY, Owner, PageDatabase
from guest_agent.ram_layout import BOOT_PAGE, OBJECT, BootPage, aligned_blocks
from spec.layout import dtype_of
from vdev.memory import PAGE_SIZE

FIELDS = ["head", "owner", "version", "next", "previous", "check"]


def database_on(page_count=600, marks=True):
    memory = memory_of((0x20_0000, page_count), marks=marks)
    return PageDatabase(MarkedRam(memory), memory.address_of(1)), memory


def test_sizes_are_what_the_layout_of_ram_counts_on():
    assert dtype_of(PAGE_ENTRY).itemsize == PAGE_ENTRY.sizeof() == ENTRY_SIZE
    assert dtype_of(OBJECT).itemsize == 16
    assert dtype_of(BOOT_PAGE).itemsize <= PAGE_SIZE


def test_an_entry_reads_back_through_construct():
    database, memory = database_on()
    for value, name in enumerate(FIELDS, 1):
        getattr(database, name)[417] = value
    entry = PAGE_ENTRY.parse(memory.read(memory.address_of(1) + 417 * ENTRY_SIZE, ENTRY_SIZE))
    assert [entry[name] for name in FIELDS] == [1, 2, 3, 4, 5, 6]


@given(st.lists(st.integers(0, 599), min_size=1, max_size=50, unique=True), st.sampled_from(FIELDS), st.booleans())
def test_each_store_marks_its_page_and_no_other(entries, field, bulk):
    database, memory = database_on()
    column = getattr(database, field)
    if bulk:
        column.put(np.array(entries), 255)
    else:
        for entry in entries:
            column[entry] = 255
    written = np.flatnonzero(pages_of(memory).any(axis=1))
    assert np.flatnonzero(memory.page_marks.marks).tolist() == written.tolist()


@given(st.lists(st.tuples(st.integers(0, 599), st.sampled_from(FIELDS), st.integers(0, 255)), max_size=60))
def test_the_digest_is_the_same_whether_stored_one_by_one_or_in_bulk(stores):
    one, _ = database_on()
    many, _ = database_on()
    final = {}
    for entry, field, value in stores:
        getattr(one, field)[entry] = value
        final[field, entry] = value
    for field in FIELDS:
        entries = [entry for name, entry in final if name == field]
        values = np.array([final[field, entry] for entry in entries], np.uint64)
        getattr(many, field).put(np.array(entries, np.int64), values)
    assert one.ram.digest == many.ram.digest == one.ram.recompute_digest() == many.ram.recompute_digest()


@given(st.integers(4096, 4096 + 600 * ENTRY_SIZE - 1), st.integers(1, 255))
def test_the_digest_misses_no_change_of_one_byte(offset, change):
    database, memory = database_on()
    database.check.put(np.arange(600), np.arange(600, dtype=np.uint64) * 12345)
    place = (offset - 4096) % ENTRY_SIZE
    data = memory.bytes_view(memory.address_of(0), memory.size)
    data[offset] ^= change
    in_a_gap = place in (2, 3) or place >= 24
    assert (database.ram.recompute_digest() == database.ram.digest) is in_a_gap


def test_two_entries_that_changed_places_change_the_digest():
    database, memory = database_on()
    database.check.put(np.arange(600), np.arange(600, dtype=np.uint64))
    table = memory.bytes_view(memory.address_of(1), 600 * ENTRY_SIZE).reshape(600, ENTRY_SIZE)
    table[[10, 300]] = table[[300, 10]]
    assert database.ram.recompute_digest() != database.ram.digest


def test_pages_can_be_looked_at_but_not_stored_to_behind_the_marks():
    database, _ = database_on()
    with pytest.raises(ValueError, match="read-only"):
        database.owner.array[3] = 1
    with pytest.raises(ValueError, match="read-only"):
        database.ram.run(3, 1)[0, 0] = 1


def test_a_run_is_marked_when_its_block_ends_even_by_an_error():
    database, memory = database_on()

    def store():
        with database.ram.storing(40, 3) as live:
            live[0] = 1
            assert not memory.page_marks.marks.any()
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="gone"):
        store()
    assert np.flatnonzero(memory.page_marks.marks).tolist() == [40, 41, 42]


def test_a_run_across_two_regions_is_refused():
    ram = MarkedRam(memory_of((0, 300), (0x40_0000, 300)))
    with pytest.raises(ValueError, match="one region"), ram.storing(299, 2):
        pass


def test_scattered_pages_go_to_their_regions():
    memory = memory_of((0, 300), (0x40_0000, 300), marks=True)
    ram = MarkedRam(memory)
    pages = np.array([599, 2, 301, 299])
    contents = np.arange(4, dtype=np.uint8)[:, None] + np.zeros((4, PAGE_SIZE), np.uint8) + np.uint8(1)
    ram.store_pages(pages, contents)
    assert (ram.load_pages(pages) == contents).all()
    assert [memory.read(memory.address_of(page), 1)[0] for page in pages.tolist()] == [1, 2, 3, 4]
    assert np.flatnonzero(memory.page_marks.marks).tolist() == sorted(pages.tolist())


@pytest.mark.parametrize("entry", [600, 601, 0xFFFF_FFFF])
def test_an_entry_that_cannot_be_is_the_guests_own_fault(entry):
    database, _ = database_on()
    for use in (
        lambda: database.next[entry],
        lambda: database.next.__setitem__(entry, 1),
        lambda: database.next.take(np.array([3, entry])),
        lambda: database.next.put(np.array([3, entry]), 1),
    ):
        with pytest.raises(GuestCorruption, match=f"no entry {entry}"):
            use()


class TestBlocks:
    def test_those_of_an_owner_are_found_by_their_heads(self):
        allocator = new_allocator(memory_of((0, 4096)))
        block = allocator.allocate(7, Owner.BALLOON)
        single = allocator.allocate(0, Owner.BALLOON)
        pages, orders = allocator.blocks_of(Owner.BALLOON)
        assert dict(zip(pages.tolist(), orders.tolist(), strict=True)) == {block: 7, single: 0}
        assert len(allocator.blocks_of(Owner.HINTED).pages) == 0
        assert len(allocator.blocks_of(Owner.HINTED, Owner.BALLOON).pages) == 2

    def test_taking_a_large_block_touches_few_pages_of_the_database(self):
        memory = memory_of((0, 1 << 16), marks=True)
        allocator = new_allocator(memory)
        memory.page_marks.marks[:] = 0
        heads = allocator.take_free_blocks(10, 32, Owner.HINTED)
        assert len(heads) == 32
        assert int(memory.page_marks.marks.sum()) < 3 * 32

    @pytest.mark.parametrize("regions", [((0, 512),), ((0, 3), (5 * PAGE_SIZE, 1029))])
    def test_they_tile_ram(self, regions):
        allocator = new_allocator(memory_of(*regions))
        pages, orders = allocator.database.blocks()
        assert int((1 << orders).sum()) == allocator.database.page_count
        allocator.database.head[int(pages[-1])] = 0
        with pytest.raises(GuestCorruption, match="do not tile RAM"):
            allocator.database.blocks()


@given(st.integers(0, 3000), st.integers(0, 3000), st.integers(-3000, 3000))
def test_aligned_blocks_cover_a_run_with_aligned_blocks(first, size, offset):
    offset = max(offset, -first)
    at = first
    for page, order in aligned_blocks(first, first + size, offset):
        assert page == at
        assert (page + offset) % (1 << order) == 0
        at += 1 << order
    assert at == first + size


class TestBootPage:
    def test_it_is_found_again(self):
        memory = memory_of((0, 600))
        created = BootPage.create(MarkedRam(memory), 7)
        found = BootPage.attach(MarkedRam(memory))
        assert found.reserved_ranges() == created.reserved_ranges()
        assert found.poison_value == 7

    @pytest.mark.parametrize(
        ("field", "value", "message"),
        [
            ("magic", 0, "no boot page"),
            ("version", 9, "version 9"),
            ("page_count", 599, "599 pages on RAM of 600"),
            ("database_address", 0x7000_0000, "not in RAM"),
            ("object_table_address", 0x1001, "not in RAM"),
            ("area_count", 33, "33 driver areas"),
        ],
    )
    def test_one_that_makes_no_sense_is_refused(self, field, value, message):
        memory = memory_of((0, 600))
        BootPage.create(MarkedRam(memory)).header[field][0] = value
        with pytest.raises(GuestCorruption, match=f"page 0: .*{message}"):
            BootPage.attach(MarkedRam(memory))


class TestChecksums:
    @given(st.binary(min_size=1, max_size=PAGE_SIZE), st.integers(0, PAGE_SIZE - 1), st.integers(1, 255))
    def test_one_changed_byte_changes_the_checksum(self, data, offset, change):
        page = np.frombuffer(data.ljust(PAGE_SIZE, b"\x11"), np.uint8).copy().reshape(1, -1)
        before = page_checksums(page)
        page[0, offset] ^= change
        assert page_checksums(page) != before

    def test_many_at_once_are_the_same_as_one_by_one(self):
        pages = np.random.default_rng(1).integers(0, 256, (50, PAGE_SIZE), np.uint8)
        assert page_checksums(pages).tolist() == [int(page_checksums(page[None])[0]) for page in pages]

    def test_a_naive_sum_gives_the_same(self):
        from guest_agent.checksum import _WEIGHTS

        page = np.random.default_rng(2).integers(0, 256, (1, PAGE_SIZE), np.uint8)
        words = [int.from_bytes(page[0, n : n + 8].tobytes(), "little") for n in range(0, PAGE_SIZE, 8)]
        expected = sum(word * weight for word, weight in zip(words, _WEIGHTS.tolist(), strict=True)) % 2**64
        assert page_checksums(page).tolist() == [expected]

    def test_place_owner_and_version_count(self):
        def check(page=5, owner=Owner.WORKLOAD, version=1):
            sums = np.array([77], np.uint64)
            return int(page_checks(sums, np.array([page]), owner, np.array([version], np.uint32))[0])

        assert len({check(), check(page=6), check(owner=Owner.PAGE_CACHE), check(version=2)}) == 4
