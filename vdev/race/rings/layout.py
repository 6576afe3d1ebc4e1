"""Which bytes of guest RAM both sides touch, gathered into one small image, and what each of them is called."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from guest_agent.virtqueue import driver_area_size
from spec.layout import dtype_of
from spec.packed_area import packed_area
from spec.packed_ring import EVENT_SUPPRESSION, PACKED_DESCRIPTOR
from spec.split_area import split_area
from spec.split_ring import DESCRIPTOR, available_ring, used_ring
from vdev.memory import PAGE_SIZE
from vdev.race.rings.scenario import RingScenario

__all__ = ["AREA", "Field", "Layout"]

AREA = PAGE_SIZE
"""Where the queue's area stands in guest RAM; the page below holds the buffers."""


@dataclass(frozen=True)
class Field:
    """A field of the image: where it is, bytes, and its name ("avail.idx")."""

    offset: int
    size: int
    name: str

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.offset + self.size


class Layout:
    """The shared bytes of one scenario. An *offset* is one in the image; an address is guest-physical."""

    def __init__(self, scenario: RingScenario) -> None:
        self.indirect_capacity = scenario.segments if scenario.indirect else 0
        self.ram_size = AREA + driver_area_size(scenario.size, self.indirect_capacity)
        # Address, bytes and offset of each part.
        self.parts: list[tuple[int, int, int]] = []
        self.fields: list[Field] = []
        self.size = 0
        if scenario.format == "split":
            split = split_area(scenario.size, self.indirect_capacity)
            self._add(split.descriptor, "desc", dtype_of(DESCRIPTOR), scenario.size)
            self._add(split.available, "avail", dtype_of(available_ring(scenario.size)))
            self._add(split.used, "used", dtype_of(used_ring(scenario.size)))
            tables = split.indirect
            descriptor = dtype_of(DESCRIPTOR)
        else:
            packed = packed_area(scenario.size, self.indirect_capacity)
            self._add(packed.ring, "ring", dtype_of(PACKED_DESCRIPTOR), scenario.size)
            self._add(packed.driver_event, "driver_event", dtype_of(EVENT_SUPPRESSION))
            self._add(packed.device_event, "device_event", dtype_of(EVENT_SUPPRESSION))
            tables = packed.indirect
            descriptor = dtype_of(PACKED_DESCRIPTOR)
        if scenario.indirect:
            self._add(tables, "table", np.dtype((descriptor, (self.indirect_capacity,))), scenario.size)
        self._names: dict[tuple[int, int], list[Field]] = {}

    def _add(self, area_offset: int, name: str, dtype: np.dtype[Any], count: int | None = None) -> None:
        whole = dtype if count is None else np.dtype((dtype, (count,)))
        self.parts.append((AREA + area_offset, whole.itemsize, self.size))
        self.fields += _fields(whole, self.size, name)
        self.size += whole.itemsize

    def offset_of(self, address: int) -> int:
        """Return the offset of a shared byte; -1 for one that is not shared."""
        for start, size, offset in self.parts:
            if start <= address < start + size:
                return offset + address - start
        return -1

    def touches(self, address: int, size: int) -> bool:
        """Say whether a range has a shared byte."""
        return any(start < address + size and address < start + length for start, length, _ in self.parts)

    def image(self, ram: bytes) -> bytes:
        """Return the shared bytes of a whole RAM."""
        return b"".join([ram[start : start + size] for start, size, _ in self.parts])

    def describe(self, offset: int, size: int, value: int) -> tuple[str, str]:
        """Return the name and the value, field by field, of `size` bytes at `offset`."""
        fields = self._names.get((offset, size))
        if fields is None:
            fields = [field for field in self.fields if field.offset < offset + size and offset < field.end]
            self._names[offset, size] = fields
        names, values = [], []
        for field in fields:
            first, end = max(field.offset, offset), min(field.end, offset + size)
            part = value >> 8 * (first - offset) & (1 << 8 * (end - first)) - 1
            inside = "" if end - first == field.size else f"[{first - field.offset}:{end - field.offset}]"
            names.append(field.name + inside)
            values.append(f"{part:#x}" if part > 0xFFFF or field.name.endswith("flags") else str(part))
        owner = names[0].rpartition(".")[0]
        if owner and all(name.rpartition(".")[0] == owner for name in names):
            names = [names[0], *(name.rpartition(".")[2] for name in names[1:])]
        return "+".join(names), ", ".join(values)


def _fields(dtype: np.dtype[Any], offset: int, name: str) -> Iterator[Field]:
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        for index in range(shape[0]):
            inner = np.dtype((base, shape[1:])) if shape[1:] else base
            yield from _fields(inner, offset + index * inner.itemsize, f"{name}[{index}]")
    elif dtype.fields is not None:
        for part, (inner, at, *_) in dtype.fields.items():
            yield from _fields(inner, offset + at, f"{name}.{part}")
    else:
        yield Field(offset, dtype.itemsize, name)
