"""Indirect tables whose entries follow one another, as all known drivers write them: many in a few numpy steps.

Here a table is read as what it nearly always is. Where one is not, or breaks a rule, nothing is said about it:
`descriptor_batch.py` follows every link.
"""

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
_WORD_SHIFT = np.uint32(DESCRIPTOR_SIZE.bit_length() - 1)
_WITHIN = np.uint32(DESCRIPTOR_SIZE - 1)


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
    counts = (table_sizes >> _WORD_SHIFT).astype(np.int64)
    longest = int(counts.max())
    ends = counts.cumsum()
    total = int(ends[-1])
    if (table_sizes & _WITHIN).any() or not counts.min() or longest > table.size or total > segment_budget:
        return None
    if not table.memory.contains_many(table_addresses, table_sizes.astype(np.uint64)).all():
        return None

    segment_chain = np.repeat(np.arange(len(heads)), counts)
    within = np.arange(total) - (ends - counts)[segment_chain]
    places = table_addresses[segment_chain] + (within * DESCRIPTOR_SIZE).astype(np.uint64)
    entries = table.memory.gather(places, _RECORD)
    return _checked(table, heads, segment_chain, within, ends - 1, entries, longest)


def _checked(
    table: DescriptorTable,
    heads: npt.NDArray[np.int64],
    segment_chain: npt.NDArray[np.int64],
    within: npt.NDArray[np.int64],
    last: npt.NDArray[np.int64],
    entries: npt.NDArray[Any],
    longest: int,
) -> ChainBatch | None:
    """Check the copy: `last` are the places of the last entries of each table, `within` is each one's in its own."""
    flags = entries["flags"]
    links = np.full(len(entries), _NEXT)
    links[last] = 0
    successors = within + 1
    successors[last] = entries["next"][last]
    writable = (flags & _WRITE) != 0
    turns_back = writable[:-1] & ~writable[1:]
    turns_back[last[:-1]] = False
    addresses, sizes = entries["addr"].copy(), entries["len"].astype(np.uint64)
    if (
        ((flags & _LINKS) != links).any()
        or (entries["next"] != successors).any()
        or turns_back.any()
        or int(sizes.max()) * longest > CHAIN_SIZE_LIMIT
        or not table.memory.contains_many(addresses, sizes).all()
    ):
        return None
    return ChainBatch(heads, segment_chain, addresses, sizes, writable)
