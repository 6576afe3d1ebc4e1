"""The guest's page allocator: a binary buddy system of orders 0 to 10, wholly in guest RAM.

Blocks are aligned by guest-physical page frame number, as Linux aligns them, and never cross the end of a region. The
object itself remembers nothing: another one, attached to the same RAM, goes on where this one was.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from guest_agent.allocator.free_lists import FreeLists
from guest_agent.allocator.poison import Poison
from guest_agent.allocator.zones import Zones
from guest_agent.errors import GuestCorruption
from guest_agent.page_database import MAX_ORDER, Blocks, Owner, PageDatabase
from guest_agent.ram_layout import BootPage, aligned_blocks
from vdev.events import SILENT, Emitter, PagesAllocated, PagesFreed

__all__ = ["BuddyAllocator", "Shrinker"]

Shrinker = Callable[[int], int]
"""Called with the pages wanted when memory is short; frees what it can and returns how many pages that was."""

_FEW = 16
"""Up to so many blocks are freed one by one: below it, numpy's cost per call is higher than the loop's."""

_Pages = npt.NDArray[np.int64]
_UNTAKABLE = frozenset({Owner.FREE, Owner.RESERVED})


class BuddyAllocator:
    """Hands out blocks of 2**order pages and takes them back, merging free buddies.

    A block is known by its first page, its head. Freed pages keep their content, unless page poison is on.
    """

    def __init__(self, boot: BootPage, database: PageDatabase, events: Emitter = SILENT) -> None:
        self._boot = boot
        self.database = database
        self._lists = FreeLists(boot, database)
        self._zones = Zones(boot)
        self._poison = Poison(boot.ram, boot.poison_value)
        self._shrinkers: list[Shrinker] = []
        self._events = events

    @classmethod
    def create(cls, boot: BootPage, database: PageDatabase, events: Emitter = SILENT) -> "BuddyAllocator":
        """Take over new RAM: all pages outside `boot.reserved_ranges()` become free."""
        allocator = cls(boot, database, events)
        allocator.take_over_ram()
        return allocator

    @classmethod
    def attach(cls, boot: BootPage, database: PageDatabase, events: Emitter = SILENT) -> "BuddyAllocator":
        """Go on with RAM that another allocator object left."""
        return cls(boot, database, events)

    def take_over_ram(self) -> None:
        """Make the blocks of new RAM: reserved where `boot.reserved_ranges()` says so, free everywhere else."""
        reserved = [(first, end, Owner.RESERVED) for first, end in self._boot.reserved_ranges()]
        for first, end, owner in _complement(reserved, self._boot.ram.memory.page_count):
            for low, high, frame_offset in self._zones.split(first, end):
                self._add(low, high, frame_offset, owner)

    def _add(self, first: int, end: int, frame_offset: int, owner: Owner) -> None:
        blocks = np.array(aligned_blocks(first, end, frame_offset), np.int64).reshape(-1, 2)
        pages, orders = blocks[:, 0], blocks[:, 1]
        if owner is Owner.FREE:
            self._poison.fill(Blocks(pages, orders))
            for order in np.unique(orders).tolist():
                self._lists.push_many(pages[orders == order], order)
        else:
            self.database.head.put(pages, orders + 1)
            self.database.owner.put(pages, owner)

    # Allocating

    def add_shrinker(self, shrinker: Shrinker) -> None:
        """Ask `shrinker`, after those added before it, when `allocate` finds nothing."""
        self._shrinkers.append(shrinker)

    def allocate(self, order: int, owner: Owner) -> int | None:
        """Return the head of a block of 2**order pages, None when there is none even after asking the shrinkers.

        Raises ValueError for an order or owner that cannot be, GuestCorruption for a page whose poison was touched.
        """
        _check_request(order, owner)
        page = self._take_block(order, owner)
        for shrinker in self._shrinkers if page is None else ():
            if shrinker(1 << order) and (page := self._take_block(order, owner)) is not None:
                break
        if page is not None:
            if self._poison.on:
                self._poison.check(Blocks(np.array([page]), np.array([order])))
            if self._events.listening:
                self._events.emit(PagesAllocated(page, order, owner))
        return page

    def _take_block(self, order: int, owner: Owner) -> int | None:
        for larger in range(order, MAX_ORDER + 1):
            page = self._lists.pop(larger)
            if page is not None:
                self.database.owner[page] = owner
                self.database.head[page] = order + 1
                for half in reversed(range(order, larger)):
                    self._lists.push(page + (1 << half), half)
                return page
        return None

    def allocate_pages(self, limit: int, owner: Owner) -> _Pages:
        """Return single pages, as many as there are up to `limit`; asks no shrinker."""
        pages = self.take_free_blocks(0, limit, owner)
        if self._poison.on:
            self._poison.check(Blocks(pages, np.zeros(len(pages), np.int64)))
        return pages

    def take_free_blocks(self, order: int, limit: int, owner: Owner) -> _Pages:
        """Return the heads of blocks of 2**order pages, as many as there are up to `limit`; asks no shrinker.

        Like so many calls of `allocate`: the smallest blocks that are large enough go first, and are split. For those
        who want the memory and not what is in it: poison is not looked at.
        """
        _check_request(order, owner)
        taken: list[_Pages] = []
        missing = limit
        for larger in range(order, MAX_ORDER + 1):
            if missing <= 0:
                break
            parts = 1 << (larger - order)
            whole = self._lists.pop_many(larger, -(-missing // parts))
            if self._events.listening:
                self._emit_taken(whole, larger, missing << order, owner)
            pieces = (whole[:, None] + (np.arange(parts) << order)).ravel()
            if len(pieces) > missing:
                self._give_back_rest(int(pieces[missing]), int(whole[-1]) + (1 << larger), larger)
                pieces = pieces[:missing]
            missing -= len(pieces)
            taken.append(pieces)
        pages = np.concatenate(taken) if taken else np.empty(0, np.int64)
        self.database.owner.put(pages, owner)
        self.database.head.put(pages, order + 1)
        return pages

    def _emit_taken(self, whole: _Pages, order: int, page_count: int, owner: Owner) -> None:
        # One event for each block as it left the free list, of the last one only what was kept: fewer and no less true
        # than one for each single page.
        for page in whole.tolist():
            kept = min(page_count, 1 << order)
            for part, part_order in aligned_blocks(0, kept, 0):
                self._events.emit(PagesAllocated(page + part, part_order, owner))
            page_count -= kept

    def _give_back_rest(self, first: int, end: int, larger: int) -> None:
        # Cut from one block: its own start is aligned, so blocks aligned within it are aligned in RAM.
        for page, order in aligned_blocks(first, end, (1 << larger) - end):
            self._lists.push(page, order)

    # Freeing

    def free(self, page: int, owner: Owner | None = None) -> None:
        """Take a block back.

        Raises GuestCorruption if `page` is no head, is free already, is reserved, or is not held by `owner` (if given).
        """
        order = self._order_of(page, owner)
        if self._poison.on:
            self._poison.fill(Blocks(np.array([page]), np.array([order])))
        if self._events.listening:
            self._events.emit(PagesFreed(page, order))
        database = self.database
        low, high, frame_offset = self._zones.of(page)
        while order < MAX_ORDER:
            buddy = ((page + frame_offset) ^ (1 << order)) - frame_offset
            if buddy < low or buddy + (1 << order) > high:
                break
            if database.head[buddy] != order + 1 or database.owner[buddy] != Owner.FREE:
                break
            self._lists.unlink(buddy, order)
            database.head[max(page, buddy)] = 0
            page = min(page, buddy)
            order += 1
        self._lists.push(page, order)

    def _order_of(self, page: int, owner: Owner | None) -> int:
        if not 0 <= page < self.database.page_count:
            raise GuestCorruption("freed, but RAM has no such page", page)
        head, holder = self.database.head[page], self.database.owner[page]
        if head == 0 or head > MAX_ORDER + 1:
            raise GuestCorruption("freed, but it is not the first page of a block", page)
        _check_holder(page, holder, owner)
        return head - 1

    def free_pages(self, pages: _Pages, owner: Owner | None = None) -> None:
        """Take single pages back. Raises as `free` does, and for a head of a larger block; then none is freed."""
        heads = self._checked_heads(pages, owner)
        if (heads > 1).any():
            raise GuestCorruption("freed as a single page, but it heads a block", int(pages[int((heads > 1).argmax())]))
        self._free_many(Blocks(np.asarray(pages, np.int64), heads - 1))

    def free_blocks(self, pages: _Pages, owner: Owner | None = None) -> None:
        """Take blocks back, of the orders that the page database knows. Raises as `free` does; then none is freed."""
        self._free_many(Blocks(np.asarray(pages, np.int64), self._checked_heads(pages, owner) - 1))

    def _checked_heads(self, pages: _Pages, owner: Owner | None) -> _Pages:
        if not len(pages):
            return np.empty(0, np.int64)
        if pages.min() < 0 or pages.max() >= self.database.page_count:
            raise GuestCorruption("freed, but RAM has no such page", int(pages[np.abs(pages).argmax()]))
        ordered = np.sort(pages)
        twice = ordered[1:] == ordered[:-1]
        if twice.any():
            raise GuestCorruption("freed twice in one call", int(ordered[int(twice.argmax())]))
        heads = self.database.head.take(pages).astype(np.int64)
        wrong = (heads == 0) | (heads > MAX_ORDER + 1)
        if wrong.any():
            raise GuestCorruption("freed, but it is not the first page of a block", int(pages[int(wrong.argmax())]))
        holders = self.database.owner.take(pages)
        wrong = np.isin(holders, list(_UNTAKABLE)) if owner is None else holders != owner
        if wrong.any():
            index = int(wrong.argmax())
            _check_holder(int(pages[index]), int(holders[index]), owner)
        return heads

    def _free_many(self, blocks: Blocks) -> None:
        if len(blocks.pages) <= _FEW:
            for page in blocks.pages.tolist():
                self.free(page)
            return
        self._poison.fill(blocks)
        if self._events.listening:
            for page, order in zip(blocks.pages.tolist(), blocks.orders.tolist(), strict=True):
                self._events.emit(PagesFreed(page, order))
        merged = np.empty(0, np.int64)
        for order in range(MAX_ORDER + 1):
            here = np.sort(np.concatenate((merged, blocks.pages[blocks.orders == order])))
            stay, merged = self._merge(here, order) if order < MAX_ORDER else (here, merged)
            self._lists.push_many(stay, order)

    def _merge(self, pages: _Pages, order: int) -> tuple[_Pages, _Pages]:
        """Merge blocks of one order (sorted) with each other and with free ones; return who stays and who grew."""
        if not len(pages):
            return pages, pages
        database = self.database
        buddies, exists = self._zones.buddies(pages, order)
        together = np.zeros(len(pages), np.bool_)
        together[:-1] = exists[:-1] & (buddies[:-1] == pages[1:])
        together[1:] |= together[:-1]
        candidates = np.where(exists & ~together, buddies, 0)
        with_free = (
            exists
            & ~together
            & (database.head.take(candidates) == order + 1)
            & (database.owner.take(candidates) == Owner.FREE)
        )
        self._lists.unlink_many(buddies[with_free], order)
        grown = together | with_free
        lower = np.unique(np.minimum(pages[grown], buddies[grown]))
        database.head.put(lower + (1 << order), 0)
        return pages[~grown], lower

    # Looking

    @property
    def free_page_count(self) -> int:
        """Free pages, in blocks of all orders."""
        return sum(count << order for order, count in enumerate(self.free_block_counts()))

    def free_block_counts(self) -> list[int]:
        """Return the number of free blocks of each order."""
        return [int(count) for count in self._lists.counts.array]

    def find_free_blocks(self, order: int, first: int, limit: int) -> _Pages:
        """Return the heads of blocks of 2**order pages that are free, from page `first` on, ascending, up to `limit`.

        They stay free. A larger free block counts as so many of that order; smaller ones do not count.
        """
        pages, orders = self.database.blocks_of(Owner.FREE)
        wanted = (orders >= order) & (pages + (1 << orders) > first)
        # Each gives at least one, but perhaps the first, of which `first` may leave nothing.
        pages, orders = pages[wanted][: limit + 1], orders[wanted][: limit + 1]
        counts = 1 << (orders - order)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        heads: _Pages = np.repeat(pages, counts) + (within << order)
        return heads[heads >= first][:limit]

    def blocks_of(self, *owners: Owner) -> Blocks:
        """Return the blocks that any of `owners` holds, ascending."""
        return self.database.blocks_of(*owners)

    def set_owner(self, pages: _Pages, owner: Owner) -> None:
        """Hand allocated blocks, given by their heads, from one owner to another.

        Raises GuestCorruption for a page that heads no allocated block.
        """
        _check_request(0, owner)
        self._checked_heads(pages, None)
        self.database.owner.put(np.asarray(pages, np.int64), owner)

    def check(self) -> None:
        """Look at everything.

        Raises GuestCorruption unless blocks tile RAM, are aligned in their region and held by known owners, free
        blocks are merged and on the right list, reserved pages are reserved, and poison is whole.
        """
        pages, orders = self.database.blocks()
        owners = self.database.owner.take(pages)
        buddies, exists = self._zones.buddies(pages, orders)
        rules = {
            "is held by no known owner": owners > max(Owner),
            "heads a block that is not aligned or crosses the end of its region": ~self._zones.fits(pages, orders),
        }
        free = owners == Owner.FREE
        there = np.where(exists, buddies, 0)
        buddy_is_free = (self.database.owner.take(there) == Owner.FREE) & (self.database.head.take(there) == orders + 1)
        rules["and its buddy are free but not merged"] = free & exists & buddy_is_free & (orders < MAX_ORDER)
        for message, broken in rules.items():
            if broken.any():
                raise GuestCorruption(message, int(pages[int(broken.argmax())]))
        reserved = np.repeat(owners == Owner.RESERVED, 1 << orders)
        for first, end in self._boot.reserved_ranges():
            if not reserved[first:end].all():
                raise GuestCorruption("is not reserved any more", first + int(reserved[first:end].argmin()))
        self._lists.check()
        self._poison.check(Blocks(pages[free], orders[free]))


def _check_request(order: int, owner: Owner) -> None:
    if not 0 <= order <= MAX_ORDER:
        raise ValueError(f"order {order} is not in 0 to {MAX_ORDER}")
    if owner in _UNTAKABLE:
        raise ValueError(f"nobody allocates for {owner.name}")


def _check_holder(page: int, holder: int, owner: Owner | None) -> None:
    name = Owner(holder).name if holder <= max(Owner) else f"owner {holder}"
    if holder == Owner.FREE:
        raise GuestCorruption("freed, but it is free already", page)
    if owner is not None and holder != owner:
        raise GuestCorruption(f"freed by {owner.name}, but {name} holds it", page)
    if holder == Owner.RESERVED or holder > max(Owner):
        raise GuestCorruption(f"freed, but it is held by {name}", page)


def _complement(reserved: list[tuple[int, int, Owner]], page_count: int) -> list[tuple[int, int, Owner]]:
    runs, at = [], 0
    for first, end, owner in reserved:
        if at < first:
            runs.append((at, first, Owner.FREE))
        runs.append((first, end, owner))
        at = end
    if at < page_count:
        runs.append((at, page_count, Owner.FREE))
    return runs
