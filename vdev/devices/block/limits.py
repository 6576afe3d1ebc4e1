"""What one request may ask for. Each is done at once, in one piece: so these bound how long nobody else is served."""

__all__ = [
    "BATCH_SIZE",
    "DISCARD_ALIGNMENT",
    "DISCARD_RANGES_MAX",
    "DISCARD_SECTORS_MAX",
    "FEW",
    "QUEUE_SIZE",
    "REQUEST_SIZE_MAX",
    "SEG_MAX",
    "SIZE_MAX",
    "ZEROES_RANGES_MAX",
    "ZEROES_SECTORS_MAX",
]

QUEUE_SIZE = 256

BATCH_SIZE = 64
"""Requests between two looks at whether the driver wants to be called."""

FEW = 12
"""Requests at once, below which one by one is quicker than as a batch (benchmarks/bench_block_device.py)."""

SEG_MAX = 126
SIZE_MAX = 32 << 10
REQUEST_SIZE_MAX = SEG_MAX * SIZE_MAX
"""Bytes: 3.9 MiB take about a millisecond from the page cache. It holds also where SIZE_MAX was not negotiated."""

DISCARD_RANGES_MAX = 16
DISCARD_SECTORS_MAX = 1 << 21
"""1 GiB: a hole costs time by the extents that it frees, not by its size."""
DISCARD_ALIGNMENT = 8

ZEROES_RANGES_MAX = 4
ZEROES_SECTORS_MAX = 1 << 13
"""4 MiB, for a file that cannot zero a range itself has zeros written to it."""
