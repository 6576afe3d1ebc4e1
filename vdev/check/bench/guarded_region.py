"""One region of guarded guest RAM: blocks of whole pages, and guard pages between them.

The bytes of a block round its buffer are canaries. A guard page is a hole of the file that is never touched here; one
that was read or written through any mapping is a hole no more.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from vdev.check.bench.stray_pages import stray_runs
from vdev.check.bench.touched import Touch, Touched, difference
from vdev.memory import PAGE_SIZE, FileBacking

__all__ = ["Buffer", "GuardedRegion"]

_PATTERN = bytes((73 * place + 41) % 251 + 1 for place in range(PAGE_SIZE))
_RESERVED = 256
"""Pages at both ends of a region that are taken only by who asks for an end."""


@dataclass(frozen=True, slots=True)
class Buffer:
    """`size` bytes of guest RAM from the guest-physical `address` on; `what` names it for people."""

    address: int
    size: int
    what: str


@dataclass(frozen=True, slots=True)
class _Block:
    first_page: int
    page_count: int
    buffer: Buffer


class GuardedRegion:
    """`size` bytes from `guest_address` on, which are at `file_offset` of the file `fd`. The file is the caller's.

    `user_address` is what a vhost-user front end calls the first byte; nothing is mapped there.
    """

    def __init__(self, guest_address: int, size: int, user_address: int, file_offset: int, fd: int) -> None:
        self.guest_address = guest_address
        self.size = size
        self.user_address = user_address
        self.file_offset = file_offset
        self.fd = fd
        self.backing = FileBacking(os.dup(fd), size, file_offset)
        self._blocks: dict[int, _Block] = {}
        self._free: dict[int, list[int]] = {}
        self._spent: list[tuple[int, int]] = []
        """First and end of pages at the region's ends that were released."""
        self._cursor = _RESERVED
        self._found: list[Touched] = []

    @property
    def end(self) -> int:
        """The first guest-physical address behind the region."""
        return self.guest_address + self.size

    def close(self) -> None:
        """Give the mapping up."""
        self.backing.close()

    def guard(self) -> int:
        """Return the address of a guard page with guard pages round it."""
        return self.end - _RESERVED // 2 * PAGE_SIZE

    def holds(self, address: int) -> bool:
        """Say whether an address is in the region."""
        return self.guest_address <= address < self.end

    # Blocks

    def place(self, size: int, *, align: int, what: str, offset_in_page: int | None, at: str = "") -> Buffer:
        """Return a new buffer, zero and with its canaries, as `Arena.allocate` has it; `at` may be "first" or "last".

        Raises MemoryError if there is no more room.
        """
        page_count = max(1, -(-((offset_in_page or 0) + size) // PAGE_SIZE))
        if offset_in_page is not None:
            start = offset_in_page
        elif at == "first":
            start = 0
        else:
            start = (page_count * PAGE_SIZE - max(size, 1)) // align * align
        first_page, is_reused = self._take_pages(page_count, at)
        buffer = Buffer(self.guest_address + first_page * PAGE_SIZE + start, size, what)
        block = self._blocks[first_page] = _Block(first_page, page_count, buffer)
        for offset, canary in _canaries(start, size, page_count):
            self._store(first_page * PAGE_SIZE + offset, canary)
        if is_reused:
            self.backing.data[_span(block, start, size)] = 0
        return buffer

    def _take_pages(self, count: int, at: str) -> tuple[int, bool]:
        """Return the first of so many pages, and whether they had another use before."""
        page_count = self.size // PAGE_SIZE
        if at == "first":
            first, limit = 0, _RESERVED - 1
        elif at == "last":
            first, limit = page_count - count, page_count
        else:
            if free := self._free.get(count):
                return free.pop(), True
            first, limit = self._cursor + 1, page_count - _RESERVED
            if first + count <= limit:
                self._cursor = first + count
        if first + count > limit or first in self._blocks:
            raise MemoryError(f"no room for {count} pages in the guarded memory at {self.guest_address:#x}")
        return first, False

    def release(self, buffer: Buffer) -> None:
        """Look at the canaries of a buffer that is used no more, and let a later one have its pages."""
        first_page = (buffer.address - self.guest_address) // PAGE_SIZE
        while first_page not in self._blocks:
            first_page -= 1
        block = self._blocks.pop(first_page)
        self._found += self._changes_of(block)
        if _RESERVED <= first_page < self.size // PAGE_SIZE - _RESERVED:
            self._free.setdefault(block.page_count, []).append(first_page)
        else:
            self._spent.append((first_page, first_page + block.page_count))

    # What was touched

    def touched(self) -> list[Touched]:
        """Return what was touched of canaries and guard pages, each once, with what `release` found."""
        found = list(self._found)
        for block in self._blocks.values():
            found += self._changes_of(block)
        return found + list(self._touched_guards())

    def _changes_of(self, block: _Block) -> list[Touched]:
        begin = block.first_page * PAGE_SIZE
        start = block.buffer.address - self.guest_address - begin
        found = []
        for offset, canary in _canaries(start, block.buffer.size, block.page_count):
            side = "before" if offset < start else "behind"
            now = self.backing.data.data[begin + offset : begin + offset + len(canary)].tobytes()
            address = self.guest_address + begin + offset
            name = f"canary {side} {block.buffer.what}"
            if (change := difference(address, canary, now, Touch.CANARY, name)) is not None:
                found.append(change)
        return found

    def _touched_guards(self) -> Iterator[Touched]:
        ours = [(block.first_page, block.first_page + block.page_count) for block in self._blocks.values()]
        ours += self._spent
        ours += [(first, first + count) for count, pages in self._free.items() for first in pages]
        for run in stray_runs(self.fd, self.file_offset, self.size // PAGE_SIZE, sorted(ours)):
            verb = "read" if run.stored_at is None else "written"
            count = f" ({run.page_count} pages)" if run.page_count > 1 else ""
            name = f"guard page{count} {self._neighbour(run.first_page, run.page_count)}, {verb}"
            address = self.guest_address + run.first_page * PAGE_SIZE + (run.stored_at or 0)
            yield Touched(name, run.content, address, Touch.GUARD)

    def _neighbour(self, first: int, count: int) -> str:
        blocks = self._blocks.values()
        behind = [block.buffer.what for block in blocks if block.first_page + block.page_count == first]
        before = [block.buffer.what for block in blocks if block.first_page == first + count]
        parts = [f"behind {behind[0]}" if behind else "", f"before {before[0]}" if before else ""]
        return ", ".join(part for part in parts if part) or "far from every buffer"

    def _store(self, offset: int, data: bytes) -> None:
        self.backing.data.data[offset : offset + len(data)] = data


def _span(block: _Block, start: int, size: int) -> slice:
    begin = block.first_page * PAGE_SIZE + start
    return slice(begin, begin + size)


def _canaries(start: int, size: int, page_count: int) -> list[tuple[int, bytes]]:
    """Return offset and content of the bytes of a block before and behind its buffer."""
    block_size, end = page_count * PAGE_SIZE, start + size
    parts = []
    if start:
        parts.append((0, (_PATTERN * -(-start // PAGE_SIZE))[:start]))
    if end < block_size:
        skipped = end // PAGE_SIZE * PAGE_SIZE
        parts.append((end, (_PATTERN * ((block_size - skipped) // PAGE_SIZE))[end - skipped :]))
    return parts
