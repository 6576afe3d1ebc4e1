"""What a workload owns: a table of objects in guest RAM, each a chain of blocks of checked pages."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from guest_agent.allocator import BuddyAllocator
from guest_agent.checked_pages import CheckedPages
from guest_agent.errors import GuestCorruption
from guest_agent.page_database import MAX_ORDER, NO_PAGE, Owner
from guest_agent.ram_layout import OBJECT, BootPage

__all__ = ["Objects"]

_Indices = npt.NDArray[np.int64]


class Objects:
    """Rows 0 to `count`-1 of the object table; a row's number changes when a row before it is dropped.

    Everything is in guest RAM, so another object on the same RAM goes on where this one was. All pages are of one
    `owner`, and sealed whenever no method runs.
    """

    def __init__(self, boot: BootPage, allocator: BuddyAllocator, pages: CheckedPages, owner: Owner) -> None:
        self.pages = pages
        self.allocator = allocator
        self.ram_page_count = boot.ram.memory.page_count
        self._owner = owner
        self._database = allocator.database
        self._count = boot.column("object_count")
        self._page_count = boot.column("object_page_count")
        columns = boot.ram.columns(boot["object_table_address"], OBJECT, boot.ram.memory.page_count)
        self._first, self._last = columns["first"], columns["last"]
        self._pages_of, self._tag = columns["page_count"], columns["tag"]

    @property
    def count(self) -> int:
        """Objects."""
        return self._count[0]

    @property
    def page_count(self) -> int:
        """Pages of all objects."""
        return self._page_count[0]

    def size_of(self, row: int) -> int:
        """Return the pages of one object."""
        return self._pages_of[row]

    def tag_of(self, row: int) -> int:
        """Return what the workload wrote beside one object."""
        return self._tag[row]

    def set_tag(self, row: int, tag: int) -> None:
        """Write a 32-bit number beside one object."""
        self._tag[row] = tag

    # Making

    def add_block(self, order: int, tag: int = 0) -> bool:
        """Add an object of one new block with generated content; say whether there was memory."""
        page = self.allocator.allocate(order, self._owner)
        if page is None:
            return False
        self.pages.generate_run(page, 1 << order, self._owner)
        self._append_rows(np.array([page]), 1 << order, tag)
        return True

    def add_pages(self, limit: int, tag: int = 0) -> int:
        """Add up to `limit` objects of one page with generated content; return how many there was memory for."""
        pages = self.allocator.allocate_pages(limit, self._owner)
        self.pages.generate(pages, self._owner)
        self._append_rows(pages, 1, tag)
        return len(pages)

    def _append_rows(self, pages: _Indices, size: int, tag: int) -> None:
        rows = np.arange(self.count, self.count + len(pages))
        self._first.put(rows, pages)
        self._last.put(rows, pages)
        self._pages_of.put(rows, size)
        self._tag.put(rows, tag)
        self._count[0] += len(pages)
        self._page_count[0] += len(pages) * size

    @contextmanager
    def growing(self, limit: int) -> Iterator[_Indices]:
        """Give up to `limit` new pages, ascending, to be written through `pages.ram`; none when memory is short.

        When the block ends they are sealed, and belong to no object until `extend` or `start` takes them. If it raises,
        they are freed.
        """
        pages = np.sort(self.allocator.allocate_pages(limit, self._owner))
        try:
            yield pages
        except BaseException:
            self.allocator.free_pages(pages, self._owner)
            raise
        self.pages.seal(pages, self._owner)

    def start(self, pages: _Indices, tag: int) -> None:
        """Add an object of sealed single pages, in this order."""
        self._link(pages)
        row = self.count
        self._first[row], self._last[row] = int(pages[0]), int(pages[-1])
        self._pages_of[row], self._tag[row] = len(pages), tag
        self._count[0] += 1
        self._page_count[0] += len(pages)

    def extend(self, row: int, pages: _Indices) -> None:
        """Add sealed single pages to the end of an object."""
        self._link(pages)
        self._database.next[self._last[row]] = int(pages[0])
        self._last[row] = int(pages[-1])
        self._pages_of[row] += len(pages)
        self._page_count[0] += len(pages)

    def _link(self, pages: _Indices) -> None:
        self._database.next.put(pages, np.append(pages[1:], NO_PAGE))

    # Using

    def rewrite(self, rows: _Indices, random: np.random.Generator) -> None:
        """Write new content to one page of each of `rows` (distinct): of its first block."""
        heads = self._first.take(rows).astype(np.int64)
        orders = self._database.head.take(heads).astype(np.int64) - 1
        wrong = (orders < 0) | (orders > MAX_ORDER)
        if wrong.any():
            raise GuestCorruption("an object begins here, but no block does", int(heads[int(wrong.argmax())]))
        sizes = np.left_shift(1, orders)
        self.pages.generate(heads + random.integers(0, sizes), self._owner)

    def drop(self, rows: _Indices) -> int:
        """Free the objects of `rows` (distinct); return the pages freed. The last rows move up into the gaps."""
        if not len(rows):
            return 0
        freed_count = int(self._pages_of.take(rows).sum())
        self.allocator.free_blocks(self._blocks_of(rows), self._owner)
        kept_count = self.count - len(rows)
        gaps = rows[rows < kept_count]
        moving = np.setdiff1d(np.arange(kept_count, self.count), rows)
        for column in (self._first, self._last, self._pages_of, self._tag):
            column.put(gaps, column.take(moving))
        self._count[0] = kept_count
        self._page_count[0] -= freed_count
        return freed_count

    def drop_last(self, page_count: int) -> int:
        """Free the newest objects, as many as it takes to free at least `page_count` pages; return the pages freed."""
        if page_count <= 0:
            return 0
        sizes = self._pages_of.array[: self.count][::-1].astype(np.int64)
        wanted = int(np.searchsorted(np.cumsum(sizes), page_count)) + 1
        return self.drop(np.arange(max(self.count - wanted, 0), self.count))

    def _blocks_of(self, rows: _Indices) -> _Indices:
        first, last = self._first.take(rows).astype(np.int64), self._last.take(rows)
        single = first == last
        # An object of several blocks is a chain of single pages: only `start` and `extend` make such.
        chained = zip(first[~single].tolist(), self._pages_of.take(rows[~single]).tolist(), strict=True)
        chains = [self._database.chain(page, count) for page, count in chained]
        return np.concatenate([first[single], *chains])

    # Checking

    def check(self) -> None:
        """Raise GuestCorruption unless each block of the owner is in exactly one object, and the counts fit."""
        heads, orders = self.allocator.blocks_of(self._owner)
        rows = np.arange(min(self.count, self._first.count))
        firsts, lasts = self._first.take(rows).astype(np.int64), self._last.take(rows)
        inner = heads[~np.isin(heads, lasts)]
        reached = np.sort(np.concatenate((firsts, self._database.next.take(inner).astype(np.int64))))
        if len(reached) != len(heads) or (reached != heads).any():
            strangers = np.setxor1d(reached, heads)
            page = int(strangers[0]) if len(strangers) else None
            raise GuestCorruption(f"the objects and the blocks of {self._owner.name} disagree", page)
        page_count = int((1 << orders).sum())
        in_rows = int(self._pages_of.take(rows).astype(np.int64).sum())
        if not self.page_count == page_count == in_rows:
            raise GuestCorruption(f"{self.page_count} object pages counted, {in_rows} in rows, {page_count} allocated")
