"""Guest RAM as records: snapshots of pages with their checksum, and ranges of zero pages."""

import errno
import os
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from host_migrator.stream.records import Buffer, seal
from spec.layout import dtype_of, struct_of
from spec.stream import PAYLOAD_SIZE, RUN, RecordType
from vdev.memory import PAGE_SIZE, GuestMemory, PageRanges, Region

__all__ = ["RamEncoder"]

_RUN = dtype_of(RUN)
_ONE_RUN = struct_of(RUN)
_SAMPLE_STEP = 64
_RUNS_PER_ZERO_RECORD = 4096

Pages = npt.NDArray[np.int64]


class RamEncoder:
    """Turns page numbers into records.

    The pages are copied into a small buffer, and the copy is looked at, hashed and sent. So a page that the guest
    changes meanwhile goes out as it was at one moment per byte and never breaks its checksum; the dirty log brings it
    again. The copy fits the processor's cache, which makes it nearly free.

    `data_count` and `zero_count` count pages since the start; `runs`, kept when `keep_runs` is set, lists what the
    last call of `records` sent: (first page, pages, "data" or "zero").
    """

    def __init__(self, memory: GuestMemory, payload_size: int = PAYLOAD_SIZE, *, keep_runs: bool = False) -> None:
        self._memory = memory
        self._page_limit = payload_size // PAGE_SIZE
        self._copy = np.empty((self._page_limit, PAGE_SIZE), np.uint8)
        self._packed = np.empty((self._page_limit, PAGE_SIZE), np.uint8)
        self._region_firsts = np.array([memory.region_first_page(region) for region in memory.regions], np.int64)
        self.keep_runs = keep_runs
        self.runs: list[tuple[int, int, str]] = []
        self.data_count = 0
        self.zero_count = 0

    def records(self, pages: Pages) -> Iterator[list[Buffer]]:
        """Yield the records that carry `pages`, sorted and distinct. The buffers are good until the next one is asked.

        Runs wherever the link wants, also in a thread: it reads guest RAM and nothing else that changes.
        """
        self.runs = []
        zero: list[Pages] = []
        bounds = [0, *np.searchsorted(pages, self._region_firsts[1:]).tolist(), len(pages)]
        for region, first_page, low, high in zip(
            self._memory.regions, self._region_firsts.tolist(), bounds[:-1], bounds[1:], strict=True
        ):
            for start in range(low, high, self._page_limit):
                part = pages[start : min(start + self._page_limit, high)]
                yield from self._part(region, first_page, part, zero)
        if zero:
            yield from self._zero_records(np.concatenate(zero))

    def _part(self, region: Region, first_page: int, pages: Pages, zero: list[Pages]) -> Iterator[list[Buffer]]:
        copy = self._copy[: len(pages)]
        source = region.backing.data.reshape(-1, PAGE_SIZE)
        start = int(pages[0]) - first_page
        contiguous = int(pages[-1]) - int(pages[0]) + 1 == len(pages)
        if contiguous:
            if _is_hole(region, start * PAGE_SIZE, len(pages) * PAGE_SIZE):
                zero.append(pages)
                return
            np.copyto(copy, source[start : start + len(pages)])
        else:
            np.take(source, pages - first_page, axis=0, out=copy, mode="clip")
        words = copy.view(np.uint64)
        # A few words of each page first: they settle it for most pages that have content.
        if (
            not np.bitwise_or.reduce(words[:, ::_SAMPLE_STEP], axis=1).all()
            and not (filled := np.bitwise_or.reduce(words, axis=1) != 0).all()
        ):
            zero.append(pages[~filled])
            pages = pages[filled]
            if not len(pages):
                return
            packed = self._packed[: len(pages)]
            np.compress(filled, copy, axis=0, out=packed)
            copy, contiguous = packed, False
        self.data_count += len(pages)
        if contiguous:
            # The usual record, without arrays of one element.
            table = _ONE_RUN.pack(region.guest_address + start * PAGE_SIZE, len(pages))
            if self.keep_runs:
                self.runs.append((int(pages[0]), len(pages), "data"))
            yield seal(RecordType.RAM_DATA, 1, table, copy.reshape(-1).data)
            return
        runs = PageRanges.of_pages(pages)
        self._note(runs, "data")
        yield seal(RecordType.RAM_DATA, len(runs.first), self._table(runs), copy.reshape(-1).data)

    def _zero_records(self, pages: Pages) -> Iterator[list[Buffer]]:
        runs = PageRanges.of_pages(pages)
        self._note(runs, "zero")
        self.zero_count += len(pages)
        # Cut where a region begins, so that no run crosses into a neighbour.
        cuts = np.setdiff1d(self._region_firsts[1:], runs.first)
        inside = np.searchsorted(runs.first, cuts, side="right") - 1
        keep = (inside >= 0) & (runs.end[inside] > cuts)
        if keep.any():
            first = np.sort(np.concatenate((runs.first, cuts[keep])))
            end = np.sort(np.concatenate((runs.end, cuts[keep])))
            runs = PageRanges(first, end)
        for start in range(0, len(runs.first), _RUNS_PER_ZERO_RECORD):
            part = PageRanges(*(column[start : start + _RUNS_PER_ZERO_RECORD] for column in runs))
            yield seal(RecordType.ZERO_PAGES, len(part.first), self._table(part))

    def _table(self, runs: PageRanges) -> bytes:
        table = np.empty(len(runs.first), _RUN)
        table["address"] = self._memory.addresses_of(runs.first)
        table["page_count"] = runs.end - runs.first
        return table.tobytes()

    def _note(self, runs: PageRanges, kind: str) -> None:
        if self.keep_runs:
            sizes = (runs.end - runs.first).tolist()
            self.runs += [(first, size, kind) for first, size in zip(runs.first.tolist(), sizes, strict=True)]


def _is_hole(region: Region, offset: int, size: int) -> bool:
    # Reading a hole of a memfd would allocate it; asking does not.
    fd = region.backing.fd
    if fd is None:
        return False
    try:
        return os.lseek(fd, offset, os.SEEK_DATA) >= offset + size
    except OSError as error:
        return error.errno == errno.ENXIO
