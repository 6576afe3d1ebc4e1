"""What a driver may add to a queue, whatever its format (virtio 1.4, "Message Framing")."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["check_batch", "checked_segments", "uses_table"]

_LIMIT_64 = (1 << 64) - 1
_BUFFER_SIZE_LIMIT = 1 << 32

Segments = list[tuple[int, int, int]]


def checked_segments(
    readable: Sequence[tuple[int, int]],
    writable: Sequence[tuple[int, int]],
    token: int,
    *,
    write_flag: int,
    queue_size: int,
) -> Segments:
    """Return address, size and flags (0 or `write_flag`) of each segment of a buffer.

    Raises ValueError for what the text forbids or no descriptor can hold.
    """
    segments = [(address, size, 0) for address, size in readable] if readable else []
    if writable:
        segments += [(address, size, write_flag) for address, size in writable]
    if not segments:
        raise ValueError("a buffer needs a segment")
    if len(segments) > queue_size:
        raise ValueError(f"{len(segments)} segments in a queue of {queue_size}")
    total_size = 0
    for address, size, _ in segments:
        total_size += size
        if not (0 <= address <= _LIMIT_64 and 0 <= size < _BUFFER_SIZE_LIMIT):
            raise ValueError(f"no descriptor can hold address {address:#x}, {size} bytes")
    if total_size > _BUFFER_SIZE_LIMIT:
        raise ValueError("a buffer of more than 2^32 bytes")
    if not 0 <= token <= _LIMIT_64:
        raise ValueError(f"token {token} is not a 64-bit number")
    return segments


def uses_table(segment_count: int, wish: bool | None, capacity: int) -> bool:
    """Say whether a buffer goes into an indirect table, of which each holds `capacity` entries.

    Raises ValueError for a wish that cannot be met.
    """
    if wish is None:
        return 1 < segment_count <= capacity
    if wish and segment_count > capacity:
        raise ValueError(f"no indirect table for {segment_count} segments")
    return wish


def check_batch(
    addresses: npt.NDArray[np.uint64], sizes: npt.NDArray[np.uint64], tokens: npt.NDArray[np.uint64], free_count: int
) -> int:
    """Return how many of these buffers of one descriptor each fit.

    Raises ValueError for arrays of different length, and for one among those that fit that no descriptor can hold.
    """
    if not len(addresses) == len(sizes) == len(tokens):
        raise ValueError(f"{len(addresses)} addresses, {len(sizes)} sizes and {len(tokens)} tokens")
    count = min(len(addresses), free_count)
    if count and int(sizes[:count].max()) >= _BUFFER_SIZE_LIMIT:
        raise ValueError(f"no descriptor can hold {int(sizes[:count].max())} bytes")
    return count
