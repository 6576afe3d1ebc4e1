"""files: reads real files into a page cache, rereads, and drops some: free pages with real stale data."""

import os
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from guest_agent.page_database import Owner
from guest_agent.workload.file_catalogue import FileCatalogue, FilePart
from guest_agent.workload.objects import Objects
from guest_agent.workload.workload import Workload, WorkloadOptions
from vdev.memory import PAGE_SIZE, PageRanges

__all__ = ["Files"]

_PIECE = 64
"""Pages that one operation reads at most."""

_MOST_DROPPED = 2
"""Objects that one operation drops at most; each can be 4 MiB."""

_ENTRIES_PER_STEP = 128
"""A guest that was moved walks the directory again, but not all at once: that would add to the downtime."""

_READING = 1 << 31
"""Set in the tag of the object that is being read; it is always the last row. The other bits are the part's number."""


class Files(Workload):
    """A page cache over a directory. Each object is one part of one file.

    At a destination the directory may be absent or another one: what is cached stays, and gets dropped and modified,
    and nothing new is read.
    """

    name: ClassVar[str] = "files"
    owner: ClassVar[Owner] = Owner.PAGE_CACHE

    def __init__(self, objects: Objects, options: WorkloadOptions) -> None:
        super().__init__(objects, options)
        self.catalogue = FileCatalogue(options.files)
        self.unreadable_count = 0
        """Reads that failed: the file is gone, shorter than it was, or not ours to read."""

    def step(self, random: np.random.Generator) -> None:
        """Read up to 64 pages of one file, or drop a few files, or modify cached pages."""
        self.catalogue.explore(_ENTRIES_PER_STEP)
        objects = self.objects
        if objects.count and objects.tag_of(objects.count - 1) & _READING:
            self._go_on_reading()
            return
        used = objects.page_count
        wants_more = used < self.pages_of(self.options.low_water) or random.random() < 0.5
        if used >= self.pages_of(self.options.high_water):
            self.drop_some(random, _MOST_DROPPED)
        elif not (wants_more and self._start_reading(random)):
            self._drop_or_modify(random)

    def _drop_or_modify(self, random: np.random.Generator) -> None:
        # Never below the low water mark: where there is no directory, the cache would be empty in the end.
        if self.objects.page_count >= self.pages_of(self.options.low_water) and random.random() < 0.25:
            self.drop_some(random, _MOST_DROPPED)
        elif self.objects.count:
            rows = random.integers(0, self.objects.count, int(random.integers(1, 9)))
            self.objects.rewrite(np.unique(rows), random)

    def _start_reading(self, random: np.random.Generator) -> bool:
        if not self.catalogue.parts:
            return False
        return self._read(int(random.integers(0, len(self.catalogue.parts))), 0)

    def _go_on_reading(self) -> None:
        row = self.objects.count - 1
        number = self.objects.tag_of(row) & ~_READING
        if not self._read(number, self.objects.size_of(row)):
            # No memory, no such file any more, or a catalogue of another directory: what is cached stays as it is.
            self.objects.set_tag(row, number)

    def _read(self, number: int, pages_before: int) -> bool:
        """Read the next piece of a part whose first `pages_before` pages are in the last row; say whether it went."""
        if number >= len(self.catalogue.parts):
            return False
        part = self.catalogue.parts[number]
        missing = part.page_count - pages_before
        if missing <= 0:
            return False
        objects = self.objects
        try:
            with objects.growing(min(missing, _PIECE)) as pages:
                if not len(pages):
                    return False
                self._fill(pages, part, pages_before * PAGE_SIZE)
        except OSError:
            self.unreadable_count += 1
            return False
        if pages_before:
            objects.extend(objects.count - 1, pages)
        else:
            objects.start(pages, number)
        objects.set_tag(objects.count - 1, number | (_READING if len(pages) < missing else 0))
        return True

    def _fill(self, pages: npt.NDArray[np.int64], part: FilePart, offset: int) -> None:
        """Read straight into guest RAM; what the file does not have, also when it shrank, becomes zero bytes."""
        fd = os.open(part.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            runs = PageRanges.of_pages(pages)
            for first, end in zip(runs.first.tolist(), runs.end.tolist(), strict=True):
                for low, high in self.objects.pages.ram.within_regions(first, end):
                    with self.objects.pages.ram.storing(low, high - low) as live:
                        room = live.reshape(-1)[: max(part.size - offset, 0)]
                        got = os.preadv(fd, [room.data], part.offset + offset) if len(room) else 0
                        live.reshape(-1)[got:] = 0
                        offset += live.size
        finally:
            os.close(fd)

    def boot(self, random: np.random.Generator) -> None:
        """Make sure that there is something to read. Raises UserError if not."""
        self.catalogue.require_readable(self.options.files)

    def warm_up(self, random: np.random.Generator) -> None:
        """Read files, in order and again from the first, until RAM is full; then drop the newest of them."""
        self.boot(random)
        objects, failed_count, number = self.objects, 0, 0
        while objects.page_count < self.pages_of(self.options.full_water) and failed_count < len(self.catalogue.parts):
            if self._read_whole(number):
                failed_count = 0
            elif not objects.allocator.free_page_count:
                break
            else:
                failed_count += 1
            number = (number + 1) % len(self.catalogue.parts)
        objects.drop_last(objects.page_count - self.pages_of((self.options.low_water + self.options.high_water) / 2))

    def _read_whole(self, number: int) -> bool:
        if not self._read(number, 0):
            return False
        while self.objects.tag_of(self.objects.count - 1) & _READING:
            self._go_on_reading()
        return True
