"""Guest RAM as the guest's own software stores to it: no store without its mark, no table entry without the digest.

A store whose page is not marked is a page lost by a migration that asks the guest for its dirty log. A page of the
guest's own tables that arrives old may look consistent in itself. So nobody in the guest (drivers' rings apart, which
have their own two lines for it) stores to RAM but through this file:

- data pages through `storing` and `store_pages`, which mark when the bytes are there;
- tables through `Column`, one field of an array of entries, whose every store is also added to `MarkedRam.digest`.

The digest is a sum over all cells of all columns of value times a weight that hangs on the cell; it is kept up to date
by adding (new - old) * weight, and lives outside RAM, in the vCPU state. `recompute_digest` gets it from RAM again:
when the two differ, some table page is not the one that the vCPU left.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal

import construct
import numpy as np
import numpy.typing as npt

from guest_agent.checksum import mix
from guest_agent.errors import GuestCorruption
from spec.layout import dtype_of
from vdev.memory import PAGE_SIZE, GuestMemory
from vdev.memory.order import store_fence

__all__ = ["Column", "MarkedRam"]

_MASK = (1 << 64) - 1
_LOW_BITS = 12
_LOW_MASK = (1 << _LOW_BITS) - 1
_CASTS: dict[int, Literal["B", "H", "I", "Q"]] = {1: "B", 2: "H", 4: "I", 8: "Q"}

_Indices = npt.NDArray[np.int64]


class MarkedRam:
    """Stores to guest RAM, each marked after the data is there."""

    def __init__(self, memory: GuestMemory) -> None:
        self.memory = memory
        self.digest = 0
        self.marks = None if memory.page_marks is None else memory.page_marks.marks.data
        """The live marks by page number, None without a cooperative log."""
        self._columns: list[Column] = []

    # Data pages

    @contextmanager
    def storing(self, first: int, page_count: int) -> Iterator[npt.NDArray[np.uint8]]:
        """Give the live (page_count, 4096) bytes of a run of pages in one region; mark them when the block ends.

        They are marked also when the block raises: it may have stored something.
        """
        try:
            yield self._live(first, page_count)
        finally:
            if self.memory.page_marks is not None:
                self.memory.page_marks.mark(first, first + page_count)

    def store_pages(self, pages: _Indices, contents: npt.NDArray[np.uint8]) -> None:
        """Store one row of `contents` to each of `pages`, wherever they lie."""
        for live, low, high in self.memory.page_spans(0, self.memory.page_count):
            here = (pages >= low) & (pages < high)
            live[pages[here] - low] = contents[here]
        self.mark_pages(pages)

    def mark_pages(self, pages: _Indices) -> None:
        """Mark pages whose data is stored."""
        if self.memory.page_marks is not None:
            self.memory.page_marks.mark_pages(pages)

    def load_pages(self, pages: _Indices) -> npt.NDArray[np.uint8]:
        """Return a copy of `pages` as rows of 4096 bytes."""
        if len(self.memory.regions) == 1:
            return self._live(0, self.memory.page_count)[pages]
        copy = np.empty((len(pages), PAGE_SIZE), np.uint8)
        for live, low, high in self.memory.page_spans(0, self.memory.page_count):
            here = (pages >= low) & (pages < high)
            copy[here] = live[pages[here] - low]
        return copy

    def run(self, first: int, page_count: int) -> npt.NDArray[np.uint8]:
        """Return the live bytes of a run of pages in one region, read-only."""
        live = self._live(first, page_count).view()
        live.flags.writeable = False
        return live

    def within_regions(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        """Cut a run of pages where regions end: yield (first, end) of each part."""
        for _, low, high in self.memory.page_spans(first, end):
            yield low, high

    def _live(self, first: int, page_count: int) -> npt.NDArray[np.uint8]:
        for live, low, high in self.memory.page_spans(first, first + page_count):
            if low != first or high != first + page_count:
                break
            return live
        raise ValueError(f"pages {first} to {first + page_count} do not lie in one region")

    # Tables

    def columns(self, address: int, layout: construct.Construct, count: int) -> "dict[str, Column]":
        """Return the fields of an array of `count` entries of `layout` at `address`, by name.

        The array must be aligned to its entries' largest field. Its cells belong to the digest from now on; `digest`
        itself is left alone, for it comes from zeroed RAM (0) or from the vCPU state.
        """
        dtype = dtype_of(layout)
        if dtype.names is None:
            raise ValueError("a table's layout has named fields")
        columns = {}
        for name in dtype.names:
            columns[name] = Column(self, address, dtype, name, count, len(self._columns))
            self._columns.append(columns[name])
        return columns

    def recompute_digest(self) -> int:
        """Return the digest of all tables as RAM holds them now."""
        return sum(column.weighted_sum() for column in self._columns) & _MASK


class Column:
    """One unsigned integer field of an array of entries in guest RAM, by entry number.

    `column[n]` and `column[n] = value` for one entry, `take` and `put` for many, `array` for a read-only live look at
    all. Every store is marked and enters the digest. An entry that does not exist raises GuestCorruption.
    """

    __slots__ = (
        "_cell_step",
        "_cells",
        "_entry_size",
        "_first_cell",
        "_first_page",
        "_high",
        "_low",
        "_marks",
        "_page_offset",
        "_ram",
        "_salt",
        "_writable",
        "array",
        "count",
    )

    def __init__(self, ram: MarkedRam, address: int, dtype: np.dtype[Any], field: str, count: int, number: int) -> None:
        if dtype.fields is None:
            raise ValueError("a table's layout has named fields")
        field_dtype, offset = dtype.fields[field][:2]
        size = field_dtype.itemsize
        if address % size or offset % size or dtype.itemsize % size:
            raise ValueError(f"field {field} at {address:#x} + {offset} is not aligned to its {size} bytes")
        raw = ram.memory.bytes_view(address, dtype.itemsize * count)
        self.count = count
        self._ram = ram
        self._marks = ram.marks
        self._cells = raw.data.cast(_CASTS[size])
        self._cell_step, self._first_cell = dtype.itemsize // size, offset // size
        self._entry_size = dtype.itemsize
        self._first_page, self._page_offset = ram.memory.page_of(address), address % PAGE_SIZE
        self._writable: npt.NDArray[Any] = raw.view(dtype)[field]
        self.array: npt.NDArray[Any] = self._writable.view()
        self.array.flags.writeable = False
        self._low, self._high = _weight_lists(-(-count >> _LOW_BITS) + 1)
        self._salt = int(mix(np.array([number + 1], np.uint64))[0]) | 1

    def __getitem__(self, index: int) -> int:
        try:
            return self._cells[index * self._cell_step + self._first_cell]
        except IndexError:
            raise self._no_entry(index) from None

    def __setitem__(self, index: int, value: int) -> None:
        cell = index * self._cell_step + self._first_cell
        change, ram = value - self[index], self._ram
        weight = (self._low[index & _LOW_MASK] ^ self._high[index >> _LOW_BITS]) * self._salt
        ram.digest = (ram.digest + change * weight) & _MASK
        self._cells[cell] = value
        if self._marks is not None:
            store_fence()
            self._marks[self._first_page + ((self._page_offset + index * self._entry_size) >> 12)] = 1

    def take(self, indices: _Indices) -> npt.NDArray[Any]:
        """Return a copy of the values of `indices`."""
        try:
            return self._writable[indices]
        except IndexError:
            raise self._no_entry(int(indices[int(np.abs(indices).argmax())])) from None

    def _no_entry(self, index: int) -> GuestCorruption:
        # Numbers of entries come from other entries: one that cannot be means that a table is broken.
        return GuestCorruption(f"a table of {self.count} entries has no entry {index}", self._first_page)

    def put(self, indices: _Indices, values: npt.NDArray[Any] | int) -> None:
        """Store one value, or one for each, to `indices`, which are distinct."""
        old = self.take(indices).astype(np.uint64)
        self._writable[indices] = values
        # Read back rather than taken from `values`: what the digest vouches for is what the field can hold.
        change = self._writable[indices].astype(np.uint64) - old
        low, high = _weights(len(self._high))
        weights = low[indices & _LOW_MASK] ^ high[indices >> _LOW_BITS]
        self._ram.digest = (self._ram.digest + int((change * weights).sum()) * self._salt) & _MASK
        if self._marks is not None:
            pages = self._first_page + ((self._page_offset + indices * self._entry_size) >> 12)
            self._ram.mark_pages(pages)

    def weighted_sum(self) -> int:
        """Return this column's part of the digest, from what RAM holds now."""
        low, high = _weights(len(self._high))
        total = 0
        for number, start in enumerate(range(0, self.count, 1 << _LOW_BITS)):
            part = self._writable[start : start + (1 << _LOW_BITS)].astype(np.uint64)
            total += int((part * (low[: len(part)] ^ high[number])).sum())
        return total * self._salt & _MASK


@cache
def _weights(high_count: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    # Tabulation hashing of the entry number: one table for its low bits, one for the rest. The low one is odd and the
    # high one even, so a weight is odd and a change of one cell always shows.
    random = np.random.Generator(np.random.PCG64(0x7461_626C))
    low = random.integers(0, 1 << 64, 1 << _LOW_BITS, np.uint64) | np.uint64(1)
    high = random.integers(0, 1 << 64, high_count, np.uint64) << np.uint64(1)
    return low, high


@cache
def _weight_lists(high_count: int) -> tuple[list[int], list[int]]:
    low, high = _weights(high_count)
    return low.tolist(), high.tolist()
