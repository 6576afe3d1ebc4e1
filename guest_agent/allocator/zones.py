"""Where a block's buddy lies, on RAM of several regions that need not be aligned."""

import numpy as np
import numpy.typing as npt

from guest_agent.errors import GuestCorruption
from guest_agent.ram_layout import BootPage
from vdev.memory.pages import PAGE_SHIFT

__all__ = ["Zones"]

_Pages = npt.NDArray[np.int64]


class Zones:
    """The regions, as the buddy system sees them: where a block's buddy lies, if it exists."""

    def __init__(self, boot: BootPage) -> None:
        memory = boot.ram.memory
        self._lows = np.array([memory.region_first_page(region) for region in memory.regions], np.int64)
        self._highs = np.append(self._lows[1:], memory.page_count)
        frames = np.array([region.guest_address >> PAGE_SHIFT for region in memory.regions], np.int64)
        self._offsets = frames - self._lows
        self._zones = list(zip(self._lows.tolist(), self._highs.tolist(), self._offsets.tolist(), strict=True))

    def of(self, page: int) -> tuple[int, int, int]:
        """Return the region's first page, end page, and frame number minus page number."""
        for zone in self._zones:
            if page < zone[1]:
                return zone
        raise GuestCorruption("RAM has no such page", page)

    def split(self, first: int, end: int) -> list[tuple[int, int, int]]:
        """Cut a run of pages at the regions' ends: (first, end, frame offset) of each part."""
        parts = [(max(first, low), min(end, high), offset) for low, high, offset in self._zones]
        return [part for part in parts if part[0] < part[1]]

    def buddies(self, pages: _Pages, orders: _Pages | int) -> tuple[_Pages, npt.NDArray[np.bool_]]:
        """Return each block's buddy, and whether it lies wholly in the same region."""
        index = np.searchsorted(self._highs, pages, side="right")
        offsets, sizes = self._offsets[index], np.left_shift(1, orders)
        buddies = ((pages + offsets) ^ sizes) - offsets
        return buddies, (buddies >= self._lows[index]) & (buddies + sizes <= self._highs[index])

    def fits(self, pages: _Pages, orders: _Pages) -> npt.NDArray[np.bool_]:
        """Say for each block whether it is aligned and lies in one region."""
        index = np.searchsorted(self._highs, pages, side="right")
        sizes = np.left_shift(1, orders)
        aligned = (pages + self._offsets[index]) % sizes == 0
        fits: npt.NDArray[np.bool_] = aligned & (pages + sizes <= self._highs[index])
        return fits
