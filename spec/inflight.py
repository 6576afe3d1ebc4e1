"""The memory in which a back end notes the buffers that it has taken, for the next one (vhost-user, "Inflight I/O
tracking").

Each queue has a region: a head, and an entry for each descriptor. Numbers are in this machine's byte order.
"""

from construct import Int8ul, Int16ul, Int32ul, Int64ul, Padding, Struct

__all__ = [
    "INFLIGHT_ALIGNMENT",
    "INFLIGHT_VERSION",
    "PACKED_INFLIGHT",
    "PACKED_INFLIGHT_DESCRIPTOR",
    "SPLIT_INFLIGHT",
    "SPLIT_INFLIGHT_DESCRIPTOR",
]

INFLIGHT_VERSION = 1
INFLIGHT_ALIGNMENT = 64
"""Bytes; the text sets one queue's region behind the other, and back ends begin each at a multiple of this."""

SPLIT_INFLIGHT = "split_inflight" / Struct(
    "features" / Int64ul,
    "version" / Int16ul,
    "descriptor_count" / Int16ul,
    "last_batch_head" / Int16ul,
    "used_idx" / Int16ul,
)
"""The head of a split queue's region; a SPLIT_INFLIGHT_DESCRIPTOR for each descriptor follows."""

SPLIT_INFLIGHT_DESCRIPTOR = "split_inflight_descriptor" / Struct(
    "inflight" / Int8ul, Padding(5), "next" / Int16ul, "counter" / Int64ul
)

PACKED_INFLIGHT = "packed_inflight" / Struct(
    "features" / Int64ul,
    "version" / Int16ul,
    "descriptor_count" / Int16ul,
    "free_head" / Int16ul,
    "old_free_head" / Int16ul,
    "used_idx" / Int16ul,
    "old_used_idx" / Int16ul,
    "used_wrap_counter" / Int8ul,
    "old_used_wrap_counter" / Int8ul,
    Padding(10),
)
"""The head of a packed queue's region; a PACKED_INFLIGHT_DESCRIPTOR for each descriptor follows.

Seven bytes of the gap are the text's, three its C compiler's.
"""

PACKED_INFLIGHT_DESCRIPTOR = "packed_inflight_descriptor" / Struct(
    "inflight" / Int8ul,
    Padding(1),
    "next" / Int16ul,
    "last" / Int16ul,
    "num" / Int16ul,
    "counter" / Int64ul,
    "id" / Int16ul,
    "flags" / Int16ul,
    "len" / Int32ul,
    "addr" / Int64ul,
)
