"""Page poison: free pages hold a pattern, and one that does not when it is handed out was written to while free."""

import numpy as np

from guest_agent.errors import GuestCorruption
from guest_agent.marked_ram import MarkedRam
from guest_agent.page_database import Blocks

__all__ = ["Poison"]


class Poison:
    """Fills blocks when they become free and checks them when they are handed out; with None as value, neither.

    The value is 32 bits, repeated, as VIRTIO_BALLOON_F_PAGE_POISON announces it (virtio 1.4, "Page Poison").
    """

    def __init__(self, ram: MarkedRam, value: int | None) -> None:
        self._ram = ram
        self.on = value is not None
        self._pattern = np.uint32(value or 0)

    def fill(self, blocks: Blocks) -> None:
        """Fill free blocks with the pattern."""
        if not self.on:
            return
        for page, order in zip(blocks.pages.tolist(), blocks.orders.tolist(), strict=True):
            with self._ram.storing(page, 1 << order) as live:
                live.view(np.uint32)[:] = self._pattern

    def check(self, blocks: Blocks) -> None:
        """Raise GuestCorruption, naming the page, if a free block does not hold the pattern."""
        if not self.on:
            return
        for page, order in zip(blocks.pages.tolist(), blocks.orders.tolist(), strict=True):
            wrong = (self._ram.run(page, 1 << order).view(np.uint32) != self._pattern).any(axis=1)
            if wrong.any():
                raise GuestCorruption("is free, but its poison was written over", page + int(wrong.argmax()))
