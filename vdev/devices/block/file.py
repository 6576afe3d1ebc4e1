"""What holds the sectors: a regular file or a block device of the host."""

import errno
import os
import stat
from collections.abc import Callable, Sequence

from spec.block import SECTOR_SIZE
from vdev.devices.block.allocation import punch_hole, zero_range
from vdev.errors import UserError

__all__ = ["BlockFile"]

_ZEROS = memoryview(bytes(1 << 18))


class BlockFile:
    """An open file of `size` bytes, whole sectors. Its methods raise OSError, also where the file ends too early."""

    def __init__(self, fd: int, size: int, *, read_only: bool = False) -> None:
        self.fd = fd
        self.size = size
        self.read_only = read_only

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, read_only: bool = False) -> "BlockFile":
        """Open a file for as long as a device serves it.

        Raises UserError, one line, if it is not there, not permitted, neither file nor block device, or not made of
        whole sectors.
        """
        try:
            # Not to wait for the other end of a FIFO; files and disks do not know the flag.
            fd = os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise UserError(f"{os.fspath(path)}: {error.strerror}{_advice(error, read_only)}") from error
        try:
            mode = os.fstat(fd).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
                raise UserError(f"{os.fspath(path)} is neither a file nor a block device; name one that holds a disk")
            size = os.lseek(fd, 0, os.SEEK_END)
            if not size:
                raise UserError(f"{os.fspath(path)} is empty; give it a size first: truncate -s 64M {os.fspath(path)}")
            if size % SECTOR_SIZE:
                raise UserError(
                    f"{os.fspath(path)} has {size} bytes, not whole sectors of {SECTOR_SIZE}; "
                    f"make it larger first: truncate -s %{SECTOR_SIZE} {os.fspath(path)}"
                )
        except BaseException:
            os.close(fd)
            raise
        return cls(fd, size, read_only=read_only)

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def read(self, views: Sequence[memoryview], size: int, offset: int) -> None:
        """Fill `views`, `size` bytes together, with the bytes from `offset` on."""
        moved = os.preadv(self.fd, views, offset)
        if moved != size:
            _move_rest(os.preadv, self.fd, views, offset, moved)

    def write(self, views: Sequence[memoryview], size: int, offset: int) -> None:
        """Store what is in `views`, `size` bytes together, from `offset` on."""
        moved = os.pwritev(self.fd, views, offset)
        if moved != size:
            _move_rest(os.pwritev, self.fd, views, offset, moved)

    def flush(self) -> None:
        """Return once all that was written is on stable storage."""
        os.fdatasync(self.fd)

    def discard(self, offset: int, size: int) -> None:
        """Give a range's storage back where the file can do that. What it reads as then is not said."""
        punch_hole(self.fd, offset, size)

    def write_zeroes(self, offset: int, size: int, *, unmap: bool) -> None:
        """Make a range read as zeros; `unmap` allows to give its storage back."""
        if (unmap and punch_hole(self.fd, offset, size)) or zero_range(self.fd, offset, size):
            return
        for at in range(offset, offset + size, len(_ZEROS)):
            zeros = _ZEROS[: offset + size - at]
            self.write([zeros], len(zeros), at)


def _move_rest(
    call: Callable[[int, list[memoryview], int], int], fd: int, views: Sequence[memoryview], offset: int, moved: int
) -> None:
    """Repeat `call` until all of `views` has gone: a signal or a full disk may have cut the first one short."""
    rest = list(views)
    while True:
        if not moved:
            raise OSError(errno.EIO, f"the file ends at byte {offset}")
        offset += moved
        while rest and moved >= len(rest[0]):
            moved -= len(rest.pop(0))
        if not rest:
            return
        rest[0] = rest[0][moved:]
        moved = call(fd, rest, offset)


def _advice(error: OSError, read_only: bool) -> str:
    match error.errno:
        case errno.ENOENT:
            return "; make the disk first, with truncate -s 64M or qemu-img create"
        case errno.EACCES | errno.EPERM | errno.EROFS if not read_only:
            return " to write; ask for a read-only disk, or change its permissions"
        case errno.EISDIR:
            return "; name a file or a block device"
    return ""
