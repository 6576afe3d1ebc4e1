"""Guest RAM: regions at guest-physical addresses, and checked access to them.

A guest-physical address is a 64-bit number that the other side chose. Every access here is checked against one
region, and an error names the address. Live views are numpy arrays over the same bytes: what the other side stores,
shows.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import add
from typing import Any

import construct
import numpy as np
import numpy.typing as npt

from spec.layout import dtype_of
from vdev.errors import GuestAddressError
from vdev.memory.backing import Backing, PrivateBacking
from vdev.memory.order import full_fence
from vdev.memory.page_marks import PageMarks
from vdev.memory.pages import PAGE_SHIFT, PAGE_SIZE, PageRanges

__all__ = ["GuestMemory", "Region"]

_ADDRESS_LIMIT = 1 << 64


@dataclass(frozen=True)
class Region:
    """`backing.size` bytes of RAM from `guest_address` on; both are multiples of the page size."""

    guest_address: int
    backing: Backing

    @property
    def size(self) -> int:
        """Bytes."""
        return self.backing.size

    @property
    def end(self) -> int:
        """The first guest-physical address behind the region."""
        return self.guest_address + self.backing.size


class GuestMemory:
    """One or more regions that do not overlap.

    `page_marks`, if given, gets a mark for each page written through `write`, or told with `mark_written` after a
    store through a view.

    >>> memory = GuestMemory.private(1 << 20)
    >>> memory.write(0x1000, b"hello")
    >>> memory.read(0x1000, 5)
    b'hello'
    """

    full_fence = staticmethod(full_fence)
    """What orders stores before later loads of this RAM (`vdev.memory.order`); a model of it may have its own."""

    def __init__(self, regions: Sequence[Region], page_marks: PageMarks | None = None) -> None:
        if not regions:
            raise ValueError("guest RAM needs at least one region")
        self.page_marks = page_marks
        self.replace_regions(regions)

    @classmethod
    def absent(cls) -> "GuestMemory":
        """Return guest RAM that nobody has told of yet: no address is in it until `replace_regions`."""
        memory = cls.__new__(cls)
        memory.page_marks = None
        memory.replace_regions(())
        return memory

    def replace_regions(self, regions: Sequence[Region]) -> None:
        """Be RAM of these regions from now on: a vhost-user front end tells its memory late, and changes it.

        Views and page numbers that were had before go on meaning the old regions: whoever keeps some must be told.
        Raises as the constructor does, and is then as before.
        """
        ordered = tuple(sorted(regions, key=lambda region: region.guest_address))
        for region in ordered:
            if region.guest_address % PAGE_SIZE or region.size % PAGE_SIZE or not region.size:
                raise ValueError(f"the region at {region.guest_address:#x} is not made of whole pages")
            if region.end > _ADDRESS_LIMIT:
                raise GuestAddressError(region.guest_address, region.size, "the region ends past 2^64")
        for before, after in pairwise(ordered):
            if before.end > after.guest_address:
                raise ValueError(f"the regions at {before.guest_address:#x} and {after.guest_address:#x} overlap")
        self.regions = ordered
        # What each checked access looks at: where a region begins, its bytes, the region.
        self._spans = tuple((region.guest_address, region.size, region) for region in ordered)
        self._starts = np.array([region.guest_address for region in self.regions], np.uint64)
        self._sizes = np.array([region.size for region in self.regions], np.uint64)
        page_counts = [region.size >> PAGE_SHIFT for region in self.regions]
        self._first_pages = np.concatenate(([0], np.cumsum(page_counts))).astype(np.int64)
        self.page_count = int(self._first_pages[-1])

    @classmethod
    def private(cls, size: int, guest_address: int = 0) -> "GuestMemory":
        """Return RAM of `size` bytes of private memory in one region."""
        return cls([Region(guest_address, PrivateBacking(size))])

    @property
    def size(self) -> int:
        """Bytes of RAM in all regions."""
        return self.page_count << PAGE_SHIFT

    # Checked access by guest-physical address

    def locate(self, address: int, size: int) -> tuple[Region, int]:
        """Return the region that wholly holds the range, and the range's offset in it, bytes.

        Raises GuestAddressError if the range is negative, runs past 2^64, begins outside RAM, or crosses the end of
        its region (even into a neighbour).
        """
        for start, region_size, region in self._spans:
            offset = address - start
            if 0 <= offset < region_size or (size == 0 and offset == region_size):
                if size < 0 or offset + size > region_size:
                    break
                return region, offset
        raise self._address_error(address, size)

    def _address_error(self, address: int, size: int) -> GuestAddressError:
        if address < 0 or size < 0:
            return GuestAddressError(address, size, "negative")
        if address + size > _ADDRESS_LIMIT:
            return GuestAddressError(address, size, "the range runs past 2^64")
        for region in self.regions:
            if region.guest_address <= address < region.end:
                return GuestAddressError(address, size, f"crosses the end of its region at {region.end:#x}")
        ranges = ", ".join(f"{region.guest_address:#x}-{region.end:#x}" for region in self.regions)
        return GuestAddressError(address, size, f"outside guest RAM ({ranges})")

    def contains(self, address: int, size: int) -> bool:
        """Say whether the range lies wholly in one region."""
        try:
            self.locate(address, size)
        except GuestAddressError:
            return False
        return True

    def read(self, address: int, size: int) -> bytes:
        """Return a copy of `size` bytes."""
        region, offset = self.locate(address, size)
        return region.backing.data.data[offset : offset + size].tobytes()

    def write(self, address: int, data: bytes | bytearray | memoryview | npt.NDArray[np.uint8]) -> None:
        """Store `data` and mark its pages as written."""
        size = len(data)
        region, offset = self.locate(address, size)
        region.backing.data.data[offset : offset + size] = data.data if isinstance(data, np.ndarray) else data
        self.mark_written(address, size)

    def bytes_view(self, address: int, size: int) -> npt.NDArray[np.uint8]:
        """Return the live bytes of a range."""
        region, offset = self.locate(address, size)
        return region.backing.data[offset : offset + size]

    def view(
        self, address: int, layout: construct.Construct | np.dtype[Any], count: int | None = None
    ) -> npt.NDArray[Any]:
        """Return a live numpy view of a layout: shape () for one, or (count,) for an array of them.

        `layout` is a construct declaration of fixed size or a dtype.
        """
        dtype = layout if isinstance(layout, np.dtype) else dtype_of(layout)
        raw = self.bytes_view(address, dtype.itemsize * (1 if count is None else count))
        return raw.view(dtype).reshape(()) if count is None else raw.view(dtype)

    def gather(
        self, addresses: npt.NDArray[np.uint64], layout: construct.Construct | np.dtype[Any]
    ) -> npt.NDArray[Any]:
        """Return a copy of one layout at each of `addresses`, of any alignment, in one go.

        Raises GuestAddressError for the first that is not in RAM.
        """
        dtype = layout if isinstance(layout, np.dtype) else dtype_of(layout)
        count, size = len(addresses), dtype.itemsize
        if not count:
            return np.empty(0, dtype)
        region_of, offsets = self._locate_many(addresses, np.array([size], np.uint64))
        at = offsets.view(np.int64)
        # Whole words where that is possible: an eighth of the elements.
        shift = 0 if (size | int(np.bitwise_or.reduce(at))) & 7 else 3
        unit = np.uint64 if shift else np.uint8
        places = (at >> shift)[:, None] + np.arange(size >> shift)
        copy: npt.NDArray[Any]
        if len(self.regions) == 1:
            copy = self.regions[0].backing.data.view(unit)[places]
        else:
            copy = np.empty(places.shape, unit)
            for index, region in enumerate(self.regions):
                chosen = region_of == index
                copy[chosen] = region.backing.data.view(unit)[places[chosen]]
        return copy.view(dtype).reshape(count)

    def byte_view(self, address: int, size: int) -> memoryview:
        """Return the live bytes of a range as preadv(2) and pwritev(2) take them."""
        region, offset = self.locate(address, size)
        return region.backing.data.data[offset : offset + size]

    def byte_views(self, addresses: npt.NDArray[np.uint64], sizes: npt.NDArray[np.uint64]) -> list[memoryview]:
        """Return the live bytes of each range, as preadv(2) and pwritev(2) take them; sizes in bytes.

        Raises GuestAddressError for the first that is not wholly in one region.
        """
        if not len(addresses):
            return []
        begins: list[int]
        if len(self.regions) == 1:
            # As many slices are cut anyway; here numpy would cost as much again.
            (region,) = self.regions
            begins = [address - region.guest_address for address in addresses.tolist()]
            ends = list(map(add, begins, sizes.tolist()))
            if min(begins) >= 0 and max(ends) <= region.size:
                only = region.backing.data.data
                return [only[begin:end] for begin, end in zip(begins, ends, strict=True)]
        region_of, offsets = self._locate_many(addresses, sizes)
        begins, ends = offsets.tolist(), (offsets + sizes).tolist()
        live = [region.backing.data.data for region in self.regions]
        return [live[index][begin:end] for index, begin, end in zip(region_of.tolist(), begins, ends, strict=True)]

    def contains_many(self, addresses: npt.NDArray[np.uint64], sizes: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        """Say for each range whether it lies wholly in one region; sizes in bytes."""
        _, offsets, region_sizes = self._regions_of(addresses)
        return _are_inside(offsets, sizes, region_sizes)

    def _regions_of(
        self, addresses: npt.NDArray[np.uint64]
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
        if len(self.regions) == 1:
            # Broadcasting makes one size do for all.
            return np.zeros(len(addresses), np.intp), addresses - self._starts, self._sizes
        if not self.regions:
            return np.zeros(len(addresses), np.intp), np.ones_like(addresses), np.zeros_like(addresses)
        # Below the first region the index is 0 and the offset wraps to a huge number, which no size allows.
        index = np.maximum(np.searchsorted(self._starts, addresses, side="right") - 1, 0)
        return index, addresses - self._starts[index], self._sizes[index]

    def _locate_many(
        self, addresses: npt.NDArray[np.uint64], sizes: npt.NDArray[np.uint64]
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.uint64]]:
        """Return the region's index and the offset in it of each range; `sizes` of one entry holds for all."""
        index, offsets, region_sizes = self._regions_of(addresses)
        good = _are_inside(offsets, sizes, region_sizes)
        if not good.all():
            bad = int(np.argmin(good))
            raise self._address_error(int(addresses[bad]), int(np.broadcast_to(sizes, addresses.shape)[bad]))
        return index, offsets

    # Dense page numbers

    def page_of(self, address: int) -> int:
        """Return the page number that holds `address`."""
        region, offset = self.locate(address, 1)
        return int(self._first_pages[self.regions.index(region)]) + (offset >> PAGE_SHIFT)

    def address_of(self, page: int) -> int:
        """Return the guest-physical address of a page's first byte."""
        if not 0 <= page < self.page_count:
            raise IndexError(f"page {page} of {self.page_count}")
        index = int(np.searchsorted(self._first_pages, page, side="right")) - 1
        return self.regions[index].guest_address + ((page - int(self._first_pages[index])) << PAGE_SHIFT)

    def addresses_of(self, pages: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        """Return the guest-physical address of each page."""
        index = np.searchsorted(self._first_pages, pages, side="right") - 1
        within = (pages - self._first_pages[index]).astype(np.uint64) << np.uint64(PAGE_SHIFT)
        return self._starts[index] + within

    def pages_of(self, addresses: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """Return the page number that holds each address; all must lie in RAM."""
        index, offsets = self._locate_many(addresses, np.ones(len(addresses), np.uint64))
        return self._first_pages[index] + (offsets >> np.uint64(PAGE_SHIFT)).astype(np.int64)

    def page_ranges_inside(self, addresses: npt.NDArray[np.uint64], sizes: npt.NDArray[np.uint64]) -> PageRanges:
        """Return the whole pages inside each byte range, rounded inwards; all ranges must lie in RAM.

        A range without a whole page gives an empty range, so the result has the length of the input.
        """
        index, offsets = self._locate_many(addresses, sizes)
        base = self._first_pages[index]
        first = base + ((offsets + np.uint64(PAGE_SIZE - 1)) >> np.uint64(PAGE_SHIFT)).astype(np.int64)
        end = base + ((offsets + sizes) >> np.uint64(PAGE_SHIFT)).astype(np.int64)
        return PageRanges(first, np.maximum(first, end))

    def page_spans(self, first: int, end: int) -> Iterable[tuple[npt.NDArray[np.uint8], int, int]]:
        """Yield, region by region, the live (n, 4096) array of the pages from `first` to `end` and their numbers."""
        for index, region in enumerate(self.regions):
            base, limit = int(self._first_pages[index]), int(self._first_pages[index + 1])
            low, high = max(first, base), min(end, limit)
            if low < high:
                data = region.backing.data[(low - base) << PAGE_SHIFT : (high - base) << PAGE_SHIFT]
                yield data.reshape(-1, PAGE_SIZE), low, high

    def region_first_page(self, region: Region) -> int:
        """Return the page number of a region's first page."""
        return int(self._first_pages[self.regions.index(region)])

    # Writes through views, and memory given back

    def mark_written(self, address: int, size: int) -> None:
        """Mark the pages of a range that was stored to through a view."""
        if self.page_marks is None or size <= 0:
            return
        first = self.page_of(address)
        self.page_marks.mark(first, first + ((address % PAGE_SIZE + size - 1) >> PAGE_SHIFT) + 1)

    def mark_written_many(self, addresses: npt.NDArray[np.uint64], sizes: npt.NDArray[np.uint64]) -> None:
        """Mark the pages of many ranges that were stored to through views; all must lie in RAM."""
        if self.page_marks is None:
            return
        stored = sizes > 0
        index, offsets = self._locate_many(addresses[stored], sizes[stored])
        base = self._first_pages[index]
        first = base + (offsets >> np.uint64(PAGE_SHIFT)).astype(np.int64)
        last = base + ((offsets + sizes[stored] - np.uint64(1)) >> np.uint64(PAGE_SHIFT)).astype(np.int64)
        self.page_marks.mark_pages(PageRanges(first, last + 1).to_pages())

    def give_back(self, ranges: PageRanges) -> int:
        """Return pages to the operating system and mark them as written, for they read as zero now.

        Returns the bytes by which the memory fell that is lent for RAM.
        """
        before = self._lent_size()
        self.discard(ranges)
        if self.page_marks is not None:
            for first, end in zip(ranges.first.tolist(), ranges.end.tolist(), strict=True):
                self.page_marks.mark(first, end)
        return before - self._lent_size()

    def discard(self, ranges: PageRanges) -> None:
        """Return pages to the operating system that nobody is to rely on: no dirty log is told."""
        for first, end in zip(ranges.first.tolist(), ranges.end.tolist(), strict=True):
            for index, region in enumerate(self.regions):
                base, limit = int(self._first_pages[index]), int(self._first_pages[index + 1])
                low, high = max(first, base), min(end, limit)
                if low < high:
                    region.backing.give_back((low - base) << PAGE_SHIFT, (high - low) << PAGE_SHIFT)

    def _lent_size(self) -> int:
        # Not `resident_size`, which may have to look at each page of RAM. One file may have several regions.
        return sum(dict(region.backing.lent() for region in self.regions).values())

    def resident_size(self) -> int:
        """Bytes of memory the operating system has lent for RAM at this moment."""
        return sum(region.backing.resident_size() for region in self.regions)


def _are_inside(
    offsets: npt.NDArray[np.uint64], sizes: npt.NDArray[np.uint64], region_sizes: npt.NDArray[np.uint64]
) -> npt.NDArray[np.bool_]:
    # What is left behind an offset past the end wraps to a huge number; then the first condition does not hold.
    return (offsets <= region_sizes) & (sizes <= region_sizes - offsets)
