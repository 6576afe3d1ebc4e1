"""The destination's guest RAM, filled from records."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from host_migrator.errors import MalformedRecord, RangeOutsideRam
from host_migrator.page_set import PageSet
from spec.layout import dtype_of
from spec.stream import MAX_BODY_SIZE, RUN, RecordType
from vdev.errors import GuestAddressError
from vdev.memory import PAGE_SIZE, GuestMemory, PageRanges

__all__ = ["RamLoader"]

_RUN = dtype_of(RUN)


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
        self._pages = np.empty(0, np.int64)

    def begin_data(self, table: memoryview, payload_size: int, offset: int) -> memoryview:
        """Return where the payload of a RAM_DATA record goes: guest RAM itself for one run, a buffer for several.

        Raises MalformedRecord or RangeOutsideRam; `offset` is the record's place in the stream.
        """
        runs = self._checked_runs(table, offset)
        if runs.page_count * PAGE_SIZE != payload_size:
            raise MalformedRecord(f"runs of {runs.page_count} pages with {payload_size} bytes", offset)
        self.data_count += runs.page_count
        self._note(runs, "data")
        self._loaded.add_ranges(runs)
        if self._advanced is not None:
            self._advanced(int(runs.end[-1]), runs.page_count)
        if len(runs.first) == 1:
            self._pages = np.empty(0, np.int64)
            address = self.memory.address_of(int(runs.first[0]))
            return self.memory.bytes_view(address, payload_size).data
        if len(self._staging) < payload_size:
            self._staging = np.empty(MAX_BODY_SIZE[RecordType.RAM_DATA], np.uint8)
        self._pages = runs.to_pages()
        return self._staging[:payload_size].data

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
        if len(runs) == 1:
            return self._checked_run(int(runs["address"][0]), int(runs["page_count"][0]), offset)
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

    def _checked_run(self, address: int, page_count: int, offset: int) -> PageRanges:
        # The usual record, and quicker without arrays.
        if not page_count or address % PAGE_SIZE:
            raise MalformedRecord("a run that is empty or does not begin at a page", offset)
        try:
            self.memory.locate(address, page_count * PAGE_SIZE)
        except GuestAddressError as error:
            raise RangeOutsideRam(f"{page_count} pages: {error}", offset) from error
        first = self.memory.page_of(address)
        return PageRanges.of((first, first + page_count))

    def _note(self, runs: PageRanges, kind: str) -> None:
        if self.keep_runs:
            sizes = (runs.end - runs.first).tolist()
            self.runs += [(first, size, kind) for first, size in zip(runs.first.tolist(), sizes, strict=True)]
