"""The bitmap of free pages with which a guest answers instead of a list (HintAnswer.BITMAP): what it may say."""

import numpy as np
import numpy.typing as npt

from spec.balloon import HINT_BITMAP_HEADER
from spec.layout import dtype_of
from vdev.errors import DriverViolation
from vdev.memory import GuestMemory
from vdev.memory.pages import PageRanges
from vdev.virtqueue.chain import Chain

__all__ = ["read_hint_bitmap"]

_CLAUSE = "none of the text: a bitmap of free pages, as HintAnswer.BITMAP has it"
_HEADER = dtype_of(HINT_BITMAP_HEADER)
_PIECE = 1 << 20
"""Bytes of the bitmap that are unpacked at a time, to eight times as many bytes."""


def read_hint_bitmap(memory: GuestMemory, chain: Chain, queue_number: int) -> PageRanges:
    """Return the runs of pages that the answer in `chain` says are free, ascending and distinct.

    Raises DriverViolation unless the buffer has just the size of a bitmap of all of RAM, its header says so and counts
    the bits that are set, and no bit past the last page is one of them.
    """
    page_count = memory.page_count
    size = -(-page_count // 8)

    def violation(message: str) -> DriverViolation:
        return DriverViolation(_CLAUSE, message, queue=queue_number, descriptor=chain.head)

    if chain.readable_size < _HEADER.itemsize:
        raise violation(f"an answer of {chain.readable_size} bytes ends within its header")
    if chain.readable_size != _HEADER.itemsize + size:
        raise violation(
            f"an answer of {chain.readable_size} bytes; {_HEADER.itemsize + size} are those of {page_count} pages"
        )
    content = chain.read(memory)
    (header,) = np.frombuffer(content, _HEADER, 1)
    if header["size"] != size:
        raise violation(f"a bitmap that calls itself {header['size']} bytes large, and is {size}")
    bitmap = np.frombuffer(content, np.uint8, offset=_HEADER.itemsize)
    if page_count % 8 and bitmap[-1] >> page_count % 8:
        raise violation(f"a bitmap that names pages past the end of RAM, which has {page_count}")
    ranges = _runs(bitmap)
    if header["count"] != ranges.page_count:
        raise violation(f"a bitmap that says it has {header['count']} bits set, and has {ranges.page_count}")
    return ranges


def _runs(bitmap: npt.NDArray[np.uint8]) -> PageRanges:
    parts = [
        PageRanges.of_mask(np.unpackbits(bitmap[at : at + _PIECE], bitorder="little").view(np.bool_), 8 * at)
        for at in range(0, len(bitmap), _PIECE)
    ]
    first = np.concatenate([part.first for part in parts])
    end = np.concatenate([part.end for part in parts])
    # A run that goes on across a piece's edge was cut there.
    cut = np.flatnonzero(end[:-1] == first[1:])
    return PageRanges(np.delete(first, cut + 1), np.delete(end, cut))
