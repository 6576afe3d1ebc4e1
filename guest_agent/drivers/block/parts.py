"""Cutting what a caller asks for into requests that the device's limits allow."""

from collections.abc import Sequence
from typing import NamedTuple

from spec.block import SECTOR_SHIFT, SECTOR_SIZE

__all__ = ["Limits", "Part", "split_ranges", "split_transfer"]

Segments = Sequence[tuple[int, int]]
"""(guest-physical address, bytes) pairs."""


class Limits(NamedTuple):
    """What one request may have: bytes in a segment of data, segments of data."""

    size_max: int
    seg_max: int


class Part(NamedTuple):
    """One request's share of a transfer: its first sector, and its data."""

    sector: int
    segments: Segments
    size: int


def split_transfer(sector: int, segments: Segments, limits: Limits) -> list[Part]:
    """Return the transfer between the disk from `sector` on and `segments` as parts of whole sectors, in order.

    Raises ValueError if `segments` are not whole sectors together, or so small that no part could hold a sector.

    >>> split_transfer(8, [(0x1000, 4096)], Limits(2048, 1))
    [Part(sector=8, segments=[(4096, 2048)], size=2048), Part(sector=12, segments=[(6144, 2048)], size=2048)]
    """
    if len(segments) == 1 and 0 < segments[0][1] <= limits.size_max and not segments[0][1] % SECTOR_SIZE:
        return [Part(sector, segments, segments[0][1])]
    total_size = sum([size for _, size in segments])
    if not total_size or total_size % SECTOR_SIZE:
        raise ValueError(f"{total_size} bytes are not one or more whole sectors")
    if len(segments) <= limits.seg_max and max([size for _, size in segments]) <= limits.size_max:
        return [Part(sector, segments, total_size)]
    parts: list[Part] = []
    rest = [(address, size) for address, size in reversed(segments) if size]
    while rest:
        taken, size = _take(rest, limits)
        parts.append(Part(sector, taken, size))
        sector += size >> SECTOR_SHIFT
    return parts


def _take(rest: list[tuple[int, int]], limits: Limits) -> tuple[list[tuple[int, int]], int]:
    """Take whole sectors from the end of `rest`, whose last segment is the next to go."""
    taken: list[tuple[int, int]] = []
    total_size = 0
    while rest and len(taken) < limits.seg_max:
        address, size = rest.pop()
        if size > limits.size_max:
            rest.append((address + limits.size_max, size - limits.size_max))
            size = limits.size_max
        taken.append((address, size))
        total_size += size
    surplus = total_size % SECTOR_SIZE
    total_size -= surplus
    if not total_size:
        raise ValueError(f"{len(taken)} segments, as many as a request can have, do not hold a sector")
    while surplus:
        address, size = taken.pop()
        given_back = min(size, surplus)
        rest.append((address + size - given_back, given_back))
        if size > given_back:
            taken.append((address, size - given_back))
        surplus -= given_back
    return taken, total_size


def split_ranges(ranges: Sequence[tuple[int, int]], sectors_max: int, ranges_max: int) -> list[list[tuple[int, int]]]:
    """Return (sector, count) `ranges` in pieces of at most `sectors_max`, in groups of at most `ranges_max`.

    >>> split_ranges([(0, 5), (100, 1)], 2, 3)
    [[(0, 2), (2, 2), (4, 1)], [(100, 1)]]
    """
    pieces = [
        (at, min(sectors_max, sector + count - at))
        for sector, count in ranges
        for at in range(sector, sector + count, sectors_max)
    ]
    return [pieces[at : at + ranges_max] for at in range(0, len(pieces), ranges_max)]
