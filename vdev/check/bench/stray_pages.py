"""Pages of a memfd that were holes and are no more: somebody read or wrote them, through whatever mapping.

Nothing here touches them either: the file is asked where it has data, and what is there is read from the file.
"""

import errno
import mmap
import os
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

from vdev.memory import PAGE_SIZE

__all__ = ["StrayRun", "reads_are_seen", "stray_runs"]

_SHOWN_SIZE = 64
_PROBE_SIZE = 8 << 20
"""Bytes: room for a huge page."""
_Run = tuple[int, int]


class StrayRun(NamedTuple):
    """Neighbouring pages that were touched. `stored_at` is the offset of the first byte that is not 0, None if there is
    none: then they were read. `content` is what is there, a few bytes of it.
    """

    first_page: int
    page_count: int
    stored_at: int | None
    content: bytes


def stray_runs(fd: int, file_offset: int, page_count: int, ours: Sequence[_Run]) -> Iterator[StrayRun]:
    """Yield the runs of pages that the file holds of a region outside of `ours` (first and end of each run, ascending).

    The region is `page_count` pages from `file_offset` on; page numbers begin there. If most of it is there, it was
    faulted in beforehand (the kernel leaves gaps in what mlockall(2) wants): then only what was written is told, as
    where `reads_are_seen` says no.
    """
    extents = list(_extents(fd, file_offset, page_count))
    held_count = sum(end - first for first, end in extents)
    is_faulted_in = held_count > page_count // 2 or not reads_are_seen()
    for first, end in _without(extents, ours):
        content = os.pread(fd, (end - first) * PAGE_SIZE, file_offset + first * PAGE_SIZE)
        zero_size = len(content) - len(content.lstrip(b"\0"))
        stored_at = zero_size if zero_size < len(content) else None
        if stored_at is None and is_faulted_in:
            continue
        place = stored_at or 0
        yield StrayRun(first, end - first, stored_at, content[place : place + _SHOWN_SIZE])


@cache
def reads_are_seen() -> bool:
    """Say whether a page that is touched is allocated alone: not where the kernel gives shared memory huge pages."""
    fd = os.memfd_create("vdev-check-probe", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, _PROBE_SIZE)
        with mmap.mmap(fd, _PROBE_SIZE) as mapping:
            mapping[_PROBE_SIZE // 2]
        pages = _PROBE_SIZE // PAGE_SIZE
        return list(_extents(fd, 0, pages)) == [(pages // 2, pages // 2 + 1)]
    finally:
        os.close(fd)


def _extents(fd: int, file_offset: int, page_count: int) -> Iterator[_Run]:
    offset, limit = file_offset, file_offset + page_count * PAGE_SIZE
    while offset < limit:
        try:
            begin = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return
        if begin >= limit:
            return
        offset = os.lseek(fd, begin, os.SEEK_HOLE)
        first, end = begin - file_offset, min(offset, limit) - file_offset
        yield first // PAGE_SIZE, -(-end // PAGE_SIZE)


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
