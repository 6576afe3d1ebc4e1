"""The split virtqueue (virtio 1.4, "Split Virtqueues"): descriptor table, available ring, used ring.

The available and used rings are sized by the queue, so each has a function that gives the declaration for one
queue size; both include their event field, which stands behind the ring.
"""

from enum import IntFlag
from functools import cache

import construct
from construct import Array, Int16ul, Int32ul, Int64ul, Struct

__all__ = [
    "AVAILABLE_ALIGNMENT",
    "DESCRIPTOR",
    "DESCRIPTOR_ALIGNMENT",
    "MAX_QUEUE_SIZE",
    "USED_ALIGNMENT",
    "USED_ELEMENT",
    "AvailableFlag",
    "DescriptorFlag",
    "UsedFlag",
    "available_ring",
    "available_ring_size",
    "descriptor_table_size",
    "event_reached",
    "used_ring",
    "used_ring_size",
]

MAX_QUEUE_SIZE = 32768
"""Descriptors; a split queue's size is a power of two up to this."""

DESCRIPTOR_ALIGNMENT = 16
AVAILABLE_ALIGNMENT = 2
USED_ALIGNMENT = 4


class DescriptorFlag(IntFlag):
    """Flags of one descriptor."""

    NEXT = 1
    WRITE = 2
    INDIRECT = 4


class AvailableFlag(IntFlag):
    """Flags of the available ring, written by the driver."""

    NO_INTERRUPT = 1


class UsedFlag(IntFlag):
    """Flags of the used ring, written by the device."""

    NO_NOTIFY = 1


DESCRIPTOR = "descriptor" / Struct("addr" / Int64ul, "len" / Int32ul, "flags" / Int16ul, "next" / Int16ul)
USED_ELEMENT = "used_element" / Struct("id" / Int32ul, "len" / Int32ul)


@cache
def available_ring(queue_size: int) -> construct.Construct:
    """Return the layout of the available ring (driver area) of a queue of `queue_size` descriptors."""
    return "available" / Struct(
        "flags" / Int16ul, "idx" / Int16ul, "ring" / Array(queue_size, Int16ul), "used_event" / Int16ul
    )


@cache
def used_ring(queue_size: int) -> construct.Construct:
    """Return the layout of the used ring (device area) of a queue of `queue_size` descriptors."""
    return "used" / Struct(
        "flags" / Int16ul, "idx" / Int16ul, "ring" / Array(queue_size, USED_ELEMENT), "avail_event" / Int16ul
    )


def descriptor_table_size(queue_size: int) -> int:
    """Bytes of the descriptor table."""
    return 16 * queue_size


def available_ring_size(queue_size: int) -> int:
    """Bytes of the available ring with its event field."""
    return 6 + 2 * queue_size


def used_ring_size(queue_size: int) -> int:
    """Bytes of the used ring with its event field."""
    return 6 + 8 * queue_size


def event_reached(event: int, index: int, step_count: int) -> bool:
    """Say whether the entry numbered `event` is among the last `step_count` ones placed before `index`.

    This is what the event fields mean: an index that moves past its event field's value notifies ("Used Buffer
    Notification Suppression"). All indices are free-running and 16 bits wide.

    >>> event_reached(event=65535, index=1, step_count=2)
    True
    >>> event_reached(event=1, index=1, step_count=2)
    False
    """
    return (index - event - 1) & 0xFFFF < step_count
