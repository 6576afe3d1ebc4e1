"""A saved device: this project's own format, carried in the migration stream."""

from construct import (
    Byte,
    BytesInteger,
    Flag,
    GreedyBytes,
    Int8ul,
    Int16ul,
    Int32ul,
    Int64ul,
    Prefixed,
    PrefixedArray,
    Struct,
)

__all__ = ["BALLOON_STATE", "DEVICE_STATE", "FEATURE_BYTES", "MMIO_STATE", "NO_BUFFER", "QUEUE_STATE"]

FEATURE_BYTES = 20
"""Feature bits 0 to 127, and one word more in which bits that no device offers show."""

NO_BUFFER = 0xFFFF_FFFF

QUEUE_STATE = "queue" / Struct(
    "size" / Int32ul,
    "descriptor" / Int64ul,
    "driver" / Int64ul,
    "device" / Int64ul,
    "ready" / Flag,
    "next_avail" / Int16ul,
    "next_used" / Int16ul,
    "unsignalled_count" / Int32ul,
    "kicks_enabled" / Flag,
    "outstanding" / PrefixedArray(Int16ul, Int16ul),
    "outstanding_are_last" / Flag,
    "descriptor_counts" / PrefixedArray(Int16ul, Int16ul),
)
"""`descriptor`, `driver` and `device` are the addresses of the three areas. What follows `ready` is the device side of
the ring (see `vdev.virtqueue.queue.QueueState`), without meaning while the queue is not ready.
"""

DEVICE_STATE = "device" / Struct(
    "device_id" / Int32ul,
    "driver_features" / BytesInteger(FEATURE_BYTES, swapped=True),
    "status" / Byte,
    "interrupt_status" / Byte,
    "config_generation" / Int32ul,
    "queues" / PrefixedArray(Int16ul, QUEUE_STATE),
    "config" / Prefixed(Int32ul, GreedyBytes),
    "specific" / Prefixed(Int32ul, GreedyBytes),
)
"""`driver_features` as the driver wrote them, accepted once FEATURES_OK is set. `specific` is the device type's own."""

MMIO_STATE = "mmio" / Struct(
    "device_features_sel" / Int32ul,
    "driver_features_sel" / Int32ul,
    "queue_sel" / Int32ul,
    "shm_sel" / Int32ul,
    "device" / Prefixed(Int32ul, GreedyBytes),
)
"""The register file's selectors, then a DEVICE_STATE."""

BALLOON_STATE = "balloon" / Struct(
    "hint_state" / Int8ul,
    "command_id" / Int32ul,
    "statistics_head" / Int32ul,
    "inflated" / Prefixed(Int32ul, GreedyBytes),
)
"""`statistics_head` is the kept buffer's head or NO_BUFFER. `inflated` has a bit for each page of RAM, the first page
in the lowest bit of the first byte; it is empty when no page is in the balloon.
"""
