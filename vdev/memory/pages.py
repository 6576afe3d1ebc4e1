"""Pages and ranges of pages.

Page numbers are dense: the pages of all regions of guest RAM are numbered one after the other from 0, so that
bitmaps have no holes. `GuestMemory` translates between them and guest-physical addresses.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["PAGE_SHIFT", "PAGE_SIZE", "PageRanges"]

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT


class PageRanges(NamedTuple):
    """Half-open ranges of page numbers as two int64 arrays of one length."""

    first: npt.NDArray[np.int64]
    end: npt.NDArray[np.int64]

    @property
    def page_count(self) -> int:
        """Pages in all ranges together (a page in two ranges counts twice)."""
        return int((self.end - self.first).sum())

    @classmethod
    def of(cls, *ranges: tuple[int, int]) -> "PageRanges":
        """Return the ranges given as (first, end) pairs.

        >>> PageRanges.of((0, 3), (8, 9)).page_count
        4
        """
        pairs = np.array(ranges, np.int64).reshape(-1, 2)
        return cls(pairs[:, 0].copy(), pairs[:, 1].copy())

    @classmethod
    def of_mask(cls, mask: npt.NDArray[np.bool_], offset: int = 0) -> "PageRanges":
        """Return the runs of true in `mask`, whose first element is page `offset`."""
        edges = np.flatnonzero(np.diff(mask.view(np.int8), prepend=np.int8(0), append=np.int8(0))) + offset
        return cls(edges[0::2].astype(np.int64), edges[1::2].astype(np.int64))

    @classmethod
    def of_pages(cls, pages: npt.NDArray[np.int64]) -> "PageRanges":
        """Return the runs in `pages`, which are sorted and distinct."""
        if not len(pages):
            return cls(np.empty(0, np.int64), np.empty(0, np.int64))
        breaks = np.flatnonzero(np.diff(pages) != 1)
        return cls(
            pages[np.concatenate(([0], breaks + 1))].astype(np.int64),
            pages[np.concatenate((breaks, [len(pages) - 1]))].astype(np.int64) + 1,
        )

    def to_pages(self) -> npt.NDArray[np.int64]:
        """Return every page number, range by range."""
        counts = self.end - self.first
        starts = np.repeat(self.first - np.concatenate(([0], np.cumsum(counts)[:-1])), counts)
        return starts + np.arange(len(starts))
