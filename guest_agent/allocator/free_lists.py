"""The free lists: one doubly linked list of free blocks per order, headed in the boot page, linked in the database."""

import numpy as np
import numpy.typing as npt

from guest_agent.errors import GuestCorruption
from guest_agent.page_database import NO_PAGE, Owner, PageDatabase
from guest_agent.ram_layout import BootPage

__all__ = ["FreeLists"]

_Pages = npt.NDArray[np.int64]


class FreeLists:
    """Push, pop and unlink free blocks, one or many at a time; the newest is taken first.

    Keeps the heads' `owner`, `head`, `next` and `previous` entries. Knows nothing of buddies.
    """

    def __init__(self, boot: BootPage, database: PageDatabase) -> None:
        self._first = boot.free_lists["first"]
        self.counts = boot.free_lists["count"]
        self._database = database

    def push(self, page: int, order: int) -> None:
        """Put one block on the list of its order."""
        database, following = self._database, self._first[order]
        database.next[page] = following
        database.previous[page] = NO_PAGE
        database.owner[page] = Owner.FREE
        database.head[page] = order + 1
        if following != NO_PAGE:
            database.previous[following] = page
        self._first[order] = page
        self.counts[order] += 1

    def pop(self, order: int) -> int | None:
        """Take the newest block off the list, None if it is empty. Its owner is the caller's to set."""
        page = self._first[order]
        if page == NO_PAGE:
            return None
        self.unlink(page, order)
        return page

    def unlink(self, page: int, order: int) -> None:
        """Take one block out of the list of its order."""
        database = self._database
        following, before = database.next[page], database.previous[page]
        if before == NO_PAGE:
            self._first[order] = following
        else:
            database.next[before] = following
        if following != NO_PAGE:
            database.previous[following] = before
        self.counts[order] -= 1

    def push_many(self, pages: _Pages, order: int) -> None:
        """Put distinct blocks on the list of their order, the first of `pages` in front."""
        if not len(pages):
            return
        database, following = self._database, self._first[order]
        database.next.put(pages, np.append(pages[1:], following))
        database.previous.put(pages, np.insert(pages[:-1], 0, NO_PAGE))
        database.owner.put(pages, Owner.FREE)
        database.head.put(pages, order + 1)
        if following != NO_PAGE:
            database.previous[following] = int(pages[-1])
        self._first[order] = int(pages[0])
        self.counts[order] += len(pages)

    def pop_many(self, order: int, limit: int) -> _Pages:
        """Take up to `limit` of the newest blocks off the list."""
        count = min(limit, self.counts[order])
        pages = self.walk(order, count)
        if count:
            following = self._database.next[int(pages[-1])]
            self._first[order] = following
            if following != NO_PAGE:
                self._database.previous[following] = NO_PAGE
            self.counts[order] -= count
        return pages

    def unlink_many(self, pages: _Pages, order: int) -> None:
        """Take distinct blocks out of the list of their order, wherever in it they are.

        Neighbours may leave together, so each one's next survivor is looked for by doubling: after n rounds everybody
        has looked 2**n blocks ahead.
        """
        if not len(pages):
            return
        database = self._database
        leaving = np.sort(pages)
        before = _first_outside(leaving, database.previous.take(leaving).astype(np.int64))
        following = _first_outside(leaving, database.next.take(leaving).astype(np.int64))
        # Every run of leaving blocks gives the same pair (before, following) for each member: store each pair once.
        before, members = np.unique(before, return_index=True)
        following = following[members]
        inner = before != NO_PAGE
        database.next.put(before[inner], following[inner])
        if not inner.all():
            self._first[order] = int(following[~inner][0])
        behind = following != NO_PAGE
        database.previous.put(following[behind], before[behind])
        self.counts[order] -= len(leaving)

    def walk(self, order: int, count: int) -> _Pages:
        """Return the newest `count` blocks of the list, which stay on it."""
        return self._database.chain(self._first[order], count)

    def check(self) -> None:
        """Raise GuestCorruption, naming the page, unless the lists hold exactly the free blocks of the database."""
        free_pages, free_orders = self._database.blocks_of(Owner.FREE)
        for order in range(self.counts.count):
            expected = free_pages[free_orders == order]
            if self.counts[order] != len(expected):
                raise GuestCorruption(
                    f"free list {order} counts {self.counts[order]} blocks, the page database has {len(expected)}"
                )
            self._check_list(order, expected)

    def _check_list(self, order: int, expected: _Pages) -> None:
        pages = self.walk(order, len(expected))
        strangers = np.setxor1d(pages, expected)
        if len(strangers):
            raise GuestCorruption(f"free list {order} and the page database disagree", int(strangers[0]))
        links = np.concatenate(([NO_PAGE], pages, [NO_PAGE]))
        if links[1] != self._first[order]:
            raise GuestCorruption(f"free list {order} begins at {self._first[order]}, its first block is {links[1]}")
        wrong = (self._database.previous.take(pages) != links[:-2]) | (self._database.next.take(pages) != links[2:])
        if wrong.any():
            raise GuestCorruption(f"its links in free list {order} are broken", int(pages[int(wrong.argmax())]))


def _first_outside(leaving: _Pages, neighbours: _Pages) -> _Pages:
    while True:
        position = np.minimum(np.searchsorted(leaving, neighbours), len(leaving) - 1)
        inside = leaving[position] == neighbours
        if not inside.any():
            return neighbours
        neighbours = np.where(inside, neighbours[position], neighbours)
