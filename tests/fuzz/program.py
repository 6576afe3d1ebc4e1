"""An input of a ring target: what the queue is like, what is done with it, and what stands in memory."""

from collections.abc import Iterator
from typing import NamedTuple

from spec.device import Feature, feature_mask

__all__ = ["Program"]

_SPLIT_SIZES = (1, 2, 4, 8, 16, 32)
_LARGEST_PACKED_SIZE = 20
_OPTIONS = (Feature.EVENT_IDX, Feature.INDIRECT_DESC, Feature.IN_ORDER)


class Program(NamedTuple):
    """Three bytes say options, size and how many steps follow; the rest is memory.

    A step is one byte: below 128 a call, otherwise a store, whose place it is together with the next byte, and whose
    value is the byte after that.
    """

    features: int
    size: int
    prefers_batches: bool
    steps: bytes
    content: bytes

    @classmethod
    def parse(cls, data: bytes, *, packed: bool) -> "Program":
        """Return what `data` says; any bytes say something."""
        options, size, step_count = data[:3].ljust(3, b"\0")
        bits = [bit for place, bit in enumerate(_OPTIONS) if options >> place & 1]
        if packed:
            bits.append(Feature.RING_PACKED)
            queue_size = 1 + size % _LARGEST_PACKED_SIZE
        else:
            queue_size = _SPLIT_SIZES[size % len(_SPLIT_SIZES)]
        end = 3 + step_count
        features = feature_mask(Feature.VERSION_1, *bits)
        return cls(features, queue_size, bool(options >> len(_OPTIONS) & 1), data[3:end], data[end:])

    def play(self, limit: int) -> Iterator[tuple[int, int, bytes]]:
        """Yield (call, 0, b"") for a call and (-1, offset below `limit`, one byte) for a store."""
        steps = iter(self.steps)
        for step in steps:
            if step < 128:
                yield step, 0, b""
            else:
                place, value = next(steps, 0), next(steps, 0)
                yield -1, (step - 128 << 8 | place) % limit, bytes([value])
