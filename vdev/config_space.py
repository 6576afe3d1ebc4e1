"""A device's configuration space: bytes with named fields ("Device Configuration Space")."""

from typing import Any

import construct
import numpy as np
import numpy.typing as npt

from spec.layout import dtype_of

__all__ = ["ConfigSpace"]


class ConfigSpace:
    """The bytes of `layout`, or none at all for None; `generation` counts the device's own changes."""

    def __init__(self, layout: construct.Construct | None) -> None:
        self._dtype = dtype_of(layout) if layout is not None else np.dtype([])
        self._bytes = np.zeros(self._dtype.itemsize, np.uint8)
        self._fields = _field_accesses(self._dtype)
        self.generation = 0

    @property
    def record(self) -> npt.NDArray[Any]:
        """All fields as a live record of shape ()."""
        return self._bytes.view(self._dtype).reshape(()) if self._dtype.itemsize else np.zeros((), self._dtype)

    def store(self, **fields: int) -> None:
        """Store `fields` and move the generation on."""
        record = self.record
        for name, value in fields.items():
            record[name] = value
        self.generation = (self.generation + 1) & 0xFFFF_FFFF

    def field_at(self, offset: int, size: int) -> str | None:
        """Return the field that such an access is for, None if the text allows none there."""
        return self._fields.get((offset, size))

    def read(self, offset: int, size: int) -> int:
        """Return `size` bytes as a little-endian integer; past the end all is 0."""
        return int.from_bytes(self._bytes[offset : offset + size].tobytes(), "little")

    def write(self, offset: int, size: int, value: int) -> None:
        """Store what the driver wrote: `size` bytes, wholly inside."""
        self._bytes[offset : offset + size] = np.frombuffer(value.to_bytes(size, "little"), np.uint8)

    def save(self) -> bytes:
        """Return the bytes."""
        return self._bytes.tobytes()

    def restore(self, data: bytes, generation: int) -> None:
        """Go on from saved bytes, of the same size."""
        self._bytes[:] = np.frombuffer(data, np.uint8)
        self.generation = generation

    @property
    def size(self) -> int:
        """Bytes."""
        return self._dtype.itemsize


def _field_accesses(dtype: np.dtype[Any], base: int = 0, name: str = "") -> dict[tuple[int, int], str]:
    """Return (offset, size) -> top-level field, for each access that the text allows: a 64-bit field takes two."""
    if dtype.fields is not None:
        found: dict[tuple[int, int], str] = {}
        for field, (inner, offset, *_) in dtype.fields.items():
            found |= _field_accesses(inner, base + offset, name or field)
        return found
    if dtype.subdtype is not None:
        item, shape = dtype.subdtype
        return {
            access: name
            for index in range(int(np.prod(shape)))
            for access in _field_accesses(item, base + index * item.itemsize, name)
        }
    width = 1 if dtype.kind == "V" else min(dtype.itemsize, 4)
    return {(base + offset, width): name for offset in range(0, dtype.itemsize, width)}
