"""Where a ring begins: what its front end says, and what the ring itself says where that cannot be.

A packed ring begins at offset 0 with the wrap counter 1, which is 0x8000 as a base. User-mode Linux (6.1) says 0 for a
ring of either format: for a packed one that is the beginning of the second lap, where nothing ever becomes available.
The ring tells which is meant. Who stands at the beginning of the second lap has used all of the first, and a used
descriptor of the first lap has its USED flag set, as every descriptor of the second lap that is available has. In a
ring of which nothing was used yet, no descriptor has it.
"""

import numpy as np

from spec.layout import dtype_of
from spec.packed_ring import FIRST_POSITION, PACKED_DESCRIPTOR, PackedFlag, ring_size
from vdev.errors import GuestAddressError
from vdev.memory import GuestMemory
from vdev.vhost_user.vring import Vring

__all__ = ["FRESH_PACKED", "FRESH_SPLIT", "ring_base"]

FRESH_SPLIT = frozenset({0})
"""Bases of a split ring that its driver has just made."""
FRESH_PACKED = frozenset({FIRST_POSITION << 16 | FIRST_POSITION})
"""Position 0 with the wrap counter 1, on the available side and on the used one."""

_IN_OTHER_WORDS = frozenset({0, FIRST_POSITION})
"""What a front end may say instead: nothing of wrap counters, or nothing of the used side."""


def ring_base(ring: Vring, memory: GuestMemory, *, packed: bool) -> int | None:
    """Return where `ring` begins in the RAM `memory`, None where nobody said.

    Reads a packed ring whose base is unclear.
    """
    if packed and ring.base in _IN_OTHER_WORDS and _is_unused(ring, memory):
        return max(FRESH_PACKED)
    return ring.base


def _is_unused(ring: Vring, memory: GuestMemory) -> bool:
    if ring.addresses is None:
        return False
    try:
        # Not aligned, perhaps: whoever takes the ring into use names that.
        descriptors = np.frombuffer(
            memory.read(ring.addresses.descriptor, ring_size(ring.size)), dtype_of(PACKED_DESCRIPTOR)
        )
    except GuestAddressError:
        return False
    return not (descriptors["flags"] & np.uint16(PackedFlag.USED)).any()
