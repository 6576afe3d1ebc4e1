"""The buddy allocator's promises that a reader wants to see one by one."""

import numpy as np
import pytest
from guest_setup import ODD_REGIONS, attached_allocator, memory_of, new_allocator, pages_of

from guest_agent.errors import GuestCorruption
from guest_agent.page_database import NO_PAGE, Owner
from vdev.errors import UserError
from vdev.events import EventStream, PagesAllocated, PagesFreed
from vdev.memory import PAGE_SIZE

MIB = 1 << 20
W = Owner.WORKLOAD


def with_2_mib():
    return new_allocator(memory_of((0, 512)))


@pytest.mark.parametrize("page_count", [3, 4, 5, 511, 512, 513, 1023, 1025, 1 << 14, (1 << 14) + 77])
def test_every_page_of_ram_can_be_had_but_the_boot_page_and_the_tables(page_count):
    allocator = new_allocator(memory_of((0, page_count)))
    reserved = {page for first, end in allocator._boot.reserved_ranges() for page in range(first, end)}
    pages = allocator.allocate_pages(page_count, W)
    assert set(pages.tolist()) == set(range(page_count)) - reserved
    assert 0 in reserved
    assert page_count - 1 in pages or page_count == 3
    allocator.free_pages(pages)
    allocator.check()


def test_page_zero_of_the_first_region_is_the_boot_page_wherever_the_region_lies():
    allocator = new_allocator(memory_of((0x1234_5000, 900)))
    with pytest.raises(GuestCorruption, match="page 0: freed, but it is held by RESERVED"):
        allocator.free(0)


def test_the_tables_lie_in_another_region_when_the_first_is_too_small():
    allocator = new_allocator(memory_of((0, 2), (0x10_0000, 4000)))
    assert [first for first, _ in allocator._boot.reserved_ranges()] == [0, 2]
    assert 1 in allocator.allocate_pages(5000, W)


def test_ram_without_room_for_the_tables_is_the_users_to_change():
    with pytest.raises(UserError, match="make the largest region larger"):
        new_allocator(memory_of((0, 2)))


def test_blocks_are_aligned_by_guest_physical_address_as_linux_aligns_them():
    memory = memory_of(*ODD_REGIONS)
    allocator = new_allocator(memory)
    for order in range(11):
        heads = allocator.take_free_blocks(order, 10**6, W)
        assert len(heads)
        assert not (memory.addresses_of(heads) % np.uint64(PAGE_SIZE << order)).any()
        allocator.free_blocks(heads)


def test_the_smallest_block_that_is_large_enough_is_split():
    allocator = with_2_mib()
    before = allocator.free_block_counts()
    smallest = next(order for order, count in enumerate(before) if count)
    allocator.allocate(0, W)
    assert allocator.free_block_counts()[smallest] == before[smallest] - 1
    assert allocator.free_block_counts()[smallest + 1 :] == before[smallest + 1 :]


def test_all_that_is_freed_merges_again():
    allocator = with_2_mib()
    before = allocator.free_block_counts()
    blocks = [allocator.allocate(order, W) for order in (0, 3, 0, 5, 1, 0, 2)]
    for page in blocks[::2] + blocks[1::2]:
        allocator.free(page)
    assert allocator.free_block_counts() == before


def test_freed_pages_keep_what_was_written_to_them():
    allocator = with_2_mib()
    pages = allocator.allocate_pages(100, W)
    allocator.database.ram.store_pages(pages, np.full((100, PAGE_SIZE), 0xA5, np.uint8))
    allocator.free_pages(pages)
    assert (pages_of(allocator.database.ram.memory)[pages] == 0xA5).all()


@pytest.mark.parametrize("bulk", [False, True])
def test_a_page_freed_twice_is_named(bulk):
    allocator = with_2_mib()
    pages = allocator.allocate_pages(40, W)
    page = int(pages[20])
    allocator.free(page)
    with pytest.raises(GuestCorruption, match=f"page {page}: freed, but it is (free already|not the first page)"):
        allocator.free_pages(pages) if bulk else allocator.free(page)
    allocator.check()


def test_a_page_twice_in_one_call_is_named():
    allocator = with_2_mib()
    pages = allocator.allocate_pages(40, W)
    with pytest.raises(GuestCorruption, match=f"page {pages[3]}: freed twice in one call"):
        allocator.free_pages(np.append(pages, pages[3]))


