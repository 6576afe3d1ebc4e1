"""Messages of the vhost-user protocol (QEMU's "Vhost-user Protocol"), front end and back end, and what they share.

The text says "machine native byte order"; this project runs on little-endian machines only.
"""

from enum import IntEnum, IntFlag
from typing import NamedTuple

from construct import (
    Array,
    Bytes,
    Const,
    Construct,
    GreedyBytes,
    Int8ul,
    Int16ul,
    Int32ul,
    Int64ul,
    Padding,
    PrefixedArray,
    Struct,
    this,
)

__all__ = [
    "BACK_END_REQUESTS",
    "BACK_END_STATE",
    "CONFIG",
    "CONFIG_FLAGS",
    "DEVICE_STATE_TRANSFER",
    "FRONT_END_REQUESTS",
    "HEADER",
    "INFLIGHT",
    "IOTLB",
    "LOG",
    "LOG_ALL",
    "LOG_PAGE_SIZE",
    "MAX_CONFIG_SIZE",
    "MAX_FD_COUNT",
    "MAX_PAYLOAD_SIZE",
    "MAX_TABLE_REGION_COUNT",
    "MEMORY_REGION",
    "MEMORY_TABLE",
    "NO_FD",
    "PROTOCOL_FEATURES",
    "SHARED_MEMORY_CONFIG",
    "SHARED_MEMORY_MAP",
    "SINGLE_REGION",
    "U64",
    "UUID",
    "VERSION",
    "VERSION_MASK",
    "VRING_ADDRESS",
    "VRING_AREA",
    "VRING_FD",
    "VRING_INDEX_MASK",
    "VRING_STATE",
    "BackEndRequest",
    "ConfigFlag",
    "Flag",
    "FrontEndRequest",
    "MigrationPhase",
    "ProtocolFeature",
    "RequestShape",
    "TransferDirection",
    "VringFlag",
    "protocol_feature_mask",
]

VERSION = 1
VERSION_MASK = 0x3

MAX_PAYLOAD_SIZE = 4096
"""Bytes; the largest payload of the text is a few hundred. A header that asks for more is refused."""

MAX_FD_COUNT = 8
"""File descriptors that one message can carry: a memory table's regions."""

MAX_TABLE_REGION_COUNT = 8
"""Regions in one SET_MEM_TABLE."""

MAX_CONFIG_SIZE = 256
"""Bytes of configuration space in one message, as QEMU has it."""

LOG_PAGE_SIZE = 0x1000
"""Bytes of guest RAM that one bit of the dirty log stands for."""

LOG_ALL = 26
"""Feature bit: log what the back end writes. It is between front end and back end; no driver sees it."""

PROTOCOL_FEATURES = 30
"""Feature bit: protocol features can be negotiated. It is between front end and back end; no driver sees it."""


class Flag(IntFlag):
    """Bits of a header's flags above the version's two."""

    REPLY = 1 << 2
    NEED_REPLY = 1 << 3


class FrontEndRequest(IntEnum):
    """What a front end asks ("Front-end message types")."""

    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    RESET_OWNER = 4
    SET_MEM_TABLE = 5
    SET_LOG_BASE = 6
    SET_LOG_FD = 7
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    GET_VRING_BASE = 11
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    SET_VRING_ERR = 14
    GET_PROTOCOL_FEATURES = 15
    SET_PROTOCOL_FEATURES = 16
    GET_QUEUE_NUM = 17
    SET_VRING_ENABLE = 18
    SEND_RARP = 19
    NET_SET_MTU = 20
    SET_BACKEND_REQ_FD = 21
    IOTLB_MSG = 22
    SET_VRING_ENDIAN = 23
    GET_CONFIG = 24
    SET_CONFIG = 25
    CREATE_CRYPTO_SESSION = 26
    CLOSE_CRYPTO_SESSION = 27
    POSTCOPY_ADVISE = 28
    POSTCOPY_LISTEN = 29
    POSTCOPY_END = 30
    GET_INFLIGHT_FD = 31
    SET_INFLIGHT_FD = 32
    GPU_SET_SOCKET = 33
    RESET_DEVICE = 34
    VRING_KICK = 35
    GET_MAX_MEM_SLOTS = 36
    ADD_MEM_REG = 37
    REM_MEM_REG = 38
    SET_STATUS = 39
    GET_STATUS = 40
    GET_SHARED_OBJECT = 41
    SET_DEVICE_STATE_FD = 42
    CHECK_DEVICE_STATE = 43
    GET_SHMEM_CONFIG = 44


