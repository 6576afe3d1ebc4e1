"""What a zoned disk has beside `spec.block` (virtio 1.4, "Block Device"): zones, and requests for them.

A zone report is a ZONE_REPORT and as many ZONE_DESCRIPTORs behind it as there is room for. An append is framed like a
write, with APPEND_ANSWER before the status byte.
"""

from enum import IntEnum

from construct import Int8ul, Int64ul, Padding, Struct

__all__ = [
    "APPEND_ANSWER",
    "ZONE_DESCRIPTOR",
    "ZONE_REPORT",
    "ZoneModel",
    "ZoneRequestType",
    "ZoneState",
    "ZoneStatus",
    "ZoneType",
]


class ZoneModel(IntEnum):
    """The kind of zoned disk: `model` of the configuration space."""

    NONE = 0
    HOST_MANAGED = 1
    HOST_AWARE = 2


class ZoneRequestType(IntEnum):
    """Types of requests that only a zoned disk knows."""

    APPEND = 15
    REPORT = 16
    OPEN = 18
    CLOSE = 20
    FINISH = 22
    RESET = 24
    RESET_ALL = 26


class ZoneStatus(IntEnum):
    """Status bytes that only a zoned disk gives."""

    INVALID_CMD = 3
    UNALIGNED_WP = 4
    OPEN_RESOURCE = 5
    ACTIVE_RESOURCE = 6


class ZoneType(IntEnum):
    """How a zone is written."""

    CONVENTIONAL = 1
    SEQUENTIAL_REQUIRED = 2
    SEQUENTIAL_PREFERRED = 3


class ZoneState(IntEnum):
    """The state of a zone."""

    NOT_WRITE_POINTER = 0
    EMPTY = 1
    IMPLICITLY_OPEN = 2
    EXPLICITLY_OPEN = 3
    CLOSED = 4
    READ_ONLY = 13
    FULL = 14
    OFFLINE = 15


ZONE_REPORT = "zone_report" / Struct("nr_zones" / Int64ul, Padding(56))
ZONE_DESCRIPTOR = "zone" / Struct(
    "z_cap" / Int64ul,  # sectors that can be written
    "z_start" / Int64ul,  # sector
    "z_wp" / Int64ul,  # sector that is written next
    "z_type" / Int8ul,
    "z_state" / Int8ul,
    Padding(38),
)
APPEND_ANSWER = "append_answer" / Struct("append_sector" / Int64ul)
