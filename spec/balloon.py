"""The traditional memory balloon (virtio 1.4, "Traditional Memory Balloon Device"): device 5."""

from enum import Enum, IntEnum

from construct import Int16ul, Int32ul, Int64ul, Struct

__all__ = [
    "COMMAND_ID",
    "COMMAND_ID_SIZE",
    "CONFIG",
    "CONFIG_WITH_INTERVAL",
    "FIRST_COMMAND_ID",
    "HINT_BITMAP_HEADER",
    "HINT_REQUEST",
    "PAGE_FRAME_NUMBER",
    "PAGE_FRAME_SIZE",
    "STATISTIC",
    "BalloonFeature",
    "BalloonQueue",
    "CommandId",
    "HintAnswer",
    "QueueNumbering",
    "StatisticTag",
    "queue_numbers",
]

PAGE_FRAME_SIZE = 4096
"""Inflate and deflate count in 4 KiB frames whatever the page size of either side."""


class BalloonFeature(IntEnum):
    """The balloon's own feature bits."""

    MUST_TELL_HOST = 0
    STATS_VQ = 1
    DEFLATE_ON_OOM = 2
    FREE_PAGE_HINT = 3
    PAGE_POISON = 4
    PAGE_REPORTING = 5


class BalloonQueue(IntEnum):
    """The queues, with the numbers that the text gives them."""

    INFLATE = 0
    DEFLATE = 1
    STATISTICS = 2
    FREE_PAGE = 3
    REPORTING = 4


class QueueNumbering(Enum):
    """How queues get their numbers.

    FIXED is the text's. COMPACT is what Linux, QEMU, Firecracker and crosvm do: a queue whose feature was not
    negotiated takes no number, and those behind it move up.
    """

    FIXED = "fixed"
    COMPACT = "compact"


_QUEUE_NEEDS = {
    BalloonQueue.STATISTICS: BalloonFeature.STATS_VQ,
    BalloonQueue.FREE_PAGE: BalloonFeature.FREE_PAGE_HINT,
    BalloonQueue.REPORTING: BalloonFeature.PAGE_REPORTING,
}


def queue_numbers(features: int, numbering: QueueNumbering) -> dict[BalloonQueue, int]:
    """Return the queue number of each queue that exists under `features` (a mask of negotiated bits).

    >>> from spec.device import feature_mask
    >>> hinting = feature_mask(BalloonFeature.FREE_PAGE_HINT)
    >>> queue_numbers(hinting, QueueNumbering.FIXED)[BalloonQueue.FREE_PAGE]
    3
    >>> queue_numbers(hinting, QueueNumbering.COMPACT)[BalloonQueue.FREE_PAGE]
    2
    """
    existing = [q for q in BalloonQueue if q not in _QUEUE_NEEDS or features >> _QUEUE_NEEDS[q] & 1]
    if numbering is QueueNumbering.FIXED:
        return {queue: int(queue) for queue in existing}
    return {queue: number for number, queue in enumerate(existing)}


class CommandId(IntEnum):
    """Reserved values of free_page_hint_cmd_id."""

    STOP = 0
    DONE = 1


FIRST_COMMAND_ID = 0x8000_0000
"""Ids count up from here and wrap back here, as QEMU's do; any value of 2 and up is legal."""


class HintAnswer(Enum):
    """The form in which a guest says which pages are free.

    LIST is the text's: one device-writable buffer for each block of free pages. BITMAP is the shape of the patches that
    were proposed before it: one device-readable buffer with a snapshot of all of RAM. Only both ends of this project
    speak it; no feature bit says so, whoever starts them chooses.
    """

    LIST = "list"
    BITMAP = "bitmap"


class StatisticTag(IntEnum):
    """Tags of memory statistics; the values are bytes or counts as the text says."""

    SWAP_IN = 0
    SWAP_OUT = 1
    MAJOR_FAULTS = 2
    MINOR_FAULTS = 3
    FREE_MEMORY = 4
    TOTAL_MEMORY = 5
    AVAILABLE_MEMORY = 6
    DISK_CACHES = 7
    HUGETLB_ALLOCATIONS = 8
    HUGETLB_FAILURES = 9


CONFIG = "balloon_config" / Struct(
    "num_pages" / Int32ul,
    "actual" / Int32ul,
    "free_page_hint_cmd_id" / Int32ul,
    "poison_val" / Int32ul,
)
CONFIG_WITH_INTERVAL = "balloon_config_with_interval" / Struct(
    *CONFIG.subcons,
    "free_page_hint_interval" / Int32ul,  # milliseconds; 0: the driver is not to answer again by itself
)
"""CONFIG and one field of our own behind it, which the text does not know: how often the driver is to answer anew.

A device has it only where it was made with it, and only a driver that was told to refresh by interval reads it.
"""
STATISTIC = "statistic" / Struct("tag" / Int16ul, "val" / Int64ul)
"""10 bytes, packed. (The text's driver clause still speaks of a multiple of 6 bytes: an erratum.)"""
PAGE_FRAME_NUMBER = "page_frame_number" / Struct("pfn" / Int32ul)
COMMAND_ID = "command_id" / Struct("id" / Int32ul)
COMMAND_ID_SIZE = 4
HINT_REQUEST = "hint_request" / Struct(
    "id" / Int32ul,  # what free_page_hint_cmd_id reads as while the request stands
    "flags" / Int32ul,  # none are defined: 0
)
"""With HintAnswer.BITMAP the driver keeps one device-writable buffer of this layout in the free page queue.

The device fills and uses it to ask. A used one with nothing written asks nothing.
"""
HINT_BITMAP_HEADER = "hint_bitmap_header" / Struct(
    "count" / Int64ul,  # bits that are set
    "size" / Int64ul,  # bytes of the bitmap
)
"""What an answer of HintAnswer.BITMAP begins with; the bitmap follows at once.

One bit a page of 4 KiB, least significant first, the pages of all regions of RAM numbered one after the other by
ascending address. A set bit says that the page is free. Bits past the last page are 0.
"""
