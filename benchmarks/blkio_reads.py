"""Random reads of 4 KiB through libblkio's vhost-user driver, for as long as lines come in.

    python3 blkio_reads.py LIBBLKIO SOCKET DEPTH COUNT

For each line on standard input: does COUNT reads with DEPTH under way, and prints the seconds that they took. Run by
the Python that lies beside the library, for the machine's own may be too old for it; so it stands alone.
"""

import ctypes
import random
import sys
import time

SIZE = 4096


class Region(ctypes.Structure):
    """struct blkio_mem_region."""

    _fields_ = (
        ("address", ctypes.c_void_p),
        ("iova", ctypes.c_uint64),
        ("size", ctypes.c_size_t),
        ("fd_offset", ctypes.c_int64),
        ("fd", ctypes.c_int),
        ("flags", ctypes.c_uint32),
    )


class Completion(ctypes.Structure):
    """struct blkio_completion."""

    _fields_ = (
        ("token", ctypes.c_void_p),
        ("message", ctypes.c_char_p),
        ("result", ctypes.c_int),
        ("reserved", ctypes.c_char * 12),
    )


def main(library: str, socket: str, depth: int, count: int) -> None:
    """Connect, and read whenever a line comes in."""
    blkio = ctypes.CDLL(library)
    blkio.blkio_get_error_msg.restype = ctypes.c_char_p
    blkio.blkio_get_queue.restype = ctypes.c_void_p

    def check(result: int) -> int:
        if result < 0:
            raise SystemExit(f"libblkio: {blkio.blkio_get_error_msg().decode()}")
        return result

    handle = ctypes.c_void_p()
    check(blkio.blkio_create(b"virtio-blk-vhost-user", ctypes.byref(handle)))
    check(blkio.blkio_set_str(handle, b"path", socket.encode()))
    check(blkio.blkio_connect(handle))
    check(blkio.blkio_start(handle))
    region = Region()
    check(blkio.blkio_alloc_mem_region(handle, ctypes.byref(region), ctypes.c_size_t(depth * SIZE)))
    check(blkio.blkio_map_mem_region(handle, ctypes.byref(region)))
    capacity = ctypes.c_uint64()
    check(blkio.blkio_get_uint64(handle, b"capacity", ctypes.byref(capacity)))
    queue = ctypes.c_void_p(blkio.blkio_get_queue(handle, 0))

    blkio.blkioq_read.argtypes = (
        ctypes.c_void_p,
        ctypes.c_uint64,
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_void_p,
        ctypes.c_uint32,
    )
    blkio.blkioq_read.restype = None
    read, do_io = blkio.blkioq_read, blkio.blkioq_do_io
    done = (Completion * depth)()
    choose = random.Random(1)
    starts = [SIZE * choose.randrange(capacity.value // SIZE) for _ in range(count)]
    buffers = [region.address + SIZE * slot for slot in range(depth)]
    for _ in sys.stdin:
        began = time.perf_counter()
        under_way, slots, left = 0, list(range(depth)), iter(starts)
        for start in left:
            slot = slots.pop()
            read(queue, start, buffers[slot], SIZE, slot + 1, 0)
            under_way += 1
            if not slots:
                finished = check(do_io(queue, done, 1, depth, None))
                for completion in done[:finished]:
                    if completion.result:
                        raise SystemExit(f"a read failed with {completion.result}")
                    slots.append(completion.token - 1)
                under_way -= finished
        while under_way:
            under_way -= check(do_io(queue, done, 1, depth, None))
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
