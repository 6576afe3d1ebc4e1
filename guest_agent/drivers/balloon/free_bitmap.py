"""The buffer for an answer as a bitmap of all of RAM (HintAnswer.BITMAP), in blocks of the guest's own pages."""

import numpy as np
import numpy.typing as npt

from guest_agent.drivers.balloon.area import MAX_BITMAP_BLOCKS, BalloonArea
from guest_agent.drivers.pages import PageAllocator, Pages
from guest_agent.page_database import MAX_ORDER, Blocks, Owner
from spec.balloon import HINT_BITMAP_HEADER
from vdev.errors import UserError
from vdev.memory import PAGE_SIZE, GuestMemory

__all__ = ["FreeBitmap"]

_HEADER_SIZE = HINT_BITMAP_HEADER.sizeof()


class FreeBitmap:
    """The header and the bitmap, one after the other, in the blocks that the driver's area names."""

    def __init__(self, area: BalloonArea) -> None:
        self._memory = area.memory
        self._bitmap_size = -(-self._memory.page_count // 8)
        block_size = PAGE_SIZE << area["bitmap_order"]
        heads = area.load("bitmap_heads", area["bitmap_block_count"])
        rest = _HEADER_SIZE + self._bitmap_size
        self.segments: list[tuple[int, int]] = []
        """The buffer's parts as (address, size), for the queue."""
        for address in self._memory.addresses_of(heads).tolist():
            self.segments.append((address, min(rest, block_size)))
            rest -= block_size

    @staticmethod
    def segment_count(memory: GuestMemory) -> int:
        """Return how many parts the buffer for this RAM has."""
        return _layout(memory)[1]

    @classmethod
    def create(cls, area: BalloonArea, allocator: PageAllocator) -> "FreeBitmap":
        """Take the blocks from the guest's allocator. Raises UserError if it has none, or RAM is too large for that."""
        order, count = _layout(area.memory)
        if count > MAX_BITMAP_BLOCKS:
            raise UserError(
                f"a bitmap of {area.memory.page_count} pages of guest RAM takes {count} buffers, and "
                f"{MAX_BITMAP_BLOCKS} is the most; use the list of blocks"
            )
        heads = allocator.take_free_blocks(order, count, Owner.DRIVER)
        if len(heads) < count:
            allocator.free_blocks(heads)
            raise UserError(f"guest RAM has no {count} times {PAGE_SIZE << order} bytes for a bitmap of its free pages")
        area.store("bitmap_heads", heads)
        area["bitmap_order"] = order
        area["bitmap_block_count"] = count
        return cls(area)

    def fill(self, free: Blocks) -> int:
        """Store an answer that names the pages of these blocks; return how many those are."""
        count = int((1 << free.orders).sum())
        header = HINT_BITMAP_HEADER.build({"count": count, "size": self._bitmap_size})
        starts = free.pages
        ends = free.pages + (1 << free.orders)
        at = 0
        for address, size in self.segments:
            own = len(header) if at == 0 else 0
            first = 8 * (at + own - len(header))
            mask = _mask(starts, ends, first, first + 8 * (size - own))
            view = self._memory.bytes_view(address, size)
            view[:own] = np.frombuffer(header[:own], np.uint8)
            view[own:] = np.packbits(mask, bitorder="little")
            self._memory.mark_written(address, size)
            at += size
        return count

    def pages(self) -> Pages:
        """Return the pages that the stored answer names, ascending."""
        data = b"".join(self._memory.read(address, size) for address, size in self.segments)[_HEADER_SIZE:]
        return np.flatnonzero(np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little"))


def _mask(starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], first: int, end: int) -> npt.NDArray[np.bool_]:
    """Return for each page from `first` up to `end` whether one of the distinct ranges has it."""
    chosen = (starts < end) & (ends > first)
    edges = np.zeros(end - first + 1, np.int8)
    edges[np.maximum(starts[chosen], first) - first] += 1
    edges[np.minimum(ends[chosen], end) - first] -= 1
    return np.cumsum(edges[:-1], dtype=np.int8).view(np.bool_)


def _layout(memory: GuestMemory) -> tuple[int, int]:
    """Return the order and number of the blocks that the buffer takes."""
    pages = -(-(_HEADER_SIZE + -(-memory.page_count // 8)) // PAGE_SIZE)
    order = min((pages - 1).bit_length(), MAX_ORDER)
    return order, -(-pages >> order)
