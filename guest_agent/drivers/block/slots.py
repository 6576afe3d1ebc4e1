"""The requests of one queue, in guest RAM: what the device reads and writes beside the data, and the driver's notes.

A caller's request may be several of the device's. The first of these leads: its slot is kept until all are done.
"""

from functools import cache
from typing import Literal

from construct import Array, Bytes, Construct, Int8ul, Int16ul, Int32ul, Int64ul, Struct

from spec.block import REQUEST_HEADER
from spec.layout import dtype_of, struct_of
from vdev.memory import PAGE_SIZE, GuestMemory

__all__ = ["PAYLOAD_SIZE", "RequestSlots"]

PAYLOAD_SIZE = 64
"""Bytes beside the header that a slot has for the device: ranges, or an id."""

NO_STATUS = 0xFF
"""What a status byte is before the device wrote it: none of the text's."""

_pack_header = struct_of(REQUEST_HEADER).pack_into
_HEADER_SIZE: int = REQUEST_HEADER.sizeof()


@cache
def slots_layout(count: int) -> Construct:
    """Return the layout of `count` slots. The first `free_count` entries of `free` are the free ones, a stack."""
    return "block_request_slots" / Struct(
        "header" / Array(count, REQUEST_HEADER),
        "payload" / Array(count, Bytes(PAYLOAD_SIZE)),
        "token" / Array(count, Int64ul),  # the caller's; at the leader
        "data_size" / Array(count, Int32ul),  # bytes that the device is to write if it succeeds
        "free_count" / Int32ul,
        "leader" / Array(count, Int16ul),
        "parts_left" / Array(count, Int16ul),  # at the leader
        "free" / Array(count, Int16ul),
        "kind" / Array(count, Int8ul),  # the request's type: the header is the device's to spoil
        "worst" / Array(count, Int8ul),  # the highest status of all parts; at the leader
        "status" / Array(count, Int8ul),
    )


class RequestSlots:
    """`count` slots at the page-aligned guest-physical `address`."""

    def __init__(self, memory: GuestMemory, address: int, count: int) -> None:
        self._memory = memory
        self._address = address
        dtype = dtype_of(slots_layout(count))
        assert dtype.fields is not None
        offsets = {name: int(entry[1]) for name, entry in dtype.fields.items()}
        live = memory.bytes_view(address, dtype.itemsize).data

        def words(name: str, code: Literal["B", "H", "I", "Q"], width: int) -> memoryview:
            part: memoryview = live[offsets[name] : offsets[name] + width * count].cast(code)
            return part

        self._size = dtype.itemsize
        self._header_offset = offsets["header"]
        self._payload_offset = offsets["payload"]
        self._status_offset = offsets["status"]
        self._live = live
        self._tokens = words("token", "Q", 8)
        self._data_sizes = words("data_size", "I", 4)
        self._free_count = live[offsets["free_count"] : offsets["free_count"] + 4].cast("I")
        self._leaders = words("leader", "H", 2)
        self._parts_left = words("parts_left", "H", 2)
        self._free = words("free", "H", 2)
        self._kinds = words("kind", "B", 1)
        self._worst = words("worst", "B", 1)
        self._statuses = words("status", "B", 1)

    @staticmethod
    def area_size(count: int) -> int:
        """Return the bytes of guest RAM, whole pages, that `count` slots take."""
        size: int = slots_layout(count).sizeof()
        return -(-size // PAGE_SIZE) * PAGE_SIZE

    @classmethod
    def create(cls, memory: GuestMemory, address: int, count: int) -> "RequestSlots":
        """Return `count` free slots."""
        slots = cls(memory, address, count)
        for index in range(count):
            slots._free[index] = count - 1 - index
        slots._free_count[0] = count
        slots.mark()
        return slots

    @property
    def free_count(self) -> int:
        """Slots that are free."""
        return self._free_count[0]

    def take(self, kind: int, sector: int, data_size: int, leader: int | None, token: int, part_count: int) -> int:
        """Take a slot for one request and write its header; None for `leader` makes it lead `part_count` requests."""
        free_count = self._free_count[0] - 1
        slot: int = self._free[free_count]
        self._free_count[0] = free_count
        _pack_header(self._live, self._header_offset + _HEADER_SIZE * slot, kind, 0, sector)
        self._kinds[slot] = kind
        self._data_sizes[slot] = data_size
        self._statuses[slot] = NO_STATUS
        if leader is None:
            self._leaders[slot] = slot
            self._tokens[slot] = token
            self._parts_left[slot] = part_count
            self._worst[slot] = 0
        else:
            self._leaders[slot] = leader
        return slot

    def finish(self, slot: int, status: int) -> tuple[int, int, int, int] | None:
        """Note that the device is done with `slot`.

        If this was the last part of a caller's request, returns its token, type, worst status, and leading slot.
        """
        leader: int = self._leaders[slot]
        if status > self._worst[leader]:
            self._worst[leader] = status
        parts_left = self._parts_left[leader] - 1
        self._parts_left[leader] = parts_left
        if slot != leader:
            self._release(slot)
        if parts_left:
            return None
        self._release(leader)
        return self._tokens[leader], self._kinds[leader], self._worst[leader], leader

    def _release(self, slot: int) -> None:
        self._free[self._free_count[0]] = slot
        self._free_count[0] += 1

    def status(self, slot: int) -> int:
        """Return the status byte, as the device left it."""
        return self._statuses[slot]

    def data_size(self, slot: int) -> int:
        """Return the bytes that the device is to write if it succeeds, without the status."""
        return self._data_sizes[slot]

    def header(self, slot: int) -> tuple[int, int]:
        """Return the header as a segment."""
        return self._address + self._header_offset + _HEADER_SIZE * slot, _HEADER_SIZE

    def status_byte(self, slot: int) -> tuple[int, int]:
        """Return the status byte as a segment."""
        return self._address + self._status_offset + slot, 1

    def payload(self, slot: int, size: int) -> tuple[int, int]:
        """Return the first `size` bytes of the payload as a segment."""
        return self._address + self._payload_offset + PAYLOAD_SIZE * slot, size

    def store_payload(self, slot: int, data: bytes) -> None:
        """Store the payload."""
        self._memory.write(self.payload(slot, len(data))[0], data)

    def load_payload(self, slot: int, size: int) -> bytes:
        """Return a copy of the first `size` bytes of the payload."""
        return self._memory.read(*self.payload(slot, size))

    def mark(self) -> None:
        """Tell the dirty log that slots were stored to."""
        if self._memory.page_marks is not None:
            self._memory.mark_written(self._address, self._size)
