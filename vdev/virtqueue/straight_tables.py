"""Indirect tables whose entries follow one another, as all known drivers write them: many in a few numpy steps.

Here a table is read as what it nearly always is. Where one is not, or breaks a rule, nothing is said about it:
`descriptor_batch.py` follows every link.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from spec.layout import dtype_of
from spec.split_ring import DESCRIPTOR, DescriptorFlag
from vdev.virtqueue.chain import ChainBatch
from vdev.virtqueue.descriptors import CHAIN_SIZE_LIMIT, DescriptorTable
from vdev.virtqueue.indirect import DESCRIPTOR_SIZE

__all__ = ["straight_chains"]

_RECORD = dtype_of(DESCRIPTOR)
_NEXT, _WRITE, _INDIRECT = (np.uint16(flag) for flag in DescriptorFlag)
_LINKS = _NEXT | _INDIRECT
_SHIFT = np.uint32(DESCRIPTOR_SIZE.bit_length() - 1)
_WITHIN = np.uint32(DESCRIPTOR_SIZE - 1)

_KEPT_SIZE = 2048
"""Entries up to which a shape is kept for the next batch: some ten bytes each."""


def straight_chains(table: DescriptorTable, heads: npt.NDArray[np.int64], segment_budget: int) -> ChainBatch | None:
    """Return the chains of all `heads` if each is one clean indirect table in order, else None.

    None, too, if they have more than `segment_budget` segments together.
    """
    if not table.indirect or not len(heads):
        return None
    tables = table.records[heads]
    # WRITE means nothing in a descriptor that refers to a table.
    if ((tables["flags"] & ~_WRITE) != _INDIRECT).any():
        return None
    table_addresses, table_sizes = tables["addr"], tables["len"]
    counts = table_sizes >> _SHIFT
    fewest, most = int(counts.min()), int(counts.max())
    if (table_sizes & _WITHIN).any() or not fewest or most > table.size or most * len(heads) > segment_budget:
        return None
    if not table.memory.contains_many(table_addresses, table_sizes.astype(np.uint64)).all():
        return None
    is_known = fewest == most and most * len(heads) <= _KEPT_SIZE
    shape = _equal_shape(len(heads), most) if is_known else _Shape(counts.astype(np.int64))
    entries = table.memory.gather(table_addresses[shape.chain_of] + shape.offsets, _RECORD)
    return _checked(table, heads, shape, entries, most)


class _Shape:
    """How tables of `counts` entries lie behind each other, entry by entry; nobody may store to it."""

    def __init__(self, counts: npt.NDArray[np.int64]) -> None:
        ends = counts.cumsum()
        self.chain_of = np.repeat(np.arange(len(counts)), counts)
        self.chain_of.setflags(write=False)
        within = np.arange(len(self.chain_of)) - (ends - counts)[self.chain_of]
        self.offsets = (within * DESCRIPTOR_SIZE).astype(np.uint64)
        self.links = np.full(len(within), _NEXT)
        self.links[ends - 1] = 0
        self.has_successor = self.links != 0
        self.successors = within + 1


@lru_cache(maxsize=64)
def _equal_shape(table_count: int, entry_count: int) -> _Shape:
    """Return the shape of tables of one size: requests that are alike come in batches that are alike."""
    return _Shape(np.full(table_count, entry_count))


def _checked(
    table: DescriptorTable, heads: npt.NDArray[np.int64], shape: _Shape, entries: npt.NDArray[Any], most: int
) -> ChainBatch | None:
    """Check the copy of all entries, of which no table has more than `most`."""
    flags = entries["flags"]
    is_astray = (entries["next"] != shape.successors) & shape.has_successor
    writable = (flags & _WRITE) != 0
    turns_back = writable[:-1] & ~writable[1:] & shape.has_successor[:-1]
    addresses, sizes = entries["addr"].copy(), entries["len"].astype(np.uint64)
    if (
        ((flags & _LINKS) != shape.links).any()
        or is_astray.any()
        or turns_back.any()
        or int(sizes.max()) * most > CHAIN_SIZE_LIMIT
        or not table.memory.contains_many(addresses, sizes).all()
    ):
        return None
    return ChainBatch(heads, shape.chain_of, addresses, sizes, writable)
