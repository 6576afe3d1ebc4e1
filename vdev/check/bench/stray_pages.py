"""Pages of a memfd that were holes and are no more: somebody read or wrote them, through whatever mapping.

Nothing here touches them either: the file is asked where it has data, and what is there is read from the file.
"""

import errno
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from vdev.memory import PAGE_SIZE

__all__ = ["StrayRun", "stray_runs"]

_SHOWN_SIZE = 64
_Run = tuple[int, int]


class StrayRun(NamedTuple):
    """Neighbouring pages that were touched. `stored_at` is the offset of the first byte that is not 0, None if there is
    none: then they were read. `content` is what is there, a few bytes of it.
    """

    first_page: int
    page_count: int
    stored_at: int | None
    content: bytes


def stray_runs(fd: int, ours: Sequence[_Run], region_page_count: int) -> Iterator[StrayRun]:
    """Yield the runs of pages that the file holds outside of `ours` (first and end of each run, ascending).

    The file consists of regions of `region_page_count` pages. One that is there as a whole was faulted in beforehand:
    in it only what was written is told.
    """
    extents = list(_extents(fd))
    for first, end in _without(extents, ours):
        region = first // region_page_count
        page = region * region_page_count
        is_faulted_in = any(low <= page and page + region_page_count <= high for low, high in extents)
        content = os.pread(fd, (end - first) * PAGE_SIZE, first * PAGE_SIZE)
        zero_size = len(content) - len(content.lstrip(b"\0"))
        stored_at = zero_size if zero_size < len(content) else None
        if stored_at is None and is_faulted_in:
            continue
        place = stored_at or 0
        yield StrayRun(first, end - first, stored_at, content[place : place + _SHOWN_SIZE])


def _extents(fd: int) -> Iterator[_Run]:
    offset = 0
    while True:
        try:
            begin = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return
        offset = os.lseek(fd, begin, os.SEEK_HOLE)
        yield begin // PAGE_SIZE, -(-offset // PAGE_SIZE)


def _without(extents: Sequence[_Run], ours: Sequence[_Run]) -> Iterator[_Run]:
    index = 0
    for first, end in extents:
        page = first
        while index < len(ours) and ours[index][0] < end:
            if page < ours[index][0]:
                yield page, ours[index][0]
            page = max(page, ours[index][1])
            if ours[index][1] > end:
                break
            index += 1
        if page < end:
            yield page, end
