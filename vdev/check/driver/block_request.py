"""A request of a block driver, as it stands in a chain: read once, however it is cut into descriptors."""

from dataclasses import dataclass

import numpy as np

from spec.block import DATA_RANGE, REQUEST_HEADER
from spec.layout import dtype_of
from vdev.check.driver.raw_chain import RawChain
from vdev.errors import GuestAddressError
from vdev.memory import GuestMemory

__all__ = ["BlockRequest", "read_request"]

_HEADER = dtype_of(REQUEST_HEADER)
_RANGE = dtype_of(DATA_RANGE)
_RANGES_READ = 1 << 16
"""Bytes: more than any device allows in ranges."""


@dataclass(frozen=True, slots=True)
class BlockRequest:
    """Sizes are in bytes: of the data that the device reads, and of those that it writes, without header and status.

    `segment_sizes` has the part that is data of each descriptor. `readable` holds the first of the data that the device
    reads.
    """

    kind: int
    sector: int
    readable_size: int
    writable_size: int
    segment_sizes: tuple[int, ...]
    readable: bytes

    @property
    def size(self) -> int:
        """Bytes of data."""
        return self.readable_size + self.writable_size

    @property
    def ranges(self) -> list[tuple[int, int, int]]:
        """The whole ranges that the data name: (sector, sectors, flags)."""
        whole = len(self.readable) - len(self.readable) % _RANGE.itemsize
        found: list[tuple[int, int, int]] = np.frombuffer(self.readable[:whole], _RANGE).tolist()
        return found


def read_request(memory: GuestMemory, chain: RawChain) -> BlockRequest | str:
    """Return the request in a chain, or what it lacks in a few words."""
    readable = [each for each in chain.segments if not each.is_writable]
    writable = [each for each in chain.segments if each.is_writable]
    readable_size = sum(each.size for each in readable) - _HEADER.itemsize
    writable_size = sum(each.size for each in writable) - 1
    if readable_size < 0:
        return f"{readable_size + _HEADER.itemsize} device-readable bytes, where a header has {_HEADER.itemsize}"
    if writable_size < 0:
        return "no device-writable byte for the status"
    data = b""
    try:
        for each in readable:
            data += memory.read(each.address, min(each.size, _HEADER.itemsize + _RANGES_READ - len(data)))
    except GuestAddressError as error:
        return str(error)
    header = np.frombuffer(data[: _HEADER.itemsize], _HEADER)[0]
    sizes = _without(_HEADER.itemsize, [each.size for each in readable])
    sizes += reversed(_without(1, [each.size for each in reversed(writable)]))
    return BlockRequest(
        kind=int(header["type"]),
        sector=int(header["sector"]),
        readable_size=readable_size,
        writable_size=writable_size,
        segment_sizes=tuple(sizes),
        readable=data[_HEADER.itemsize :],
    )


def _without(count: int, sizes: list[int]) -> list[int]:
    """Return what is left of pieces when the first `count` bytes are taken away."""
    left = []
    for size in sizes:
        taken = min(count, size)
        count -= taken
        if size - taken:
            left.append(size - taken)
    return left
