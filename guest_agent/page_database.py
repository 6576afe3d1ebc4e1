"""The page database: one entry for each page of guest RAM, in guest RAM.

RAM is tiled by blocks of 2**order pages, free or allocated, and only the entry of a block's first page (its head) says
what the block is: owner, order, links. So taking a 4 MiB block touches one entry, not 1024, and a database page that
nobody used stays zero. What belongs to a single page's data (version, check) is in the entry of that page.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from construct import Int8ul, Int32ul, Int64ul, Padding, Struct

from guest_agent.errors import GuestCorruption
from guest_agent.marked_ram import MarkedRam

__all__ = ["ENTRY_SIZE", "MAX_ORDER", "NO_PAGE", "PAGE_ENTRY", "Blocks", "GuestCorruption", "Owner", "PageDatabase"]

MAX_ORDER = 10
"""The largest block is 2**10 pages, 4 MiB, as Linux has it on x86."""

NO_PAGE = 0xFFFF_FFFF
"""The link that leads nowhere."""

PAGE_ENTRY = "page_entry" / Struct(
    "head" / Int8ul,  # 0: not the first page of a block; else the block's order + 1
    "owner" / Int8ul,  # of the whole block; meaningful in its head
    Padding(2),
    "version" / Int32ul,  # of the page's data; counts on when the page changes hands
    "next" / Int32ul,  # head: the next block of the free list, or of the object
    "previous" / Int32ul,  # head: the block before in the free list
    "check" / Int64ul,  # guest_agent.checksum.page_checks of the page's data
    Padding(8),
)
ENTRY_SIZE = 32
"""A power of two, so that no entry lies across two pages."""


class Owner(IntEnum):
    """Who holds a block."""

    FREE = 0
    RESERVED = 1
    WORKLOAD = 2
    PAGE_CACHE = 3
    BALLOON = 4
    HINTED = 5
    REPORTED = 6
    DRIVER = 7
    HINT_COLLECTED = 8
    """Picked to be hinted, and not yet shown to the device; HINTED from then on."""
    HINT_USED = 9
    """Was HINTED, and the device gave the hint back."""


class Blocks(NamedTuple):
    """Blocks as two arrays of one length: their first pages, ascending, and their orders."""

    pages: npt.NDArray[np.int64]
    orders: npt.NDArray[np.int64]


class PageDatabase:
    """The entries of all pages, as columns. The same object serves new (zeroed) RAM and RAM that came with a guest."""

    def __init__(self, ram: MarkedRam, address: int) -> None:
        self.ram = ram
        self.page_count = ram.memory.page_count
        columns = ram.columns(address, PAGE_ENTRY, self.page_count)
        self.head = columns["head"]
        self.owner = columns["owner"]
        self.version = columns["version"]
        self.next = columns["next"]
        self.previous = columns["previous"]
        self.check = columns["check"]

    def blocks(self) -> Blocks:
        """Return all blocks.

        Raises GuestCorruption, naming the page, unless they tile RAM without gap or overlap.
        """
        heads = self.head.array
        pages = np.flatnonzero(heads)
        orders = heads[pages].astype(np.int64) - 1
        if len(orders) and orders.max() > MAX_ORDER:
            raise GuestCorruption(f"order {orders.max()} in the page database", int(pages[int(orders.argmax())]))
        ends = np.concatenate(([0], pages + (1 << orders)))
        starts = np.concatenate((pages, [self.page_count]))
        wrong = np.flatnonzero(ends != starts)
        if len(wrong):
            raise GuestCorruption(
                "the blocks in the page database do not tile RAM", int(min(ends[wrong[0]], starts[wrong[0]]))
            )
        return Blocks(pages, orders)

    def blocks_of(self, *owners: Owner) -> Blocks:
        """Return the blocks that any of `owners` holds."""
        heads = self.head.array
        held = (
            np.isin(self.owner.array, [int(owner) for owner in owners])
            if len(owners) != 1
            else self.owner.array == owners[0]
        )
        pages = np.flatnonzero(held & (heads != 0))
        return Blocks(pages, heads[pages].astype(np.int64) - 1)

    def chain(self, first: int, count: int) -> npt.NDArray[np.int64]:
        """Return `count` block heads, from `first` on along the links.

        Raises GuestCorruption if the links end before.
        """
        pages: list[int] = []
        page, following = first, self.next
        for _ in range(count):
            if page >= self.page_count:
                raise GuestCorruption(
                    f"a chain of {count} blocks ends after {len(pages)}", pages[-1] if pages else None
                )
            pages.append(page)
            page = following[page]
        return np.array(pages, np.int64)
