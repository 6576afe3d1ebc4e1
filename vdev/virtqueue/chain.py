"""Buffers as the device sees them: a chain of segments, or many chains as flat arrays."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vdev.memory import GuestMemory

__all__ = ["Chain", "ChainBatch", "Segment"]


class Segment(NamedTuple):
    """One physically contiguous element of a buffer: guest-physical address and size in bytes."""

    address: int
    size: int


@dataclass(frozen=True, slots=True)
class Chain:
    """One buffer that the driver made available (virtio 1.4, "Message Framing").

    `head` names it towards the queue: hand it to `push` when done. Every segment has been checked: it lies in RAM,
    readable ones come before writable ones, and together they are at most 2^32 bytes.
    """

    head: int
    readable: tuple[Segment, ...]
    writable: tuple[Segment, ...]

    @property
    def readable_size(self) -> int:
        """Bytes that the device may read."""
        return sum([size for _, size in self.readable])

    @property
    def writable_size(self) -> int:
        """Bytes that the device may write."""
        return sum([size for _, size in self.writable])

    def read(self, memory: GuestMemory) -> bytes:
        """Return a copy of all readable bytes. The driver can change them meanwhile: read once, use the copy."""
        return b"".join([memory.read(segment.address, segment.size) for segment in self.readable])

    def write(self, memory: GuestMemory, data: bytes) -> int:
        """Store `data` from the first writable segment on; returns its size, which is what `push` wants to know.

        Raises ValueError if `data` is larger than the writable segments together.
        """
        data_size = len(data)
        if len(self.writable) == 1 and data_size <= self.writable[0].size:
            memory.write(self.writable[0].address, data)
            return data_size
        if data_size > self.writable_size:
            raise ValueError(f"{data_size} bytes do not fit into {self.writable_size} writable bytes")
        rest = memoryview(data)
        for address, size in self.writable:
            if not rest:
                break
            memory.write(address, rest[:size])
            rest = rest[size:]
        return data_size


@dataclass(frozen=True, slots=True)
class ChainBatch:
    """Many chains as flat arrays: one `heads` per chain, and one entry of the others per segment, chain by chain.

    `segment_chain` is the position in `heads` of the chain that the segment belongs to, in ascending order.
    `addresses` and `sizes` (bytes) are uint64, `writable` is bool, `heads` and `segment_chain` are int64. All are
    copies; what the driver stores later does not show. The checks are those of `Chain`.
    """

    heads: npt.NDArray[np.int64]
    segment_chain: npt.NDArray[np.int64]
    addresses: npt.NDArray[np.uint64]
    sizes: npt.NDArray[np.uint64]
    writable: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.heads)

    def __iter__(self) -> Iterator[Chain]:
        return (self.chain(position) for position in range(len(self)))

    def writable_sizes(self) -> npt.NDArray[np.uint64]:
        """Return for each chain the bytes that the device may write."""
        # Sums of doubles are exact here: a chain is at most 2^32 bytes.
        sums = np.bincount(self.segment_chain, self.sizes * self.writable, len(self))
        return sums.astype(np.uint64)

    def chain(self, position: int) -> Chain:
        """Return the chain at `position`, for a device that handles buffers one by one. Raises IndexError."""
        head = int(self.heads[position])
        if position < 0:
            position += len(self)
        first, end = np.searchsorted(self.segment_chain, (position, position + 1)).tolist()
        segments = list(map(Segment, self.addresses[first:end].tolist(), self.sizes[first:end].tolist()))
        # Writable segments come last, so their number is the place where they begin.
        readable_count = len(segments) - int(np.count_nonzero(self.writable[first:end]))
        return Chain(head, tuple(segments[:readable_count]), tuple(segments[readable_count:]))

    @classmethod
    def of(cls, chains: list[Chain]) -> "ChainBatch":
        """Return the batch that holds `chains`."""
        columns = [
            (position, segment.address, segment.size, is_writable)
            for position, chain in enumerate(chains)
            for segments, is_writable in ((chain.readable, False), (chain.writable, True))
            for segment in segments
        ]
        positions, addresses, sizes, writable = zip(*columns, strict=True) if columns else ((), (), (), ())
        return cls(
            heads=np.array([chain.head for chain in chains], np.int64),
            segment_chain=np.array(positions, np.int64),
            addresses=np.array(addresses, np.uint64),
            sizes=np.array(sizes, np.uint64),
            writable=np.array(writable, np.bool_),
        )

    @classmethod
    def joined(cls, batches: list["ChainBatch"]) -> "ChainBatch":
        """Return the batch that holds the chains of all `batches`."""
        if not batches:
            return cls.of([])
        firsts = np.cumsum([0] + [len(batch) for batch in batches[:-1]])
        return cls(
            heads=np.concatenate([batch.heads for batch in batches]),
            segment_chain=np.concatenate(
                [batch.segment_chain + first for batch, first in zip(batches, firsts, strict=True)]
            ),
            addresses=np.concatenate([batch.addresses for batch in batches]),
            sizes=np.concatenate([batch.sizes for batch in batches]),
            writable=np.concatenate([batch.writable for batch in batches]),
        )