class BackEndRequest(IntEnum):
    """What a back end asks, on the channel that SET_BACKEND_REQ_FD gave it ("Back-end message types")."""

    IOTLB_MSG = 1
    CONFIG_CHANGE_MSG = 2
    VRING_HOST_NOTIFIER_MSG = 3
    VRING_CALL = 4
    VRING_ERR = 5
    SHARED_OBJECT_ADD = 6
    SHARED_OBJECT_REMOVE = 7
    SHARED_OBJECT_LOOKUP = 8
    SHMEM_MAP = 9
    SHMEM_UNMAP = 10


class ProtocolFeature(IntEnum):
    """Bits of the protocol features ("Protocol features")."""

    MQ = 0
    LOG_SHMFD = 1
    RARP = 2
    REPLY_ACK = 3
    MTU = 4
    BACKEND_REQ = 5
    CROSS_ENDIAN = 6
    CRYPTO_SESSION = 7
    PAGEFAULT = 8
    CONFIG = 9
    BACKEND_SEND_FD = 10
    HOST_NOTIFIER = 11
    INFLIGHT_SHMFD = 12
    RESET_DEVICE = 13
    INBAND_NOTIFICATIONS = 14
    CONFIGURE_MEM_SLOTS = 15
    STATUS = 16
    XEN_MMAP = 17
    SHARED_OBJECT = 18
    DEVICE_STATE = 19
    GET_VRING_BASE_INFLIGHT = 20
    GPA_ADDRESSES = 21
    SHMEM = 22


def protocol_feature_mask(*features: ProtocolFeature) -> int:
    """Return an integer with each of `features` set.

    >>> bin(protocol_feature_mask(ProtocolFeature.MQ, ProtocolFeature.REPLY_ACK))
    '0b1001'
    """
    return sum(1 << feature for feature in set(features))


class VringFlag(IntFlag):
    """Bits of a VRING_ADDRESS's flags."""

    LOG = 1
    """Log what is written to the used ring, at the address in `log`."""


VRING_INDEX_MASK = 0xFF
NO_FD = 1 << 8
"""Bit of a u64 beside a ring's or a transfer's file descriptor: there is none. Bits 0 to 7 are the ring's index."""


class ConfigFlag(IntEnum):
    """Why configuration space is written."""

    WRITABLE = 0
    """The driver wrote a field that it may write."""
    MIGRATION = 1
    """The device is moved here: every field may be written."""


class TransferDirection(IntEnum):
    """Which way a device's state goes."""

    SAVE = 0
    """From the back end to the front end, at a migration's source."""
    LOAD = 1
    """From the front end to the back end, at its destination."""


class MigrationPhase(IntEnum):
    """When a device's state goes."""

    STOPPED = 0
    """All rings are stopped."""


HEADER = "header" / Struct("request" / Int32ul, "flags" / Int32ul, "size" / Int32ul)
"""`size` is that of the payload, bytes. Bits 0 and 1 of `flags` are the version, the others a `Flag`."""

U64 = "u64" / Struct("value" / Int64ul)

VRING_FD = U64
"""Beside a ring's file descriptor: the ring's index and NO_FD."""

VRING_STATE = "vring_state" / Struct("index" / Int32ul, "num" / Int32ul)

VRING_ADDRESS = "vring_address" / Struct(
    "index" / Int32ul,
    "flags" / Int32ul,
    "descriptor" / Int64ul,
    "used" / Int64ul,
    "available" / Int64ul,
    "log" / Int64ul,
)
"""`descriptor`, `used` and `available` are user addresses; `log` is guest-physical, and need not be in RAM."""

MEMORY_REGION = "region" / Struct(
    "guest_address" / Int64ul, "size" / Int64ul, "user_address" / Int64ul, "mmap_offset" / Int64ul
)
"""Where a region is for the guest, for the front end's process, and in the file that comes along."""

MEMORY_TABLE = "memory_table" / Struct(
    "region_count" / Int32ul, Padding(4), "regions" / Array(this.region_count, MEMORY_REGION)
)

