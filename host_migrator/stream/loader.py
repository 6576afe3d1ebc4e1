"""The destination's guest RAM, filled from records."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from host_migrator.errors import MalformedRecord, RangeOutsideRam
from host_migrator.page_set import PageSet
from spec.layout import dtype_of, struct_of
from spec.stream import MAX_BODY_SIZE, RUN, RecordType
from vdev.errors import GuestAddressError
from vdev.memory import PAGE_SIZE, GuestMemory, PageRanges

__all__ = ["RamLoader"]

_RUN = dtype_of(RUN)
_ONE_RUN = struct_of(RUN)
_NO_PAGES = np.empty(0, np.int64)


class RamLoader:
    """Checks every run before a byte of it is stored, and knows which pages were ever written.

    `memory` is fresh: all zero. `advanced` is called for content that comes: with the page behind it, and the number
    of pages.
    """

    def __init__(
        self, memory: GuestMemory, *, keep_runs: bool = False, advanced: Callable[[int, int], None] | None = None
    ) -> None:
        self.memory = memory
        self.data_count = 0
        self.zero_count = 0
        self._advanced = advanced
        self.keep_runs = keep_runs
        self.runs: list[tuple[int, int, str]] = []
        self._loaded = PageSet(memory.page_count)
        self._staging = np.empty(0, np.uint8)
        self._pages = _NO_PAGES

    def begin_data(self, table: memoryview, payload_size: int, offset: int) -> memoryview:
        """Return where the payload of a RAM_DATA record goes: guest RAM itself for one run, a buffer for several.

        Raises MalformedRecord or RangeOutsideRam; `offset` is the record's place in the stream.
        """
        if len(table) == _RUN.itemsize:
            return self._begin_run(table, payload_size, offset)
        runs = self._checked_runs(table, offset)
        self._check_size(runs.page_count, payload_size, offset)
        self.data_count += runs.page_count
        self._note(runs, "data")
        self._loaded.add_ranges(runs)
        if self._advanced is not None:
            self._advanced(int(runs.end[-1]), runs.page_count)
        if len(self._staging) < payload_size:
            self._staging = np.empty(MAX_BODY_SIZE[RecordType.RAM_DATA], np.uint8)
        self._pages = runs.to_pages()
        return self._staging[:payload_size].data

    def _begin_run(self, table: memoryview, payload_size: int, offset: int) -> memoryview:
        # The usual record: no arrays, for they would cost more than the copying of a page.
        address, first, page_count = self._checked_run(table, offset)
        self._check_size(page_count, payload_size, offset)
        self.data_count += page_count
        if self.keep_runs:
            self.runs.append((first, page_count, "data"))
        self._loaded.add_range(first, first + page_count)
        if self._advanced is not None:
            self._advanced(first + page_count, page_count)
        self._pages = _NO_PAGES
        return self.memory.bytes_view(address, payload_size).data

    @staticmethod
    def _check_size(page_count: int, payload_size: int, offset: int) -> None:
        if page_count * PAGE_SIZE != payload_size:
            raise MalformedRecord(f"runs of {page_count} pages with {payload_size} bytes", offset)

    def finish_data(self) -> None:
        """Put the payload in its places, if it is not there already."""
        pages = self._pages
        if not len(pages):
            return
        content = self._staging[: len(pages) * PAGE_SIZE].reshape(-1, PAGE_SIZE)
        for region in self.memory.regions:
            first = self.memory.region_first_page(region)
            here = (pages >= first) & (pages < first + region.size // PAGE_SIZE)
            if here.all():
                region.backing.data.reshape(-1, PAGE_SIZE)[pages - first] = content
                return
            region.backing.data.reshape(-1, PAGE_SIZE)[pages[here] - first] = content[here]

    def zero(self, table: memoryview, offset: int) -> None:
        """Make the pages of a ZERO_PAGES record zero; those that nothing was loaded into are so already."""
        runs = self._checked_runs(table, offset)
        self.zero_count += runs.page_count
        self._note(runs, "zero")
        for first, end in zip(runs.first.tolist(), runs.end.tolist(), strict=True):
            loaded = PageRanges.of_pages(self._loaded.members_between(first, end))
            for low, high in zip(loaded.first.tolist(), loaded.end.tolist(), strict=True):
                for span, _, _ in self.memory.page_spans(low, high):
                    span[:] = 0
        self._loaded.remove_ranges(runs)

    def _checked_runs(self, table: memoryview, offset: int) -> PageRanges:
        runs: npt.NDArray[np.void] = np.frombuffer(table, _RUN)
        address, page_count = runs["address"], runs["page_count"]
        if not len(runs) or not page_count.all() or (address % np.uint64(PAGE_SIZE)).any():
            raise MalformedRecord("a run that is empty or does not begin at a page", offset)
        size = np.minimum(page_count, np.uint64(self.memory.page_count + 1)) * np.uint64(PAGE_SIZE)
        good = self.memory.contains_many(address, size)
        if not good.all():
            bad = int(np.argmin(good))
            raise RangeOutsideRam(
                f"{int(page_count[bad])} pages at {int(address[bad]):#x} are not in guest RAM", offset
            )
        first = self.memory.pages_of(address)
        return PageRanges(first, first + page_count.astype(np.int64))

    def _checked_run(self, table: memoryview, offset: int) -> tuple[int, int, int]:
        address, page_count = _ONE_RUN.unpack(table)
        if not page_count or address % PAGE_SIZE:
            raise MalformedRecord("a run that is empty or does not begin at a page", offset)
        try:
            region, within = self.memory.locate(address, page_count * PAGE_SIZE)
        except GuestAddressError as error:
            raise RangeOutsideRam(f"{page_count} pages: {error}", offset) from error
        return address, self.memory.region_first_page(region) + within // PAGE_SIZE, page_count

    def _note(self, runs: PageRanges, kind: str) -> None:
        if self.keep_runs:
            sizes = (runs.end - runs.first).tolist()
            self.runs += [(first, size, kind) for first, size in zip(runs.first.tolist(), sizes, strict=True)]
