"""The dirty log that the kernel keeps: write protection lifted at the first store, read with PAGEMAP_SCAN.

The guest process registers its own mapping (`vdev.memory.write_protect`); this side opens /proc/PID/pagemap. Stores
that the host makes go through another mapping, which the kernel does not watch, so they come from host marks.
"""

import fcntl
import mmap
import os
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from host_migrator.dirty_log.cooperative import CooperativeDirtyLog
from host_migrator.errors import DirtyLogLost
from vdev.memory import PAGE_SIZE, GuestMemory, PageMarks, PageRanges
from vdev.memory.write_protect import register_for_kernel_log

__all__ = ["KernelDirtyLog", "kernel_log_missing"]

_PAGEMAP_SCAN = 0xC0606610
_ARGUMENT_SIZE = 96
_WP_MATCHING, _CHECK_WPASYNC = 1, 2
_PAGE_IS_WRITTEN = 2
_MAX_RANGES = 4096


class KernelDirtyLog:
    """What process `pid` wrote, as the kernel saw it, and what the host wrote, as `host_marks` say.

    `addresses` says where that process has each of `memory.regions` mapped, in their order; it has registered those
    mappings. Raises DirtyLogLost where the process or its page map cannot be read.
    """

    name = "kernel"
    deferred = False

    def __init__(self, pid: int, addresses: Sequence[int], memory: GuestMemory, host_marks: PageMarks | None) -> None:
        if len(addresses) != len(memory.regions):
            raise ValueError(f"{len(addresses)} addresses for {len(memory.regions)} regions")
        self._pid = pid
        self._spans = [
            (address, region.size, memory.region_first_page(region))
            for address, region in zip(addresses, memory.regions, strict=True)
        ]
        self._host = CooperativeDirtyLog(host_marks) if host_marks is not None else None
        self._fd = -1

    def start(self) -> None:
        """Write-protect everything; from now on each first store to a page is noted."""
        if self._fd < 0:
            try:
                self._fd = os.open(f"/proc/{self._pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise DirtyLogLost(f"the page map of guest process {self._pid}: {error.strerror}") from error
        for _ in self.take():
            pass

    def take(self) -> Iterator[PageRanges]:
        """Yield the pages written, and protect them again in the same step."""
        for address, size, first_page in self._spans:
            try:
                for found in _scan(self._fd, address, address + size):
                    first, end = ((found[:, column] - address) // PAGE_SIZE + first_page for column in (0, 1))
                    yield PageRanges(first, end)
            except OSError as error:
                raise DirtyLogLost(f"scanning the pages of guest process {self._pid}: {error.strerror}") from error
        if self._host is not None:
            yield from self._host.take()

    def clear(self, ranges: PageRanges) -> None:
        """Cleared they were by `take`."""

    def stop(self) -> None:
        """Close the page map. Protection left in place costs the guest one quick fault a page."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _scan(fd: int, start: int, end: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield (n, 3) arrays of written ranges (start, end, categories) and write-protect them again."""
    found = np.empty((_MAX_RANGES, 3), np.int64)
    while start < end:
        argument = np.array(
            [
                *(_ARGUMENT_SIZE, _WP_MATCHING | _CHECK_WPASYNC, start, end, 0),
                *(found.ctypes.data, _MAX_RANGES, 0, 0, _PAGE_IS_WRITTEN, 0, _PAGE_IS_WRITTEN),
            ],
            np.uint64,
        )
        count = int(fcntl.ioctl(fd, _PAGEMAP_SCAN, argument.data, True))
        if count:
            yield found[:count].copy()
        start = int(argument[4])


def kernel_log_missing() -> str | None:
    """Say why this system has no kernel dirty log for shared memory, or None when it has: tried on a scratch memfd."""
    fd = os.memfd_create("vdev-probe", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, 2 * PAGE_SIZE)
        with mmap.mmap(fd, 2 * PAGE_SIZE) as scratch:
            address = int(np.frombuffer(scratch, np.uint8).ctypes.data)
            return _probe(scratch, address)
    finally:
        os.close(fd)


def _probe(scratch: mmap.mmap, address: int) -> str | None:
    try:
        watch = register_for_kernel_log(address, 2 * PAGE_SIZE)
    except OSError as error:
        return f"userfaultfd with asynchronous write protection: {error.strerror or error}"
    try:
        pagemap = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        try:
            list(_scan(pagemap, address, address + 2 * PAGE_SIZE))
            scratch[PAGE_SIZE] = 1
            written = [found[:, :2].tolist() for found in _scan(pagemap, address, address + 2 * PAGE_SIZE)]
        finally:
            os.close(pagemap)
    except OSError as error:
        return f"PAGEMAP_SCAN: {error.strerror}"
    finally:
        os.close(watch)
    expected = [[[address + PAGE_SIZE, address + 2 * PAGE_SIZE]]]
    return None if written == expected else "PAGEMAP_SCAN does not tell which page was written"
