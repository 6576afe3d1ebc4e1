"""What lies where in guest RAM: the boot page, and the tables that the guest needs before it can allocate.

Page 0 is the boot page. Right behind it, or in the first region that has room, lie the page database and the object
table. All else is the buddy allocator's.
"""

from enum import IntEnum

import numpy as np
from construct import Array, Int32ul, Int64ul, Struct

from guest_agent.errors import GuestCorruption
from guest_agent.marked_ram import Column, MarkedRam
from guest_agent.page_database import ENTRY_SIZE, MAX_ORDER, NO_PAGE
from spec.layout import dtype_of
from vdev.errors import UserError
from vdev.memory import PAGE_SIZE, GuestMemory

__all__ = ["BOOT_PAGE", "MAX_AREA_COUNT", "OBJECT", "AreaTransport", "BootPage", "aligned_blocks"]

_MAGIC = int.from_bytes(b"vdevBOOT", "little")
_VERSION = 2
MAX_AREA_COUNT = 32
"""Devices that one guest can drive."""


class AreaTransport(IntEnum):
    """How the driver of an area reaches its device."""

    MMIO = 0
    VHOST_USER = 1


_HEADER = "header" / Struct(
    "magic" / Int64ul,
    "version" / Int32ul,
    "area_count" / Int32ul,
    "page_count" / Int64ul,
    "database_address" / Int64ul,
    "object_table_address" / Int64ul,
    "object_count" / Int32ul,
    "object_page_count" / Int32ul,
    "poison_on" / Int32ul,
    "poison_value" / Int32ul,
)
_FREE_LIST = "free_list" / Struct("first" / Int32ul, "count" / Int32ul)
_AREA = "area" / Struct(
    "place" / Int64ul,  # the address of its registers, or the number of its vhost-user slot
    "area_address" / Int64ul,
    "device_id" / Int32ul,
    "transport" / Int32ul,  # AreaTransport
)
BOOT_PAGE = "boot_page" / Struct(
    "header" / _HEADER,
    "free_lists" / Array(MAX_ORDER + 1, _FREE_LIST),
    "areas" / Array(MAX_AREA_COUNT, _AREA),
)
OBJECT = "object" / Struct(
    "first" / Int32ul,  # head of its first block; the blocks of an object are linked by `next`
    "last" / Int32ul,
    "page_count" / Int32ul,
    "tag" / Int32ul,  # the workload's own
)
_OBJECT_SIZE = 16


def _part(name: str) -> int:
    fields = dtype_of(BOOT_PAGE).fields
    if fields is None:
        raise TypeError("the boot page has named parts")
    return int(fields[name][1])


class BootPage:
    """Page 0: how a guest that finds only RAM finds all the rest.

    `header`, `free_lists` and `areas` are columns by field name; `header` has one entry.
    """

    def __init__(self, ram: MarkedRam) -> None:
        self.ram = ram
        address = ram.memory.address_of(0)
        self.header = ram.columns(address + _part("header"), _HEADER, 1)
        self.free_lists = ram.columns(address + _part("free_lists"), _FREE_LIST, MAX_ORDER + 1)
        self.areas = ram.columns(address + _part("areas"), _AREA, MAX_AREA_COUNT)

    @classmethod
    def create(cls, ram: MarkedRam, poison_value: int | None = None) -> "BootPage":
        """Lay out zeroed RAM.

        Raises UserError if no region has room for the tables.
        """
        boot = cls(ram)
        memory = ram.memory
        database_pages, object_pages = _table_pages(memory)
        first = _find_room(memory, database_pages + object_pages)
        values = {
            "version": _VERSION,
            "page_count": memory.page_count,
            "database_address": memory.address_of(first),
            "object_table_address": memory.address_of(first + database_pages),
            "poison_on": int(poison_value is not None),
            "poison_value": poison_value or 0,
            "magic": _MAGIC,
        }
        for name, value in values.items():
            boot.header[name][0] = value
        boot.free_lists["first"].put(np.arange(MAX_ORDER + 1), NO_PAGE)
        return boot

    @classmethod
    def attach(cls, ram: MarkedRam) -> "BootPage":
        """Find the boot page of a guest that ran on this RAM.

        Raises GuestCorruption if it is not one, or not of this RAM.
        """
        boot = cls(ram)
        boot.check()
        return boot

    def check(self) -> None:
        """Raise GuestCorruption unless this is the boot page of a guest on RAM like this."""
        memory = self.ram.memory
        database_pages, object_pages = _table_pages(memory)
        if self["magic"] != _MAGIC:
            raise GuestCorruption(f"no boot page: magic {self['magic']:#x}", 0)
        if self["version"] != _VERSION:
            raise GuestCorruption(f"boot page of version {self['version']}, this guest knows {_VERSION}", 0)
        if self["page_count"] != memory.page_count:
            raise GuestCorruption(f"boot page of {self['page_count']} pages on RAM of {memory.page_count}", 0)
        for name, page_count in (("database_address", database_pages), ("object_table_address", object_pages)):
            if self[name] % PAGE_SIZE or not memory.contains(self[name], page_count * PAGE_SIZE):
                raise GuestCorruption(f"boot page: {name} {self[name]:#x} is not in RAM", 0)
        if self["area_count"] > MAX_AREA_COUNT:
            raise GuestCorruption(f"boot page: {self['area_count']} driver areas", 0)

    def __getitem__(self, name: str) -> int:
        return self.header[name][0]

    def column(self, name: str) -> Column:
        """Return a header field as a column of one entry."""
        return self.header[name]

    @property
    def poison_value(self) -> int | None:
        """What freed pages are filled with, None when they keep their content."""
        return self["poison_value"] if self["poison_on"] else None

    def reserved_ranges(self) -> list[tuple[int, int]]:
        """Return what never belongs to the allocator: (first page, end page), ascending."""
        memory = self.ram.memory
        first = memory.page_of(self["database_address"])
        end = memory.page_of(self["object_table_address"]) + _table_pages(memory)[1]
        return [(0, end)] if first == 1 else [(0, 1), (first, end)]


def _pages_for(count: int, entry_size: int) -> int:
    return -(-count * entry_size // PAGE_SIZE)


def _table_pages(memory: GuestMemory) -> tuple[int, int]:
    return _pages_for(memory.page_count, ENTRY_SIZE), _pages_for(memory.page_count, _OBJECT_SIZE)


def _find_room(memory: GuestMemory, page_count: int) -> int:
    for region in memory.regions:
        first = max(memory.region_first_page(region), 1)
        if first + page_count <= memory.region_first_page(region) + region.size // PAGE_SIZE:
            return first
    raise UserError(
        f"guest RAM of {memory.page_count} pages needs a region with {page_count} free pages for its page database; "
        "make the largest region larger"
    )


def aligned_blocks(first: int, end: int, frame_offset: int) -> list[tuple[int, int]]:
    """Return the fewest (page, order) blocks that cover the pages from `first` to `end`.

    A block of order n begins at a frame number (page + `frame_offset`) that 2**n divides, as Linux aligns them.

    >>> aligned_blocks(3, 9, 0)
    [(3, 0), (4, 2), (8, 0)]
    """
    blocks = []
    while first < end:
        frame = first + frame_offset
        alignment = (frame & -frame).bit_length() - 1 if frame else MAX_ORDER
        order = min(alignment, (end - first).bit_length() - 1, MAX_ORDER)
        blocks.append((first, order))
        first += 1 << order
    return blocks
