"""IN_ORDER, as the driver sees it: one used entry may speak for many buffers.

Buffers take descriptors in ring order, and their heads are the offsets of their first ones. So the driver knows which
buffer is the next to come back, and a used entry that names a later one says that those before it were used, too, and
completely ("In-order use of descriptors", in both formats).
"""

import numpy as np
import numpy.typing as npt

__all__ = ["heads_in_order", "sizes_in_order"]

Heads = npt.NDArray[np.int64]


def heads_in_order(first: int, descriptor_counts: npt.NDArray[np.uint16], span: int) -> Heads:
    """Return the heads of the buffers in the `span` descriptors from `first` on, in ring order.

    `descriptor_counts` has at each head how many descriptors its buffer takes, and 0 elsewhere.
    """
    slots = np.arange(first, first + span) % len(descriptor_counts)
    return slots[descriptor_counts[slots] > 0]


def sizes_in_order(
    heads: Heads,
    told: npt.NDArray[np.bool_],
    told_heads: Heads,
    told_sizes: npt.NDArray[np.int64],
    writable_sizes: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Return the bytes written into each buffer, for as many of `heads` (the oldest ones) as have cleanly come back.

    `told` says where a used entry stands, `told_heads` and `told_sizes` what it says; both mean something only at the
    first buffer that an entry speaks for. What breaks a rule ends the result.
    """
    count = len(heads)
    sizes = writable_sizes.copy()
    place_of = dict(zip(heads.tolist(), range(count), strict=True))
    own = told & (told_heads == heads) & (told_sizes <= writable_sizes)
    place = 0
    while place < count:
        run = count - place if own[place:].all() else int(np.argmin(own[place:]))
        sizes[place : place + run] = told_sizes[place : place + run]
        place += run
        if place == count or not told[place]:
            break
        last = place_of.get(int(told_heads[place]), -1)
        if last <= place or told_sizes[place] > writable_sizes[last]:
            break
        sizes[last] = told_sizes[place]
        place = last + 1
    return sizes[:place]
