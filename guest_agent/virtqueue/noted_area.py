"""What the guest RAM of a queue has in both formats: the driver's notes at its head, and marks for the dirty log."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from guest_agent.virtqueue.queue import DriverAddresses, NoQueueHere
from spec.split_area import NOTES
from vdev.memory import PAGE_SIZE, GuestMemory
from vdev.memory.pages import PAGE_SHIFT

__all__ = ["AreaHead", "NotedArea", "offset_of", "whole_pages"]

_PAGE_SHIFT = np.int64(PAGE_SHIFT)
_HEAD_SIZE: int = NOTES.sizeof()


def offset_of(dtype: np.dtype[Any], name: str) -> int:
    """Return the byte offset of a field."""
    assert dtype.fields is not None
    return int(dtype.fields[name][1])


def whole_pages(size: int) -> int:
    """Return `size` bytes rounded up to whole pages."""
    return -(-size // PAGE_SIZE) * PAGE_SIZE


class AreaHead:
    """Where the notes stand that an area of either format begins with: the number of the 32-bit word."""

    MAGIC = 0
    SIZE = 1
    FEATURES_LOW = 2
    FEATURES_HIGH = 3
    INDIRECT_CAPACITY = 4

    @staticmethod
    def read(memory: GuestMemory, address: int) -> tuple[int, int, int] | None:
        """Return magic, size and indirect capacity from the head of an area at `address`; None where none can be."""
        if address % PAGE_SIZE or not memory.contains(address, _HEAD_SIZE):
            return None
        notes = memory.bytes_view(address, _HEAD_SIZE).data.cast("I")
        return notes[AreaHead.MAGIC], notes[AreaHead.SIZE], notes[AreaHead.INDIRECT_CAPACITY]


class NotedArea(ABC):
    """`area_size` bytes of guest RAM at the page-aligned guest-physical `address`, which hold a queue of `size`.

    What was stored through a view must be told with `mark` (bytes) or `mark_slots` (the notes at some indices), after
    the store, for the dirty log. A subclass is the area of one ring format.

    Raises ValueError for an impossible size or address, GuestAddressError where the area is not in RAM.
    """

    format: ClassVar[str]
    magic: ClassVar[int]
    queue_size_max: ClassVar[int]
    queue_sizes: ClassVar[str]
    """Which sizes a queue can have, in words."""
    addresses: DriverAddresses
    """What the device is told of the queue."""

    def __init__(self, memory: GuestMemory, address: int, size: int, indirect_capacity: int) -> None:
        if not self.is_queue_size(size):
            raise ValueError(f"{size} is no queue size: {self.queue_sizes} is")
        if address % PAGE_SIZE:
            raise ValueError(f"the area at {address:#x} does not begin a page")
        self.size = size
        self.indirect_capacity = indirect_capacity
        self.address = address
        self.bytes = memory.bytes_view(address, self.bytes_for(size, indirect_capacity))
        self.notes = self.bytes[:_HEAD_SIZE].data.cast("I")
        self._memory = memory
        self._first_page = memory.page_of(address)
        self._slot_parts: list[tuple[int, int]] = []
        """Offset and size of an item of each array that `mark_slots` is about."""

    @classmethod
    def is_queue_size(cls, size: int) -> bool:
        """Say whether a queue can have `size` descriptors."""
        return 0 < size <= cls.queue_size_max

    @staticmethod
    @abstractmethod
    def bytes_for(size: int, indirect_capacity: int) -> int:
        """Return how many bytes the area of a queue of `size` descriptors has."""

    @classmethod
    def create(cls, memory: GuestMemory, address: int, size: int, features: int, indirect_capacity: int) -> Self:
        """Clear the area, and note that everything is free and calls are enabled.

        `features` is the mask of negotiated bits. Raises what the constructor does.
        """
        area = cls(memory, address, size, indirect_capacity)
        area._write_head(features)
        area.note_empty()
        area.mark(0, len(area.bytes))
        return area

    @classmethod
    def find(cls, memory: GuestMemory, address: int) -> Self:
        """Return the area that `create` made at `address`, perhaps in another process or on another machine.

        Raises NoQueueHere.
        """
        head = AreaHead.read(memory, address)
        if head is None:
            raise NoQueueHere(f"{address:#x} does not begin a page of RAM")
        magic, size, indirect_capacity = head
        if (
            magic != cls.magic
            or not cls.is_queue_size(size)
            or indirect_capacity > cls.queue_size_max
            or not memory.contains(address, cls.bytes_for(size, indirect_capacity))
        ):
            raise NoQueueHere(f"no {cls.format} queue was made at {address:#x}")
        return cls(memory, address, size, indirect_capacity)

    @abstractmethod
    def note_empty(self) -> None:
        """Note, in an area of zeros, that everything is free and calls are enabled."""

    def _write_head(self, features: int) -> None:
        self.bytes[:] = 0
        self.notes[AreaHead.SIZE] = self.size
        self.notes[AreaHead.FEATURES_LOW] = features & 0xFFFF_FFFF
        self.notes[AreaHead.FEATURES_HIGH] = features >> 32 & 0xFFFF_FFFF
        self.notes[AreaHead.INDIRECT_CAPACITY] = self.indirect_capacity
        self.notes[AreaHead.MAGIC] = self.magic

    @property
    def full_fence(self) -> Callable[[], None]:
        """What orders stores before later loads of this RAM."""
        return self._memory.full_fence

    @property
    def features(self) -> int:
        """The mask of negotiated bits that the queue was made with."""
        return int(self.notes[AreaHead.FEATURES_LOW] | self.notes[AreaHead.FEATURES_HIGH] << 32)

    def mark(self, offset: int, size: int) -> None:
        """Tell the dirty log that `size` bytes from `offset` on were stored."""
        if self._memory.page_marks is not None:
            self._memory.mark_written(self.address + offset, size)

    def mark_notes(self) -> None:
        """Tell the dirty log that a word of `notes` was stored."""
        self.mark(0, _HEAD_SIZE)

    def mark_slots(self, slots: npt.ArrayLike) -> None:
        """Tell the dirty log that everything at these indices was stored, but for the stack of free ones."""
        marks = self._memory.page_marks
        if marks is None:
            return
        indices = np.atleast_1d(np.asarray(slots, np.int64))
        offsets = np.concatenate([offset + indices * item_size for offset, item_size in self._slot_parts])
        marks.mark_pages(self._first_page + (offsets >> _PAGE_SHIFT))