SINGLE_REGION = "single_region" / Struct(Padding(8), "region" / MEMORY_REGION)

LOG = "log" / Struct("size" / Int64ul, "offset" / Int64ul)
"""Where the dirty log is in the file that comes along, bytes."""

IOTLB = "iotlb" / Struct(
    "iova" / Int64ul, "size" / Int64ul, "user_address" / Int64ul, "permissions" / Int8ul, "type" / Int8ul
)

CONFIG_FLAGS = frozenset(ConfigFlag)
CONFIG = "config" / Struct("offset" / Int32ul, "size" / Int32ul, "flags" / Int32ul, "payload" / Bytes(this.size))
"""A range of configuration space; a reply without `payload` says that there is no such range."""

VRING_AREA = "vring_area" / Struct("vring" / Int64ul, "size" / Int64ul, "offset" / Int64ul)

INFLIGHT = "inflight" / Struct(
    "mmap_size" / Int64ul, "mmap_offset" / Int64ul, "queue_count" / Int16ul, "queue_size" / Int16ul
)
"""An area that tracks buffers in flight. A C compiler makes it four bytes larger, and peers send it so."""

BACK_END_STATE = "back_end_state" / Struct(
    "magic" / Const(b"vdevbe1\0"),
    "regions" / PrefixedArray(Int16ul, Struct("guest_address" / Int64ul, "size" / Int64ul)),
    "device" / GreedyBytes,
)
"""What a back end of this project gives and takes as its state: the RAM it was saved with, then a DEVICE_STATE."""

UUID = "uuid" / Struct("bytes" / Bytes(16))

DEVICE_STATE_TRANSFER = "device_state_transfer" / Struct("direction" / Int32ul, "phase" / Int32ul)

SHARED_MEMORY_CONFIG = "shared_memory_config" / Struct(
    "region_count" / Int32ul, Padding(4), "sizes" / Array(this.region_count, Int64ul)
)

SHARED_MEMORY_MAP = "shared_memory_map" / Struct(
    "id" / Int8ul, Padding(7), "fd_offset" / Int64ul, "offset" / Int64ul, "size" / Int64ul, "flags" / Int64ul
)


class RequestShape(NamedTuple):
    """What a message carries, and what answers it.

    `payload` and `reply` are layouts, None where there is none. `fd_counts` says how many file descriptors may come
    along. `padding_size` zero bytes may follow the payload: peers send a C struct whole. `needs` is the protocol
    feature without which the request is not legal.
    """

    payload: Construct | None = None
    reply: Construct | None = None
    fd_counts: range = range(1)
    needs: ProtocolFeature | None = None
    padding_size: int = 0


_ONE = range(1, 2)
_UP_TO_ONE = range(2)
_F = ProtocolFeature
_R = FrontEndRequest

