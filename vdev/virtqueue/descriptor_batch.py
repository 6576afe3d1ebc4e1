"""The descriptor table: from many heads to checked chains, a numpy step per depth and never a loop over descriptors.

All chains of a batch advance together: at depth 0 the heads' descriptors are gathered, at depth 1 those they name as
next, and so on; then the indirect tables in the same way. What is not clean is only marked: `descriptors.py` words
the rules.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from spec.layout import dtype_of
from spec.split_ring import DESCRIPTOR, DescriptorFlag
from vdev.virtqueue.chain import ChainBatch
from vdev.virtqueue.descriptors import CHAIN_SIZE_LIMIT, DescriptorTable
from vdev.virtqueue.indirect import DESCRIPTOR_SIZE
from vdev.virtqueue.straight_tables import straight_chains

__all__ = ["clean_prefix"]

Positions = npt.NDArray[np.int64]
Records = npt.NDArray[Any]

_RECORD = dtype_of(DESCRIPTOR)
_NEXT, _WRITE, _INDIRECT = (np.uint16(flag) for flag in DescriptorFlag)

_SEGMENT_BUDGET = 1 << 16
"""Descriptors that one batch gathers before it takes fewer chains: tables of a hostile driver could hold 2^30."""


def clean_prefix(table: DescriptorTable, heads: Positions) -> ChainBatch:
    """Return the chains of the longest prefix of `heads` (all below the table's size) that break no rule.

    The prefix may be shorter than that, even empty, where the chains are very long.
    """
    if (straight := straight_chains(table, heads, _SEGMENT_BUDGET)) is not None:
        return straight
    walk = _Walk(table, heads)
    walk.walk_main()
    walk.walk_indirect()
    return walk.result()


class _Walk:
    """All chains of a batch on their way. A chain is known by its position in the batch.

    `end` is the number of chains that are still wanted; those behind it are left for the next batch.
    """

    def __init__(self, table: DescriptorTable, heads: Positions) -> None:
        self.table = table
        self.heads = heads
        self.end = len(heads)
        self.dirty = np.zeros(len(heads), np.bool_)
        self.levels: list[tuple[Positions, Records]] = []
        self.indirect_chains: list[Positions] = []
        self.indirect_records: list[Records] = []
        self.gathered_count = 0

    def walk_main(self) -> None:
        """Follow every chain through the main table, up to its end or its indirect descriptor."""
        chains, at = np.arange(len(self.heads)), self.heads
        for _ in range(self.table.size):
            records = self.table.records[at]
            flags = records["flags"]
            is_indirect = (flags & _INDIRECT) != 0
            if is_indirect.any():
                self._note_indirect(chains[is_indirect], records[is_indirect])
                chains, records = chains[~is_indirect], records[~is_indirect]
            chains, at = self._advance(chains, records, np.int64(self.table.size))
            if not len(chains):
                return
        self.dirty[chains] = True

    def _note_indirect(self, chains: Positions, records: Records) -> None:
        sizes = records["len"].astype(np.int64)
        clean = np.full(len(chains), self.table.indirect)
        clean &= (records["flags"] & _NEXT) == 0
        clean &= (sizes > 0) & (sizes % DESCRIPTOR_SIZE == 0) & (sizes // DESCRIPTOR_SIZE <= self.table.size)
        clean &= self.table.memory.contains_many(records["addr"], records["len"].astype(np.uint64))
        self.dirty[chains[~clean]] = True
        self.indirect_chains.append(chains[clean])
        self.indirect_records.append(records[clean])

    def walk_indirect(self) -> None:
        """Follow every chain that met an indirect descriptor through its table."""
        if not self.indirect_chains:
            return
        chains = np.concatenate(self.indirect_chains)
        tables = np.concatenate(self.indirect_records)
        order = np.argsort(chains)
        order = order[chains[order] < self.end]
        chains, tables = chains[order], tables[order]
        starts = np.zeros(len(self.heads), np.uint64)
        entry_counts = np.zeros(len(self.heads), np.int64)
        starts[chains] = tables["addr"]
        entry_counts[chains] = tables["len"] // DESCRIPTOR_SIZE
        at = np.zeros(len(chains), np.int64)
        for depth in range(self.table.size):
            looped = entry_counts[chains] <= depth
            if looped.any():
                self.dirty[chains[looped]] = True
                chains, at = chains[~looped], at[~looped]
            if not len(chains):
                return
            records = self.table.memory.gather(starts[chains] + (at * DESCRIPTOR_SIZE).astype(np.uint64), _RECORD)
            nested = (records["flags"] & _INDIRECT) != 0
            self.dirty[chains[nested]] = True
            chains, records = chains[~nested], records[~nested]
            chains, at = self._advance(chains, records, entry_counts[chains])
        self.dirty[chains] = True

    def _advance(
        self, chains: Positions, records: Records, entry_counts: Positions | np.int64
    ) -> tuple[Positions, Positions]:
        """Keep the segments of this depth, and return the chains that go on, and at which index."""
        self.levels.append((chains, records))
        self.gathered_count += len(chains)
        at = records["next"].astype(np.int64)
        goes_on = (records["flags"] & _NEXT) != 0
        outside = goes_on & (at >= entry_counts)
        self.dirty[chains[outside]] = True
        goes_on &= ~outside
        chains, at = chains[goes_on], at[goes_on]
        while self.gathered_count + len(chains) > _SEGMENT_BUDGET and self.end > 1:
            self.end //= 2
            wanted = chains < self.end
            chains, at = chains[wanted], at[wanted]
            self.levels = [(of[of < self.end], level[of < self.end]) for of, level in self.levels]
            self.gathered_count = sum(len(of) for of, _ in self.levels)
        return chains, at

    def result(self) -> ChainBatch:
        """Check the copies, and return the clean prefix."""
        if len(self.levels) == 1:
            [(segment_chain, records)] = self.levels
        else:
            segment_chain = np.concatenate([of for of, _ in self.levels])
            records = np.concatenate([level for _, level in self.levels])
            order = np.argsort(segment_chain, kind="stable")
            segment_chain, records = segment_chain[order], records[order]
        addresses, sizes = records["addr"], records["len"].astype(np.uint64)
        writable = (records["flags"] & _WRITE) != 0
        self.dirty[segment_chain[~self.table.memory.contains_many(addresses, sizes)]] = True
        if len(self.levels) > 1:
            self._check_whole_chains(segment_chain, sizes, writable)
        unclean = np.flatnonzero(self.dirty[: self.end])
        count = int(unclean[0]) if len(unclean) else self.end
        segment_count = int(np.searchsorted(segment_chain, count))
        return ChainBatch(
            heads=self.heads[:count],
            segment_chain=segment_chain[:segment_count],
            addresses=addresses[:segment_count].copy(),
            sizes=sizes[:segment_count],
            writable=writable[:segment_count],
        )

    def _check_whole_chains(
        self, segment_chain: Positions, sizes: npt.NDArray[np.uint64], writable: npt.NDArray[np.bool_]
    ) -> None:
        same_chain = segment_chain[1:] == segment_chain[:-1]
        self.dirty[segment_chain[1:][same_chain & writable[:-1] & ~writable[1:]]] = True
        # Sums of doubles are exact here: 2^15 segments of less than 2^32 bytes each.
        self.dirty |= np.bincount(segment_chain, sizes, len(self.dirty)) > CHAIN_SIZE_LIMIT
        self.dirty |= np.bincount(segment_chain, minlength=len(self.dirty)) > self.table.size
