"""Drive a vhost-user block device with libblkio: random requests, held against a copy in memory.

    python3 blkio_driver.py LIBBLKIO SOCKET SEED COUNT DEPTH

Run by the Python that lies beside the library, for the machine's own may be too old for it; so it stands alone. Prints
one JSON object: what the device said of itself, how many requests of each kind went, and the digest of what the disk
must hold now.
"""

import ctypes
import hashlib
import json
import random
import sys

SECTOR = 512
LONGEST = 64  # sectors a request
KINDS = ("read", "write", "write_zeroes", "flush")
WEIGHTS = (45, 45, 5, 5)


class Region(ctypes.Structure):
    _fields_ = (
        ("address", ctypes.c_void_p),
        ("iova", ctypes.c_uint64),
        ("size", ctypes.c_size_t),
        ("fd_offset", ctypes.c_int64),
        ("fd", ctypes.c_int),
        ("flags", ctypes.c_uint32),
    )


class Completion(ctypes.Structure):
    _fields_ = (
        ("token", ctypes.c_void_p),
        ("message", ctypes.c_char_p),
        ("result", ctypes.c_int),
        ("reserved", ctypes.c_char * 12),
    )


class Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class Disk:
    """One device behind ``socket``, with a buffer for each of ``depth`` requests."""

    def __init__(self, library, socket, depth):
        self.blkio = ctypes.CDLL(library)
        self.blkio.blkio_get_error_msg.restype = ctypes.c_char_p
        self.blkio.blkio_get_queue.restype = ctypes.c_void_p
        self.handle = ctypes.c_void_p()
        self._check(self.blkio.blkio_create(b"virtio-blk-vhost-user", ctypes.byref(self.handle)))
        self._check(self.blkio.blkio_set_str(self.handle, b"path", socket.encode()))
        self._check(self.blkio.blkio_connect(self.handle))
        self._check(self.blkio.blkio_start(self.handle))
        self.region = Region()
        size = ctypes.c_size_t(depth * LONGEST * SECTOR)
        self._check(self.blkio.blkio_alloc_mem_region(self.handle, ctypes.byref(self.region), size))
        self._check(self.blkio.blkio_map_mem_region(self.handle, ctypes.byref(self.region)))
        self.queue = ctypes.c_void_p(self.blkio.blkio_get_queue(self.handle, 0))

    def _check(self, result):
        if result < 0:
            raise SystemExit(f"libblkio: {self.blkio.blkio_get_error_msg().decode()}")

    def number(self, name):
        value = ctypes.c_uint64()
        self._check(self.blkio.blkio_get_uint64(self.handle, name.encode(), ctypes.byref(value)))
        return value.value

    def buffer(self, slot):
        return self.region.address + slot * LONGEST * SECTOR

    def queue_request(self, kind, slot, start, size):
        """Queue one request; its completion carries ``slot`` + 1, for a token of 0 is a null pointer."""
        token, flags = ctypes.c_void_p(slot + 1), ctypes.c_uint32(0)
        place, length = ctypes.c_uint64(start), ctypes.c_uint64(size)
        if kind in ("read", "write"):
            request = getattr(self.blkio, f"blkioq_{kind}")
            request(self.queue, place, ctypes.c_void_p(self.buffer(slot)), ctypes.c_size_t(size), token, flags)
        elif kind == "write_zeroes":
            self.blkio.blkioq_write_zeroes(self.queue, place, length, token, flags)
        else:
            self.blkio.blkioq_flush(self.queue, token, flags)

    def complete(self, least, most):
        """Slots of at least ``least`` requests that are done."""
        done = (Completion * most)()
        limit = Timespec(60, 0)
        count = self.blkio.blkioq_do_io(self.queue, done, least, most, ctypes.byref(limit))
        self._check(count)
        for one in done[:count]:
            if one.result:
                raise SystemExit(f"libblkio: request failed with {one.result} {one.message}")
        return [one.token - 1 for one in done[:count]]


def main(library, socket, seed, count, depth):
    choose = random.Random(seed)
    disk = Disk(library, socket, depth)
    capacity = disk.number("capacity")
    copy = bytearray(capacity)
    for start in range(0, capacity, LONGEST * SECTOR):
        size = min(LONGEST * SECTOR, capacity - start)
        disk.queue_request("read", 0, start, size)
        disk.complete(1, 1)
        copy[start : start + size] = ctypes.string_at(disk.buffer(0), size)
    first = hashlib.sha256(copy).hexdigest()

    free = list(range(depth))
    under_way = {}  # slot: (kind, start, size); no two of them overlap, so that their order does not matter
    counts = dict.fromkeys(KINDS, 0)
    byte_count = 0

    def collect(least):
        for slot in disk.complete(least, len(under_way)):
            kind, start, size = under_way.pop(slot)
            if kind == "read" and ctypes.string_at(disk.buffer(slot), size) != copy[start : start + size]:
                raise SystemExit(f"read of {size} bytes at {start} differs")
            free.append(slot)

    for _ in range(count):
        kind = choose.choices(KINDS, WEIGHTS)[0]
        sector_count = choose.randint(1, LONGEST)
        start = choose.randrange(capacity // SECTOR - sector_count + 1) * SECTOR
        size = sector_count * SECTOR
        while not free or any(s < start + size and start < s + n for _, s, n in under_way.values()):
            collect(1)
        slot = free.pop()
        if kind == "write":
            content = choose.randbytes(size)
            ctypes.memmove(disk.buffer(slot), content, size)
            copy[start : start + size] = content
        elif kind == "write_zeroes":
            copy[start : start + size] = bytes(size)
        under_way[slot] = (kind, start, size)
        counts[kind] += 1
        byte_count += size
        disk.queue_request(kind, slot, start, size)
    while under_way:
        collect(1)
    disk.queue_request("flush", 0, 0, 0)
    disk.complete(1, 1)
    json.dump(
        {
            "capacity": capacity,
            "first": first,
            "last": hashlib.sha256(copy).hexdigest(),
            "counts": counts,
            "bytes": byte_count,
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6]))
