"""What a region of guest RAM is made of: private anonymous memory, or a memfd that several processes map."""

import mmap
import os
import weakref
from collections.abc import Hashable
from ctypes import CDLL, c_char, c_int, c_long, c_size_t, c_void_p, get_errno
from functools import cache
from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["Backing", "FileBacking", "MemfdBacking", "PrivateBacking"]

_BLOCK_SIZE = 512
"""Bytes of what st_blocks counts."""
_FALLOC_FL_KEEP_SIZE = 1
_FALLOC_FL_PUNCH_HOLE = 2
_MADV_POPULATE_WRITE = 23
_MAP_FAILED = c_void_p(-1).value


class Backing(Protocol):
    """Bytes that read as zero until written, mapped into this process at one fixed place."""

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    @property
    def data(self) -> npt.NDArray[np.uint8]:
        """The live bytes."""
        ...

    @property
    def fd(self) -> int | None:
        """The file descriptor another process can map, or None."""
        ...

    def give_back(self, offset: int, size: int) -> None:
        """Return whole pages to the operating system; they read as zero from now on."""
        ...

    def populate(self, offset: int, size: int) -> None:
        """Fault pages in for writing ahead of use, contents kept; does nothing where the kernel cannot."""
        ...

    def resident_size(self) -> int:
        """Bytes of memory the operating system has lent at this moment."""
        ...

    def lent(self) -> tuple[Hashable, int]:
        """Return whose memory it is, and the bytes that all of that has been lent: cheap, for comparing two moments."""
        ...


@cache
def _libc() -> CDLL:
    libc = CDLL(None, use_errno=True)
    libc.fallocate.argtypes = [c_int, c_int, c_long, c_long]
    libc.madvise.argtypes = [c_void_p, c_size_t, c_int]
    libc.mincore.argtypes = [c_void_p, c_size_t, c_void_p]
    libc.mmap.argtypes = [c_void_p, c_size_t, c_int, c_int, c_int, c_long]
    libc.mmap.restype = c_void_p
    libc.munmap.argtypes = [c_void_p, c_size_t]
    return libc


class _Mapped:
    def __init__(self, data: npt.NDArray[np.uint8], size: int) -> None:
        self._data = data
        self._size = size

    @property
    def size(self) -> int:
        """Bytes."""
        return self._size

    @property
    def data(self) -> npt.NDArray[np.uint8]:
        """The live bytes."""
        return self._data

    @property
    def host_address(self) -> int:
        """Where this process has the bytes mapped."""
        return int(self._data.ctypes.data)

    def populate(self, offset: int, size: int) -> None:
        """Fault pages in for writing ahead of use; the GIL is free meanwhile."""
        # An error means an older kernel (before 5.14) or no memory: the pages are then faulted in by their first use.
        _libc().madvise(self.host_address + offset, size, _MADV_POPULATE_WRITE)

    def _resident_by_mincore(self) -> int:
        pages = np.zeros(-(-self._size // mmap.PAGESIZE), np.uint8)
        if _libc().mincore(self.host_address, self._size, pages.ctypes.data):
            raise OSError(get_errno(), "mincore")
        return int((pages & 1).sum()) * mmap.PAGESIZE


class _FileMapped(_Mapped):
    def __init__(self, fd: int, size: int, offset: int, data: npt.NDArray[np.uint8]) -> None:
        self._fd = fd
        self._offset = offset
        super().__init__(data, size)

    @property
    def fd(self) -> int:
        """The file."""
        return self._fd

    def give_back(self, offset: int, size: int) -> None:
        """Punch a hole: MADV_DONTNEED would free nothing, the file holds the pages."""
        mode = _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE
        if _libc().fallocate(self._fd, mode, self._offset + offset, size):
            raise OSError(get_errno(), f"fallocate punch hole at {self._offset + offset:#x}, {size} bytes")

    def lent(self) -> tuple[Hashable, int]:
        """Return the file, of which other backings may be parts, and bytes that it holds."""
        status = os.fstat(self._fd)
        return (status.st_dev, status.st_ino), status.st_blocks * _BLOCK_SIZE

    def close(self) -> None:
        """Close the file descriptor, if it is this object's; the mapping lives as long as its views."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class PrivateBacking(_Mapped):
    """Anonymous memory of this process alone."""

    def __init__(self, size: int) -> None:
        mapping = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        # A huge page would come and go by the kernel's own clock, and with it what `resident_size` tells.
        mapping.madvise(mmap.MADV_NOHUGEPAGE)
        self._mapping = mapping
        super().__init__(np.frombuffer(mapping, np.uint8), size)

    @property
    def fd(self) -> None:
        """Private memory cannot be mapped elsewhere."""
        return None

    def give_back(self, offset: int, size: int) -> None:
        """Drop the pages; they read as zero from now on."""
        self._mapping.madvise(mmap.MADV_DONTNEED, offset, size)

    def resident_size(self) -> int:
        """Bytes that are in memory now, by mincore(2)."""
        return self._resident_by_mincore()

    def lent(self) -> tuple[Hashable, int]:
        """Return what nobody else has a part of, and its resident size."""
        return id(self), self.resident_size()


class MemfdBacking(_FileMapped):
    """A memfd, mapped shared. Pass `fd` to map one that another process made; it stays the caller's to close."""

    def __init__(self, size: int, fd: int | None = None) -> None:
        self._owned = fd is None
        if fd is None:
            fd = os.memfd_create("vdev-guest-ram", os.MFD_CLOEXEC)
            os.ftruncate(fd, size)
        super().__init__(fd, size, 0, np.frombuffer(mmap.mmap(fd, size), np.uint8))

    def resident_size(self) -> int:
        """Bytes that the file holds now."""
        return os.fstat(self._fd).st_blocks * _BLOCK_SIZE

    def close(self) -> None:
        """Close the file descriptor, if this object opened it; the mapping lives as long as its views."""
        if self._owned:
            super().close()


class FileBacking(_FileMapped):
    """Part of a file that somebody else made, mapped shared: `size` bytes from the page-aligned `offset` on.

    Both are whole pages; the file may end inside the last one. `fd` belongs to this object from now on, unless the
    constructor raises OSError. Whoever made the file can make it shorter: touching what is gone is fatal (SIGBUS).
    """

    def __init__(self, fd: int, size: int, offset: int) -> None:
        super().__init__(fd, size, offset, _map_pages(fd, size, offset))

    def resident_size(self) -> int:
        """Bytes of the part that the file holds in memory now, by mincore(2)."""
        return self._resident_by_mincore()


def _map_pages(fd: int, size: int, offset: int) -> npt.NDArray[np.uint8]:
    """Map as mmap(2) does: Python's own mmap refuses the rest of a page behind a file's end. Raises OSError."""
    address = _libc().mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, offset)
    if address == _MAP_FAILED:
        raise OSError(get_errno(), f"mmap of {size} bytes at {offset:#x}: {os.strerror(get_errno())}")
    pages = (c_char * size).from_address(address)
    # The array below keeps `pages` alive, and so do all views of it.
    weakref.finalize(pages, _libc().munmap, address, size)
    return np.frombuffer(memoryview(pages).cast("B"), np.uint8)
