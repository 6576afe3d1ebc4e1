"""The guest's half of the kernel's dirty log: asynchronous write protection of its mapping of guest RAM.

userfaultfd in mode WP_ASYNC lets the kernel itself note and lift the protection at the first write to a page; nobody
waits, nobody handles a fault. Only the process that owns a mapping can register it. Another process then reads and
re-arms the notes with PAGEMAP_SCAN on /proc/PID/pagemap.
"""

import ctypes
import fcntl
import os
import platform
import struct

__all__ = ["register_for_kernel_log"]

_USERFAULTFD_NUMBER = {"x86_64": 323, "aarch64": 282}
_UFFD_USER_MODE_ONLY = 1
_UFFDIO_API = 0xC018AA3F
_UFFDIO_REGISTER = 0xC020AA00
_API_VERSION = 0xAA
_FEATURES = 1 << 15 | 1 << 13 | 1 << 12  # WP_ASYNC, WP_UNPOPULATED, WP_HUGETLBFS_SHMEM
_REGISTER_MODE_WP = 2


def register_for_kernel_log(address: int, size: int) -> int:
    """Have the kernel note writes to `size` bytes mapped at `address` in this process.

    Returns a file descriptor; the notes last as long as it is open. Needs no privilege. Raises OSError where the
    kernel lacks userfaultfd, asynchronous write protection, or refuses either.
    """
    number = _USERFAULTFD_NUMBER.get(platform.machine())
    if number is None:
        raise OSError(f"the number of userfaultfd(2) is not known for {platform.machine()}")
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.syscall(number, os.O_CLOEXEC | os.O_NONBLOCK | _UFFD_USER_MODE_ONLY)
    if fd < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"userfaultfd: {os.strerror(error)}")
    try:
        fcntl.ioctl(fd, _UFFDIO_API, struct.pack("<QQQ", _API_VERSION, _FEATURES, 0))
        fcntl.ioctl(fd, _UFFDIO_REGISTER, struct.pack("<QQQQ", address, size, _REGISTER_MODE_WP, 0))
    except OSError:
        os.close(fd)
        raise
    return fd
