"""What an access to configuration space says of one field, however the access is cut."""

import construct

from spec.layout import dtype_of
from vdev.check.driver.observation import ConfigRead, ConfigWritten

__all__ = ["ConfigAsRead", "covers_only", "field_value"]


def field_value(layout: construct.Construct, field: str, seen: ConfigRead | ConfigWritten) -> int | None:
    """Return the value that was read or written of a field, None unless the access covers all of it.

    A front end may read and write all of configuration space where its driver wants four bytes.

    >>> from spec.balloon import CONFIG
    >>> field_value(CONFIG, "actual", ConfigWritten(offset=0, size=16, value=7 << 32))
    7
    """
    offset, size = _place(layout, field)
    if not (seen.offset <= offset and offset + size <= seen.offset + seen.size):
        return None
    return seen.value >> 8 * (offset - seen.offset) & ((1 << 8 * size) - 1)


def covers_only(layout: construct.Construct, field: str, seen: ConfigRead | ConfigWritten) -> bool:
    """Say whether the access is to this field and nothing else."""
    return (seen.offset, seen.size) == _place(layout, field)


class ConfigAsRead:
    """Configuration space as far as the driver has read it; a field of eight bytes may come in two halves."""

    def __init__(self, layout: construct.Construct) -> None:
        self._layout = layout
        self._bytes: dict[int, int] = {}

    def note(self, seen: ConfigRead) -> None:
        """Keep what was read."""
        for place in range(seen.size):
            self._bytes[seen.offset + place] = seen.value >> 8 * place & 0xFF

    def get(self, field: str) -> int | None:
        """Return what the driver knows a field to be, None unless it has read all of it."""
        offset, size = _place(self._layout, field)
        found = [self._bytes.get(offset + place) for place in range(size)]
        known = bytes(each for each in found if each is not None)
        return int.from_bytes(known, "little") if len(known) == size else None

    def touches(self, field: str, seen: ConfigRead) -> bool:
        """Say whether an access reads any part of a field."""
        offset, size = _place(self._layout, field)
        return seen.offset < offset + size and offset < seen.offset + seen.size


def _place(layout: construct.Construct, field: str) -> tuple[int, int]:
    fields = dtype_of(layout).fields
    assert fields is not None
    return fields[field][1], fields[field][0].itemsize
