"""What a driver's queue is in both formats: an area of guest RAM, and an object that holds nothing that changes."""

from typing import ClassVar, Self

from guest_agent.virtqueue.noted_area import NotedArea, whole_pages
from guest_agent.virtqueue.queue import DriverAddresses
from spec.device import Feature
from vdev.events import SILENT, Emitter, UsedCollected
from vdev.memory import GuestMemory

__all__ = ["AreaQueue"]


class AreaQueue:
    """The part of a `DriverQueue` that does not hang on the ring's format.

    Make one with `create`, or go on with one that is in guest RAM already with `attach`. Two objects over one area are
    the same queue (of which one at a time may act).
    """

    area_class: ClassVar[type[NotedArea]]

    def __init__(self, area: NotedArea, number: int, events: Emitter = SILENT) -> None:
        self.number = number
        self.size = area.size
        self.area_address = area.address
        self._area = area
        self._events = events
        self._notes = area.notes
        self._full_fence = area.full_fence
        self._event_idx = bool(area.features >> Feature.EVENT_IDX & 1)

    @classmethod
    def area_size(cls, size: int, indirect_capacity: int = 0) -> int:
        """Return the bytes of guest RAM, a multiple of the page size, that a queue of `size` descriptors takes.

        `indirect_capacity` is the most entries an indirect table can have; every buffer's head gets such a table.
        """
        return whole_pages(cls.area_class.bytes_for(size, indirect_capacity))

    @classmethod
    def create(
        cls,
        memory: GuestMemory,
        number: int,
        size: int,
        area_address: int,
        features: int,
        events: Emitter = SILENT,
        *,
        indirect_capacity: int = 0,
    ) -> Self:
        """Return an empty queue in `area_size(size, indirect_capacity)` bytes from the page-aligned `area_address` on.

        `number` is the queue's, for errors and events; `features` is the mask of negotiated bits. Calls are enabled.

        Raises ValueError for an impossible size or address, GuestAddressError where the area is not in RAM.
        """
        area = cls.area_class.create(memory, area_address, size, features, indirect_capacity)
        return cls(area, number, events)

    @classmethod
    def attach(cls, memory: GuestMemory, number: int, area_address: int, events: Emitter = SILENT) -> Self:
        """Return the queue that `create` made at `area_address`, exactly as it stands. Stores nothing.

        Raises NoQueueHere.
        """
        return cls(cls.area_class.find(memory, area_address), number, events)

    @property
    def addresses(self) -> DriverAddresses:
        """What the device is to be told."""
        return self._area.addresses

    @property
    def features(self) -> int:
        """The mask of negotiated bits that the queue was made with."""
        return self._area.features

    def _tell_collected(self, heads: list[int]) -> None:
        if self._events.listening and heads:
            self._events.emit(UsedCollected(self.number, tuple(heads)))
