"""An allocator for a guest of a few pages: what a buddy allocator does, where one is too large.

It can be told how much may still be offered for hints, so that what a guest does has an end.
"""

from collections.abc import Callable, Sequence

import numpy as np

from guest_agent.drivers.pages import Pages
from guest_agent.page_database import Blocks, Owner

__all__ = ["SmallAllocator"]


class SmallAllocator:
    """A `PageAllocator` of single pages, numbered from 0; all are free. `driver_pages` are for drivers' own needs.

    `offered_count` pages at most are found or taken as free blocks at a time; None for all.
    """

    def __init__(self, page_count: int, driver_pages: Sequence[int] = ()) -> None:
        self.owners = [Owner.FREE] * page_count
        self.offered_count: int | None = None
        self._driver_pages = list(driver_pages)

    @property
    def free_page_count(self) -> int:
        """Free pages."""
        return self.owners.count(Owner.FREE)

    def allocate_pages(self, limit: int, owner: Owner) -> Pages:
        """Return single pages, as many as there are up to `limit`."""
        return self._hand_out(self._free_from(0)[:limit], owner)

    def take_free_blocks(self, order: int, limit: int, owner: Owner) -> Pages:
        """Return blocks, as many as are offered up to `limit`; none of an order above 0."""
        if owner is Owner.DRIVER:
            taken, self._driver_pages = self._driver_pages[:limit], self._driver_pages[limit:]
            return np.array(taken, np.int64)
        pages: Pages = self._hand_out(self.find_free_blocks(order, 0, limit).tolist(), owner)
        return pages

    def find_free_blocks(self, order: int, first: int, limit: int) -> Pages:
        """Return blocks from page `first` on, as many as are offered up to `limit`; they stay free."""
        if self.offered_count is not None:
            limit = min(limit, self.offered_count)
        return np.array(self._free_from(first)[:limit] if order == 0 else [], np.int64)

    def free_pages(self, pages: Pages) -> None:
        """Take single pages back; they keep their content."""
        self.set_owner(pages, Owner.FREE)

    def free_blocks(self, pages: Pages) -> None:
        """Take blocks back."""
        self.set_owner(pages, Owner.FREE)

    def blocks_of(self, *owners: Owner) -> Blocks:
        """Return what any of `owners` holds, ascending; of free pages those that are offered."""
        pages = [page for page, owner in enumerate(self.owners) if owner in owners]
        if Owner.FREE in owners and self.offered_count is not None:
            pages = pages[: self.offered_count]
        return Blocks(np.array(pages, np.int64), np.zeros(len(pages), np.int64))

    def set_owner(self, pages: Pages, owner: Owner) -> None:
        """Hand pages from one owner to another."""
        for page in pages.tolist():
            self.owners[page] = owner

    def add_shrinker(self, shrinker: Callable[[int], int]) -> None:
        """Do nothing: who allocates a page by its number knows whom to ask for it."""

    def _free_from(self, first: int) -> list[int]:
        return [page for page in range(first, len(self.owners)) if self.owners[page] is Owner.FREE]

    def _hand_out(self, pages: list[int], owner: Owner) -> Pages:
        taken = np.array(pages, np.int64)
        self.set_owner(taken, owner)
        return taken
