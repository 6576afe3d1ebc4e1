"""Something that the other side touched and should not have: how it is told."""

from dataclasses import dataclass
from enum import Enum

from vdev.check.evidence import Shown

__all__ = ["Touch", "Touched", "difference"]

_SHOWN_SIZE = 64


class Touch(Enum):
    """What kind of memory was touched."""

    CANARY = "canary"
    """The bytes beside a buffer or a ring area were written."""
    GUARD = "guard page"
    """A page that belongs to no buffer was read or written."""
    HELD = "held"
    """Something was written that the device may only read: a table, the available ring, a device-readable buffer."""


@dataclass(frozen=True, slots=True)
class Touched(Shown):
    """Bytes that were touched, as they were found; `name` says beside what, and whether they were read or written."""

    kind: Touch = Touch.CANARY


def difference(address: int, expected: bytes | bytearray, found: bytes, kind: Touch, name: str) -> Touched | None:
    """Return the part of `found` that is not as expected, None if it is; `address` is that of the first byte."""
    if found == expected:
        return None
    places = [place for place, (old, new) in enumerate(zip(expected, found, strict=True)) if old != new]
    first, end = places[0], min(places[-1] + 1, places[0] + _SHOWN_SIZE)
    return Touched(name, found[first:end], address + first, kind)
