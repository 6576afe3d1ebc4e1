"""Guest RAM as the front end tells it: regions with two addresses each, and the file that each is mapped from."""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from spec.vhost_user import MAX_TABLE_REGION_COUNT
from vdev.errors import FrontEndViolation, GuestAddressError
from vdev.memory import PAGE_SIZE, FileBacking, Region
from vdev.vhost_user.framing import Message

__all__ = ["MAX_RAM_SIZE", "MAX_SLOT_COUNT", "MemoryTable", "check_same_memory"]

MAX_SLOT_COUNT = 32
"""Regions that can be known at a time."""

MAX_RAM_SIZE = 1 << 42
"""Bytes of guest RAM. A file can be as large as its maker says; what a device keeps of each page costs real memory."""

_CLAUSE = "Memory access"
_ADDRESS_LIMIT = 1 << 64


@dataclass(frozen=True)
class _Slot:
    guest_address: int
    size: int
    user_address: int
    backing: FileBacking

    @property
    def identity(self) -> tuple[int, int, int]:
        return self.guest_address, self.user_address, self.size


class MemoryTable:
    """The regions that are known now. `replace` is told of them whenever they change.

    It may raise ValueError or GuestAddressError for regions that no RAM can have, or FrontEndViolation; then nothing
    has changed.
    """

    def __init__(self, replace: Callable[[Sequence[Region]], None]) -> None:
        self._replace = replace
        self._slots: list[_Slot] = []

    @property
    def is_known(self) -> bool:
        """Whether the front end has told of any memory."""
        return bool(self._slots)

    def translate(self, user_address: int, request: str, queue: int) -> int:
        """Return the guest-physical address of what the front end has at `user_address`. Raises FrontEndViolation."""
        for slot in self._slots:
            if 0 <= user_address - slot.user_address < slot.size:
                return slot.guest_address + user_address - slot.user_address
        raise FrontEndViolation(_CLAUSE, f"the address {user_address:#x} is in no region", request=request, queue=queue)

    def set(self, payload: Any, message: Message) -> None:
        """SET_MEM_TABLE: these regions and no others. Raises FrontEndViolation, and is then as before."""
        fds = message.fds
        if payload.region_count > MAX_TABLE_REGION_COUNT or payload.region_count != len(fds):
            raise _wrong(f"{payload.region_count} regions with {len(fds)} file descriptors")
        with ExitStack() as undo:
            slots = []
            for region in payload.regions:
                slots.append(self._map(region, message))
                undo.callback(slots[-1].backing.close)
            before = self._slots
            self._take_into_use(slots)
            undo.pop_all()
        for slot in before:
            slot.backing.close()

    def add(self, payload: Any, message: Message) -> None:
        """ADD_MEM_REG: one region more. Raises FrontEndViolation, and is then as before."""
        if len(self._slots) >= MAX_SLOT_COUNT:
            raise _wrong(f"more than {MAX_SLOT_COUNT} regions")
        slot = self._map(payload.region, message)
        try:
            self._take_into_use([*self._slots, slot])
        except FrontEndViolation:
            slot.backing.close()
            raise

    def remove(self, payload: Any, message: Message) -> None:
        """REM_MEM_REG: one region less, named by its addresses and its size. Raises FrontEndViolation."""
        region = payload.region
        identity = region.guest_address, region.user_address, region.size
        found = [slot for slot in self._slots if slot.identity == identity]
        if not found:
            raise _wrong(f"no region of {region.size} bytes at {region.guest_address:#x} is known")
        self._take_into_use([slot for slot in self._slots if slot not in found])
        found[0].backing.close()

    def close(self) -> None:
        """Forget all regions and close their files."""
        slots, self._slots = self._slots, []
        for slot in slots:
            slot.backing.close()

    def _map(self, region: Any, message: Message) -> _Slot:
        where = f"the region of {region.size} bytes at {region.guest_address:#x}"
        if not region.size or region.guest_address % PAGE_SIZE:
            raise _wrong(f"{where} does not begin a page, or is empty")
        if region.user_address + region.size > _ADDRESS_LIMIT:
            raise _wrong(f"{where} ends past 2^64 at the front end's {region.user_address:#x}")
        fd = message.fds[0]
        try:
            if region.mmap_offset + region.size > os.fstat(fd).st_size:
                raise _wrong(f"{where} reaches beyond the end of its file")
            # libblkio's regions end inside a page; what is mapped is whole pages, on the front end's side, too.
            backing = FileBacking(fd, -(-region.size // PAGE_SIZE) * PAGE_SIZE, region.mmap_offset)
        except (OSError, ValueError, OverflowError) as error:
            raise _wrong(f"{where} cannot be mapped at offset {region.mmap_offset:#x}: {error}") from error
        message.fds.pop(0)
        return _Slot(region.guest_address, region.size, region.user_address, backing)

    def _take_into_use(self, slots: list[_Slot]) -> None:
        if (total := sum(slot.size for slot in slots)) > MAX_RAM_SIZE:
            raise _wrong(f"{total} bytes of RAM, more than {MAX_RAM_SIZE}")
        ordered = sorted(slots, key=lambda slot: slot.user_address)
        for low, high in pairwise(ordered):
            if low.user_address + low.size > high.user_address:
                raise _wrong(f"regions overlap at the front end's address {high.user_address:#x}")
        before, self._slots = self._slots, slots
        try:
            self._replace([Region(slot.guest_address, slot.backing) for slot in slots])
        except (ValueError, GuestAddressError) as error:
            self._slots = before
            raise _wrong(str(error)) from error
        except FrontEndViolation:
            self._slots = before
            raise


def check_same_memory(ours: Sequence[Region], told: Sequence[Region]) -> None:
    """Raise ValueError unless both are the same pages of the same files at the same guest-physical addresses."""
    if _identities(ours) != _identities(told):
        ranges = ", ".join(f"{region.guest_address:#x}-{region.end:#x}" for region in ours)
        raise ValueError(f"guest RAM is {ranges} in files of this host's own, and nothing else")


def _identities(regions: Sequence[Region]) -> list[tuple[int, ...]]:
    return sorted((region.guest_address, region.size, *_file_of(region.backing.fd)) for region in regions)


def _file_of(fd: int | None) -> tuple[int, int]:
    if fd is None:
        return -1, -1
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _wrong(what: str) -> FrontEndViolation:
    return FrontEndViolation(_CLAUSE, what)
