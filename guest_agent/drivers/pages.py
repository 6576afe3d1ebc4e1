"""What a driver needs of the guest's page allocator."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from guest_agent.page_database import Blocks, Owner

__all__ = ["PageAllocator", "Pages"]

Pages = npt.NDArray[np.int64]


class PageAllocator(Protocol):
    """Lends pages, and knows who holds which; `guest_agent.allocator.BuddyAllocator` is one.

    A block is 2**order pages, known by its first page.
    """

    @property
    def free_page_count(self) -> int:
        """Free pages."""
        ...

    def allocate_pages(self, limit: int, owner: Owner) -> Pages:
        """Return single pages, as many as there are up to `limit`; asks no shrinker."""
        ...

    def take_free_blocks(self, order: int, limit: int, owner: Owner) -> Pages:
        """Return the heads of blocks of `order`, as many as there are up to `limit`; asks no shrinker."""
        ...

    def find_free_blocks(self, order: int, first: int, limit: int) -> Pages:
        """Return heads, from page `first` on and ascending, of blocks of `order` that are free; they stay free."""
        ...

    def free_pages(self, pages: Pages) -> None:
        """Take single pages back. Fills them with the poison pattern where the guest poisons free pages."""
        ...

    def free_blocks(self, pages: Pages) -> None:
        """Take blocks back, given by their heads. Fills them as `free_pages` does."""
        ...

    def blocks_of(self, *owners: Owner) -> Blocks:
        """Return the blocks that any of `owners` holds, ascending."""
        ...

    def set_owner(self, pages: Pages, owner: Owner) -> None:
        """Hand allocated blocks, given by their heads, from one owner to another."""
        ...

    def add_shrinker(self, shrinker: Callable[[int], int]) -> None:
        """Call `shrinker` with the pages wanted when memory is short; it returns the pages it freed."""
        ...