FRONT_END_REQUESTS: dict[FrontEndRequest, RequestShape] = {
    _R.GET_FEATURES: RequestShape(reply=U64),
    _R.SET_FEATURES: RequestShape(U64),
    _R.SET_OWNER: RequestShape(),
    _R.RESET_OWNER: RequestShape(),
    # User-mode Linux sends room for two regions and fills one.
    _R.SET_MEM_TABLE: RequestShape(
        MEMORY_TABLE, fd_counts=range(MAX_TABLE_REGION_COUNT + 1), padding_size=MEMORY_REGION.sizeof()
    ),
    _R.SET_LOG_BASE: RequestShape(LOG, U64, _ONE, _F.LOG_SHMFD),
    _R.SET_LOG_FD: RequestShape(fd_counts=_UP_TO_ONE),
    _R.SET_VRING_NUM: RequestShape(VRING_STATE),
    _R.SET_VRING_ADDR: RequestShape(VRING_ADDRESS),
    _R.SET_VRING_BASE: RequestShape(VRING_STATE),
    _R.GET_VRING_BASE: RequestShape(VRING_STATE, VRING_STATE),
    _R.SET_VRING_KICK: RequestShape(VRING_FD, fd_counts=_UP_TO_ONE),
    _R.SET_VRING_CALL: RequestShape(VRING_FD, fd_counts=_UP_TO_ONE),
    _R.SET_VRING_ERR: RequestShape(VRING_FD, fd_counts=_UP_TO_ONE),
    _R.GET_PROTOCOL_FEATURES: RequestShape(reply=U64),
    _R.SET_PROTOCOL_FEATURES: RequestShape(U64),
    _R.GET_QUEUE_NUM: RequestShape(reply=U64, needs=_F.MQ),
    _R.SET_VRING_ENABLE: RequestShape(VRING_STATE),
    _R.SEND_RARP: RequestShape(U64, needs=_F.RARP),
    _R.NET_SET_MTU: RequestShape(U64, needs=_F.MTU),
    _R.SET_BACKEND_REQ_FD: RequestShape(fd_counts=_ONE, needs=_F.BACKEND_REQ),
    _R.IOTLB_MSG: RequestShape(IOTLB, U64, padding_size=6),
    _R.SET_VRING_ENDIAN: RequestShape(VRING_STATE, needs=_F.CROSS_ENDIAN),
    _R.GET_CONFIG: RequestShape(CONFIG, CONFIG, needs=_F.CONFIG),
    _R.SET_CONFIG: RequestShape(CONFIG, needs=_F.CONFIG),
    _R.GET_INFLIGHT_FD: RequestShape(INFLIGHT, INFLIGHT, needs=_F.INFLIGHT_SHMFD, padding_size=4),
    _R.SET_INFLIGHT_FD: RequestShape(INFLIGHT, None, _ONE, _F.INFLIGHT_SHMFD, padding_size=4),
    _R.RESET_DEVICE: RequestShape(needs=_F.RESET_DEVICE),
    _R.VRING_KICK: RequestShape(VRING_STATE, needs=_F.INBAND_NOTIFICATIONS),
    _R.GET_MAX_MEM_SLOTS: RequestShape(reply=U64, needs=_F.CONFIGURE_MEM_SLOTS),
    _R.ADD_MEM_REG: RequestShape(SINGLE_REGION, None, _ONE, _F.CONFIGURE_MEM_SLOTS),
    # A descriptor with REM_MEM_REG is a known mistake of peers: it is closed, and nothing said.
    _R.REM_MEM_REG: RequestShape(SINGLE_REGION, None, _UP_TO_ONE, _F.CONFIGURE_MEM_SLOTS),
    _R.SET_STATUS: RequestShape(U64, needs=_F.STATUS),
    _R.GET_STATUS: RequestShape(reply=U64, needs=_F.STATUS),
    _R.GET_SHARED_OBJECT: RequestShape(UUID, needs=_F.SHARED_OBJECT),
    _R.SET_DEVICE_STATE_FD: RequestShape(DEVICE_STATE_TRANSFER, U64, _ONE, _F.DEVICE_STATE),
    _R.CHECK_DEVICE_STATE: RequestShape(reply=U64, needs=_F.DEVICE_STATE),
    _R.GET_SHMEM_CONFIG: RequestShape(reply=SHARED_MEMORY_CONFIG, needs=_F.SHMEM),
}
"""Post-copy, graphics and crypto requests are left out: nobody here speaks them."""

_B = BackEndRequest

BACK_END_REQUESTS: dict[BackEndRequest, RequestShape] = {
    _B.IOTLB_MSG: RequestShape(IOTLB, padding_size=6),
    _B.CONFIG_CHANGE_MSG: RequestShape(needs=_F.CONFIG),
    _B.VRING_HOST_NOTIFIER_MSG: RequestShape(VRING_AREA, fd_counts=_UP_TO_ONE, needs=_F.HOST_NOTIFIER),
    _B.VRING_CALL: RequestShape(VRING_STATE, needs=_F.INBAND_NOTIFICATIONS),
    _B.VRING_ERR: RequestShape(VRING_STATE, needs=_F.INBAND_NOTIFICATIONS),
    _B.SHARED_OBJECT_ADD: RequestShape(UUID, needs=_F.SHARED_OBJECT),
    _B.SHARED_OBJECT_REMOVE: RequestShape(UUID, needs=_F.SHARED_OBJECT),
    _B.SHARED_OBJECT_LOOKUP: RequestShape(UUID, U64, needs=_F.SHARED_OBJECT),
    _B.SHMEM_MAP: RequestShape(SHARED_MEMORY_MAP, fd_counts=_ONE, needs=_F.SHMEM),
    _B.SHMEM_UNMAP: RequestShape(SHARED_MEMORY_MAP, needs=_F.SHMEM),
}
