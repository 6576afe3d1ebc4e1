"""The block device (virtio 1.4, "Block Device"): device 2.

A request is a header, data, and one status byte, in this order; how they are cut into descriptors is the driver's
choice. Header and data to write are device-readable, data to be read and the status byte are device-writable.
"""

from enum import IntEnum, IntFlag

from construct import Bytes, Int8ul, Int16ul, Int32ul, Int64ul, Padding, Struct

__all__ = [
    "CONFIG",
    "DATA_RANGE",
    "ID_SIZE",
    "MAX_QUEUE_COUNT",
    "REQUEST_HEADER",
    "SECTOR_SHIFT",
    "SECTOR_SIZE",
    "SERIAL",
    "SAVED_STATE",
    "BlockFeature",
    "RangeFlag",
    "RequestStatus",
    "RequestType",
]

SECTOR_SHIFT = 9
SECTOR_SIZE = 1 << SECTOR_SHIFT
"""What `sector`, `capacity` and every `num_sectors` count in, whatever blk_size says."""

ID_SIZE = 20
"""Bytes that GET_ID gives: padded with zeros, without one where the name fills them."""

MAX_QUEUE_COUNT = 0xFFFF


class BlockFeature(IntEnum):
    """The block device's own feature bits."""

    SIZE_MAX = 1
    SEG_MAX = 2
    GEOMETRY = 4
    RO = 5
    BLK_SIZE = 6
    FLUSH = 9
    TOPOLOGY = 10
    CONFIG_WCE = 11
    MQ = 12
    DISCARD = 13
    WRITE_ZEROES = 14
    LIFETIME = 15
    SECURE_ERASE = 16
    ZONED = 17


class RequestType(IntEnum):
    """What a request asks for. IN reads from the disk, OUT writes to it."""

    IN = 0
    OUT = 1
    FLUSH = 4
    GET_ID = 8
    GET_LIFETIME = 10
    DISCARD = 11
    WRITE_ZEROES = 13
    SECURE_ERASE = 14


class RequestStatus(IntEnum):
    """The status byte."""

    OK = 0
    IOERR = 1
    UNSUPP = 2


class RangeFlag(IntFlag):
    """Flags of one range; only WRITE_ZEROES knows UNMAP, all other bits are reserved."""

    UNMAP = 1


CONFIG = "block_config" / Struct(
    "capacity" / Int64ul,  # sectors
    "size_max" / Int32ul,  # bytes in one segment of data
    "seg_max" / Int32ul,  # segments of data in one request
    "cylinders" / Int16ul,  # geometry
    "heads" / Int8ul,
    "sectors" / Int8ul,
    "blk_size" / Int32ul,  # bytes
    "physical_block_exp" / Int8ul,  # topology: 2**n logical blocks are a physical one
    "alignment_offset" / Int8ul,  # logical blocks
    "min_io_size" / Int16ul,  # logical blocks
    "opt_io_size" / Int32ul,  # logical blocks
    "writeback" / Int8ul,  # 1: writes may stay in a volatile cache until a flush
    Padding(1),
    "num_queues" / Int16ul,
    "max_discard_sectors" / Int32ul,  # in one range
    "max_discard_seg" / Int32ul,  # ranges in one request
    "discard_sector_alignment" / Int32ul,
    "max_write_zeroes_sectors" / Int32ul,
    "max_write_zeroes_seg" / Int32ul,
    "write_zeroes_may_unmap" / Int8ul,
    Padding(3),
    "max_secure_erase_sectors" / Int32ul,
    "max_secure_erase_seg" / Int32ul,
    "secure_erase_sector_alignment" / Int32ul,
    "zone_sectors" / Int32ul,  # zoned block devices
    "max_open_zones" / Int32ul,
    "max_active_zones" / Int32ul,
    "max_append_sectors" / Int32ul,
    "write_granularity" / Int32ul,
    "model" / Int8ul,
    Padding(3),
)
REQUEST_HEADER = "block_request" / Struct("type" / Int32ul, "reserved" / Int32ul, "sector" / Int64ul)
"""`sector` means something for IN and OUT only."""
DATA_RANGE = "range" / Struct("sector" / Int64ul, "num_sectors" / Int32ul, "flags" / Int32ul)
"""The data of DISCARD, WRITE_ZEROES and SECURE_ERASE is an array of these."""
SERIAL = "serial" / Struct("id" / Bytes(ID_SIZE))

SAVED_STATE = "block" / Struct("writeback" / Int8ul)
"""This project's own: what of a saved block device its DEVICE_STATE (`spec.device_state`) does not say."""