def test_a_page_inside_a_block_cannot_be_freed():
    allocator = with_2_mib()
    page = allocator.allocate(3, W)
    with pytest.raises(GuestCorruption, match=f"page {page + 1}: freed, but it is not the first page of a block"):
        allocator.free(page + 1)


def test_a_block_cannot_be_freed_as_a_single_page():
    allocator = with_2_mib()
    page = allocator.allocate(3, W)
    with pytest.raises(GuestCorruption, match=f"page {page}: freed as a single page"):
        allocator.free_pages(np.array([page]))


@pytest.mark.parametrize("bulk", [False, True])
def test_only_the_holder_can_free_a_page_and_nothing_is_freed_when_one_is_wrong(bulk):
    allocator = with_2_mib()
    pages = allocator.allocate_pages(40, Owner.HINTED)
    allocator.set_owner(pages[30:31], Owner.BALLOON)
    before = allocator.free_page_count
    with pytest.raises(GuestCorruption, match=f"page {pages[30]}: freed by HINTED, but BALLOON holds it"):
        allocator.free_pages(pages, Owner.HINTED) if bulk else allocator.free(int(pages[30]), Owner.HINTED)
    assert allocator.free_page_count == before


@pytest.mark.parametrize("owner", [Owner.FREE, Owner.RESERVED])
def test_nobody_can_allocate_for_those_who_own_nothing(owner):
    with pytest.raises(ValueError, match=owner.name):
        with_2_mib().allocate(0, owner)


def test_shrinkers_are_asked_in_turn_until_one_helps():
    allocator = with_2_mib()
    held = allocator.allocate_pages(10**6, Owner.HINTED)
    asked = []

    def has_nothing(wanted):
        asked.append(("nothing", wanted))
        return 0

    def has_all(wanted):
        asked.append(("all", wanted))
        allocator.free_pages(held)
        return len(held)

    def is_not_needed(wanted):
        raise AssertionError("asked though there is memory")

    for shrinker in (has_nothing, has_all, is_not_needed):
        allocator.add_shrinker(shrinker)
    assert allocator.allocate(4, W) is not None
    assert asked == [("nothing", 16), ("all", 16)]


def test_without_help_there_is_no_block():
    allocator = with_2_mib()
    allocator.allocate_pages(10**6, W)
    assert allocator.allocate(0, W) is None
    assert len(allocator.take_free_blocks(0, 5, W)) == 0


def test_bulk_calls_ask_no_shrinker():
    allocator = with_2_mib()
    allocator.add_shrinker(lambda wanted: pytest.fail("asked"))
    allocator.allocate_pages(10**6, W)
    assert len(allocator.allocate_pages(1, W)) == 0


def test_another_object_on_the_same_ram_goes_on():
    memory = memory_of(*ODD_REGIONS)
    first = new_allocator(memory)
    page = first.allocate(5, Owner.DRIVER)
    second = attached_allocator(memory, first.database.ram.digest)
    assert second.free_block_counts() == first.free_block_counts()
    second.free(page, Owner.DRIVER)
    second.check()


class TestPoison:
    def test_free_pages_hold_the_pattern_from_the_first_moment(self):
        memory = memory_of((0, 600))
        allocator = new_allocator(memory, 0xDEAD_BEEF)
        free, orders = allocator.blocks_of(Owner.FREE)
        for page, order in zip(free.tolist(), orders.tolist(), strict=True):
            assert (pages_of(memory)[page : page + (1 << order)].view(np.uint32) == 0xDEAD_BEEF).all()

    @pytest.mark.parametrize("bulk", [False, True])
    def test_what_is_freed_is_filled(self, bulk):
        memory = memory_of((0, 600))
        allocator = new_allocator(memory, 0xAAAA_5555)
        pages = allocator.allocate_pages(50, W)
        memory.write(memory.address_of(int(pages[7])), b"secret")
        allocator.free_pages(pages) if bulk else [allocator.free(page) for page in pages.tolist()]
        assert (pages_of(memory)[pages].view(np.uint32) == 0xAAAA_5555).all()
        allocator.check()

    @pytest.mark.parametrize("allocate", [lambda a: a.allocate(8, W), lambda a: a.allocate_pages(600, W)])
    def test_a_free_page_that_was_written_to_is_named_when_it_is_handed_out(self, allocate):
        memory = memory_of((0, 600))
        allocator = new_allocator(memory, 0)
        memory.write(memory.address_of(300) + 4095, b"x")
        with pytest.raises(GuestCorruption, match="page 300: is free, but its poison was written over"):
            allocator.check()
        with pytest.raises(GuestCorruption, match="page 300"):
            allocate(allocator)

    def test_blocks_for_devices_are_not_looked_at(self):
        memory = memory_of((0, 600))
        allocator = new_allocator(memory, 0)
        memory.write(memory.address_of(300), b"x")
        assert len(allocator.take_free_blocks(0, 600, Owner.HINTED))


