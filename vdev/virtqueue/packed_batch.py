"""The descriptor ring of a packed queue: from many available descriptors to checked chains, without a loop over them.

The chains stand one behind the other, so one gather has them all, and one more the entries of their indirect tables.
What is not clean is only marked: `packed_descriptors.py` words the rules.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from spec.layout import dtype_of
from spec.packed_ring import PACKED_DESCRIPTOR, PackedFlag
from vdev.memory.order import load_fence
from vdev.virtqueue.chain import ChainBatch
from vdev.virtqueue.descriptors import CHAIN_SIZE_LIMIT
from vdev.virtqueue.packed_descriptors import PackedDescriptors

__all__ = ["clean_prefix"]

Positions = npt.NDArray[np.int64]
Records = npt.NDArray[Any]

_RECORD = dtype_of(PACKED_DESCRIPTOR)
_DESCRIPTOR_SIZE: int = PACKED_DESCRIPTOR.sizeof()
_NEXT, _WRITE, _INDIRECT = (np.uint16(int(flag)) for flag in (PackedFlag.NEXT, PackedFlag.WRITE, PackedFlag.INDIRECT))

_SEGMENT_BUDGET = 1 << 16
"""Table entries that one batch gathers before it takes fewer chains: tables of a hostile driver could hold 2^30."""


def clean_prefix(
    descriptors: PackedDescriptors, place: int, free_count: int, limit: int
) -> tuple[ChainBatch, Positions]:
    """Return the available chains from `place` on, at most `limit`, up to the first that breaks a rule.

    Beside them stands for each how many descriptors it takes. There may be fewer of them than that, even none, where
    the chains are very long.
    """
    ring = descriptors.ring
    count = ring.available_count(place, free_count)
    load_fence()
    records = ring.copy(place, count)
    # The flags may have changed since: this copy counts.
    records = records[: ring.available_prefix(place, records["flags"])]
    ends = np.flatnonzero((records["flags"] & _NEXT) == 0)[:limit]
    if not len(ends):
        return ChainBatch.of([]), np.empty(0, np.int64)
    records = records[: int(ends[-1]) + 1]
    return _Check(descriptors, records, ends).result()


class _Check:
    """The copy of some whole chains, of which each ends at one of `ends`."""

    def __init__(self, descriptors: PackedDescriptors, records: Records, ends: Positions) -> None:
        self.descriptors = descriptors
        self.records = records
        self.counts = ends + 1
        self.counts[1:] -= self.counts[:-1].copy()
        self.heads = records["id"][ends].astype(np.int64)
        self.dirty = np.zeros(len(ends), np.bool_)
        self.end = len(ends)

    def result(self) -> tuple[ChainBatch, Positions]:
        """Return the clean prefix of the chains, and how many descriptors each takes."""
        usable = self.heads < self.descriptors.ring.size
        if not usable.all():
            self.end = int(np.argmin(usable))
        heads = self.heads[: self.end]
        self.dirty[: self.end] |= ~self.descriptors.outstanding.can_take(heads)
        segment_chain, records = self._segments()
        addresses, sizes = records["addr"], records["len"].astype(np.uint64)
        writable = (records["flags"] & _WRITE) != 0
        self.dirty[segment_chain[~self.descriptors.memory.contains_many(addresses, sizes)]] = True
        same_chain = segment_chain[1:] == segment_chain[:-1]
        if same_chain.any():
            self.dirty[segment_chain[1:][same_chain & writable[:-1] & ~writable[1:]]] = True
            # Sums of doubles are exact here: 2^15 segments of less than 2^32 bytes each.
            self.dirty |= np.bincount(segment_chain, sizes, len(self.dirty)) > CHAIN_SIZE_LIMIT
        unclean = np.flatnonzero(self.dirty[: self.end])
        count = int(unclean[0]) if len(unclean) else self.end
        segment_count = int(np.searchsorted(segment_chain, count))
        batch = ChainBatch(
            heads=self.heads[:count],
            segment_chain=segment_chain[:segment_count],
            addresses=addresses[:segment_count].copy(),
            sizes=sizes[:segment_count],
            writable=writable[:segment_count],
        )
        return batch, self.counts[:count]

    def _segments(self) -> tuple[Positions, Records]:
        """Return every segment of the first `end` chains, with its chain: table entries instead of what names them."""
        segment_chain = np.arange(len(self.heads))
        if len(self.records) > len(self.heads):
            segment_chain = np.repeat(segment_chain, self.counts)
        flags = self.records["flags"]
        if not (flags & _INDIRECT).any():
            return segment_chain, self.records
        is_indirect = (flags & _INDIRECT) != 0
        entry_counts = self._entry_counts(segment_chain, is_indirect)
        wanted = np.cumsum(entry_counts)
        if wanted[-1] > _SEGMENT_BUDGET:
            affordable = int(np.searchsorted(wanted, _SEGMENT_BUDGET, side="right"))
            self.end = min(self.end, max(1, int(segment_chain[min(affordable, len(wanted) - 1)])))
        kept = segment_chain < self.end
        segment_chain, records, entry_counts = segment_chain[kept], self.records[kept], entry_counts[kept]
        of_segment = np.repeat(np.arange(len(records)), entry_counts)
        within = np.arange(len(of_segment)) - np.repeat(np.cumsum(entry_counts) - entry_counts, entry_counts)
        in_table = is_indirect[kept][of_segment]
        segments = records[of_segment]
        places = segments["addr"] + (within * _DESCRIPTOR_SIZE).astype(np.uint64)
        segments[in_table] = self.descriptors.memory.gather(places[in_table], _RECORD)
        return segment_chain[of_segment], segments

    def _entry_counts(self, segment_chain: Positions, is_indirect: npt.NDArray[np.bool_]) -> Positions:
        """Return how many segments each descriptor stands for; one that is no table marks its chain."""
        sizes = self.records["len"].astype(np.int64)
        clean = np.full(len(sizes), self.descriptors.indirect)
        clean &= self.counts[segment_chain] == 1
        clean &= (sizes > 0) & (sizes % _DESCRIPTOR_SIZE == 0)
        clean &= sizes // _DESCRIPTOR_SIZE <= self.descriptors.ring.size
        clean &= self.descriptors.memory.contains_many(self.records["addr"], self.records["len"].astype(np.uint64))
        self.dirty[segment_chain[is_indirect & ~clean]] = True
        return np.where(is_indirect, np.where(clean, sizes // _DESCRIPTOR_SIZE, 0), 1)
