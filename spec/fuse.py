"""As much of FUSE as it takes to ask a file system device something harmless (Linux: include/uapi/linux/fuse.h).

A request is a header and what its operation wants, device-readable; an answer is a header and what its operation
gives, device-writable (virtio 1.4, "File System Device").
"""

from enum import IntEnum

from construct import Int16ul, Int32sl, Int32ul, Int64ul, Struct

__all__ = [
    "ANSWER_HEADER",
    "ATTRIBUTES_SIZE",
    "GET_ATTRIBUTES",
    "INIT",
    "INIT_ANSWER_SIZE",
    "KERNEL_VERSION",
    "REQUEST_HEADER",
    "ROOT_NODE",
    "FuseOperation",
]

ROOT_NODE = 1
KERNEL_VERSION = (7, 31)
"""What an INIT here says it speaks: old enough for every server, new enough for INIT_ANSWER_SIZE."""


class FuseOperation(IntEnum):
    """What a request asks for."""

    GET_ATTRIBUTES = 3
    INIT = 26


REQUEST_HEADER = "fuse_request" / Struct(
    "len" / Int32ul,  # bytes, with this header
    "opcode" / Int32ul,
    "unique" / Int64ul,  # what the answer repeats
    "nodeid" / Int64ul,
    "uid" / Int32ul,
    "gid" / Int32ul,
    "pid" / Int32ul,
    "total_extlen" / Int16ul,
    "padding" / Int16ul,
)
ANSWER_HEADER = "fuse_answer" / Struct(
    "len" / Int32ul,  # bytes, with this header
    "error" / Int32sl,  # 0, or an errno as a negative number
    "unique" / Int64ul,
)
INIT = "fuse_init" / Struct("major" / Int32ul, "minor" / Int32ul, "max_readahead" / Int32ul, "flags" / Int32ul)
INIT_ANSWER_SIZE = 64
GET_ATTRIBUTES = "fuse_getattr" / Struct("getattr_flags" / Int32ul, "dummy" / Int32ul, "fh" / Int64ul)
ATTRIBUTES_SIZE = 104
"""Bytes that GET_ATTRIBUTES gives behind the header: how long they hold, and the attributes."""
