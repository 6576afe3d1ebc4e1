"""Pieces of evidence in words: an event as a line, bytes as a hex dump."""

from dataclasses import fields

from vdev.check.evidence import Shown
from vdev.events import Record

__all__ = ["dump_bytes", "event_line"]

_ROW_SIZE = 16
_MOST_ROWS = 32


def event_line(record: Record) -> str:
    """Return one event as a line: when (milliseconds), who, what, and the event's own fields."""
    event = record.event
    values = " ".join(f"{field.name}={_value(field.name, getattr(event, field.name))}" for field in fields(event))
    return f"{record.time * 1000:10.3f} ms  {record.actor:<10} {type(event).__name__} {values}".rstrip()


def _value(name: str, value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(str(item) for item in value)
    if isinstance(value, int) and not isinstance(value, bool) and name in _HEX_FIELDS:
        return hex(value)
    return str(value)


_HEX_FIELDS = frozenset({"address", "offset", "value", "before", "after", "features", "flags"})


def dump_bytes(shown: Shown) -> list[str]:
    r"""Return the bytes as lines of 16, each with the address that it begins at (or the offset, without one).

    >>> dump_bytes(Shown("used element 0", b"\x03\0\0\0ABCD", 0x1000))
    ['00001000  03 00 00 00 41 42 43 44                          ....ABCD']
    """
    base = shown.address or 0
    rows = range(0, len(shown.data), _ROW_SIZE)
    lines = [_row(base + at, shown.data[at : at + _ROW_SIZE]) for at in rows[:_MOST_ROWS]]
    if len(rows) > _MOST_ROWS:
        lines.append(f"... {len(shown.data) - _MOST_ROWS * _ROW_SIZE} bytes more")
    return lines


def _row(address: int, data: bytes) -> str:
    readable = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in data)
    return f"{address:08x}  {data.hex(' '):<47}  {readable}"
