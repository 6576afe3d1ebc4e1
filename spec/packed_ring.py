"""The packed virtqueue (virtio 1.4, "Packed Virtqueues"): descriptor ring and event suppression structures.

A *position* says where a side stands in the ring: the descriptor's offset in bits 0 to 14 and the ring wrap counter in
bit 15, as the event suppression structure and vhost-user have it. Both sides begin at `FIRST_POSITION`.
"""

from enum import IntEnum, IntFlag

from construct import Int16ul, Int32ul, Int64ul, Struct

__all__ = [
    "EVENT_ALIGNMENT",
    "EVENT_SIZE",
    "EVENT_SUPPRESSION",
    "FIRST_POSITION",
    "MAX_QUEUE_SIZE",
    "PACKED_DESCRIPTOR",
    "RING_ALIGNMENT",
    "EventFlag",
    "PackedFlag",
    "event_reached",
    "is_position",
    "linear",
    "position",
    "ring_size",
]

MAX_QUEUE_SIZE = 32768
"""Descriptors; a packed queue's size is any number from 1 to this."""

RING_ALIGNMENT = 16
EVENT_ALIGNMENT = 4

FIRST_POSITION = 1 << 15
"""Offset 0, wrap counter 1."""


class PackedFlag(IntFlag):
    """Flags of one descriptor."""

    NEXT = 1 << 0
    WRITE = 1 << 1
    INDIRECT = 1 << 2
    AVAIL = 1 << 7
    USED = 1 << 15


class EventFlag(IntEnum):
    """What one side wants to be told: the two lowest bits of `flags` of an event suppression structure.

    DESC is valid with EVENT_IDX only; 3 is reserved.
    """

    ENABLE = 0
    DISABLE = 1
    DESC = 2


PACKED_DESCRIPTOR = "packed_descriptor" / Struct("addr" / Int64ul, "len" / Int32ul, "id" / Int16ul, "flags" / Int16ul)
EVENT_SUPPRESSION = "event_suppression" / Struct("desc" / Int16ul, "flags" / Int16ul)
"""`desc` is a position; it has a meaning while `flags` says DESC."""

EVENT_SIZE: int = EVENT_SUPPRESSION.sizeof()


def ring_size(queue_size: int) -> int:
    """Bytes of the descriptor ring."""
    return 16 * queue_size


def is_position(value: int, queue_size: int) -> bool:
    """Say whether `value` is a position in a ring of `queue_size` descriptors."""
    return 0 <= value <= 0xFFFF and value & 0x7FFF < queue_size


def linear(position: int, queue_size: int) -> int:
    """Return a position as a number below 2 * `queue_size`, which counts on through both values of the wrap counter.

    >>> linear(FIRST_POSITION, 5), linear(FIRST_POSITION | 4, 5), linear(0, 5)
    (0, 4, 5)
    """
    return position & 0x7FFF if position >> 15 else queue_size + position


def position(linear: int, queue_size: int) -> int:
    """Return the position that `linear` (any number) stands for.

    >>> [hex(position(number, 5)) for number in (0, 4, 5, 10)]
    ['0x8000', '0x8004', '0x0', '0x8000']
    """
    lap, offset = divmod(linear, queue_size)
    return offset if lap & 1 else offset | 1 << 15


def event_reached(event: int, place: int, step_count: int, queue_size: int) -> bool:
    """Say whether the descriptor at position `event` is among the last `step_count` ones before position `place`.

    This is what DESC means: the side that makes or uses that descriptor notifies. `step_count` is at most `queue_size`:
    whoever waits for an event further back has not taken what is there.

    >>> event_reached(event=FIRST_POSITION | 4, place=1, step_count=2, queue_size=5)
    True
    >>> event_reached(event=4, place=1, step_count=2, queue_size=5)
    False
    """
    return (linear(place, queue_size) - linear(event, queue_size) - 1) % (2 * queue_size) < step_count