class TestCheckFinds:
    """Damage to the tables that a lost page could leave."""

    def damaged(self, damage):
        allocator = new_allocator(memory_of(*ODD_REGIONS))
        held = allocator.allocate_pages(21, W)
        allocator.free_pages(held[::2])
        damage(allocator, allocator.database)
        with pytest.raises(GuestCorruption) as caught:
            allocator.check()
        return str(caught.value)

    def test_an_entry_that_heads_nothing(self):
        def damage(allocator, database):
            database.head[int(allocator.blocks_of(W).pages[0])] = 0

        assert "do not tile RAM" in self.damaged(damage)

    def test_an_impossible_order(self):
        assert "order 199" in self.damaged(lambda allocator, database: database.head.__setitem__(300, 200))

    def test_an_unknown_owner(self):
        def damage(allocator, database):
            database.owner[int(allocator.blocks_of(W).pages[0])] = 77

        assert "no known owner" in self.damaged(damage)

    def test_a_block_that_is_free_but_on_no_list(self):
        def damage(allocator, database):
            database.owner[int(allocator.blocks_of(W).pages[0])] = Owner.FREE

        complaint = self.damaged(damage)
        assert "free list 0 counts" in complaint or "not merged" in complaint

    def test_a_link_that_leads_elsewhere(self):
        def damage(allocator, database):
            first = allocator._boot.free_lists["first"][0]
            database.next[first] = database.next[database.next[first]]

        assert "a chain of 11 blocks ends after 10" in self.damaged(damage)

    def test_a_link_out_of_ram(self):
        def damage(allocator, database):
            database.next[allocator._boot.free_lists["first"][0]] = NO_PAGE - 1

        assert "chain" in self.damaged(damage)

    def test_a_backward_link_alone(self):
        def damage(allocator, database):
            database.previous[database.next[allocator._boot.free_lists["first"][0]]] = 3

        assert "links in free list 0" in self.damaged(damage)

    def test_a_loop_in_a_list(self):
        def damage(allocator, database):
            second = database.next[allocator._boot.free_lists["first"][0]]
            database.next[second] = allocator._boot.free_lists["first"][0]

        assert "free list 0" in self.damaged(damage)

    def test_buddies_that_are_not_merged(self):
        def damage(allocator, database):
            pages, orders = allocator.blocks_of(Owner.FREE)
            largest = int(orders.argmax())
            page, order = int(pages[largest]), int(orders[largest])
            allocator._lists.unlink(page, order)
            allocator._lists.push(page, order - 1)
            allocator._lists.push(page + (1 << order - 1), order - 1)

        assert "not merged" in self.damaged(damage)

    def test_a_reserved_page_that_somebody_holds(self):
        assert "page 0: is not reserved any more" in self.damaged(
            lambda allocator, database: database.owner.put(allocator.blocks_of(Owner.RESERVED).pages, int(W))
        )


def test_events_tell_every_page_that_was_handed_out_and_taken_back():
    stream = EventStream(lambda: 0.0)
    seen = []
    stream.subscribe(lambda record: seen.append(record.event))
    allocator = new_allocator(memory_of((0, 3000)), events=stream.emitter("guest"))
    one = allocator.allocate(3, W)
    many = allocator.take_free_blocks(1, 300, Owner.HINTED)
    allocator.free_blocks(many)
    allocator.free(one)

    def pages(kind):
        return sorted(event.page + n for event in seen if type(event) is kind for n in range(1 << event.order))

    expected = sorted([one + n for n in range(8)] + [page + n for page in many.tolist() for n in range(2)])
    assert pages(PagesAllocated) == expected
    assert pages(PagesFreed) == expected
    assert {event.owner for event in seen if type(event) is PagesAllocated} == {W, Owner.HINTED}
