"""Ranges of a file that read as zeros, without storing the zeros: fallocate(2), which Python does not have."""

import errno
import os
from ctypes import CDLL, c_int, c_long, get_errno
from functools import cache

__all__ = ["punch_hole", "zero_range"]

_KEEP_SIZE = 0x01
_PUNCH_HOLE = 0x02
_ZERO_RANGE = 0x10

_UNABLE = {errno.EOPNOTSUPP, errno.ENOSYS, errno.ENODEV, errno.EINVAL}
"""What file systems and drivers answer that cannot do it, EINVAL for a range they find badly aligned."""


@cache
def _libc() -> CDLL:
    libc = CDLL(None, use_errno=True)
    libc.fallocate.argtypes = [c_int, c_int, c_long, c_long]
    return libc


def punch_hole(fd: int, offset: int, size: int) -> bool:
    """Give the storage of a range back, so that it reads as zeros; false where the file cannot do so.

    Raises OSError for anything else that fails.
    """
    return _allocate(fd, _PUNCH_HOLE | _KEEP_SIZE, offset, size)


def zero_range(fd: int, offset: int, size: int) -> bool:
    """Make a range read as zeros and keep its storage; false where the file cannot do so.

    Raises OSError for anything else that fails.
    """
    return _allocate(fd, _ZERO_RANGE | _KEEP_SIZE, offset, size)


def _allocate(fd: int, mode: int, offset: int, size: int) -> bool:
    if not _libc().fallocate(fd, mode, offset, size):
        return True
    number = get_errno()
    if number in _UNABLE:
        return False
    raise OSError(number, os.strerror(number))
