"""What a back end writes to RAM is logged while its front end wants that (LOG_SHMFD)."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vhost_user_setup import (
    RING_FEATURES,
    R,
    assert_open_fds,
    open_fds,
    served,
    u64,
)

from spec import vhost_user as spec
from vdev.device import Device
from vdev.memory import GuestMemory, PrivateBacking, Region
from vdev.vhost_user.dirty_bitmap import DirtyBitmap

pytestmark = pytest.mark.usefixtures("no_garbage_of_others")

# The dirty log


def logged(log):
    """Return the page frames whose bits are set, and clear them."""
    bits = np.unpackbits(np.frombuffer(os.pread(log, 4096, 0), np.uint8), bitorder="little")
    os.pwrite(log, bytes(4096), 0)
    return set(bits.nonzero()[0].tolist())


class Writer(Device):
    """Fills what it may write."""

    device_id = 63
    name = "writer"
    queue_sizes = (64,)

    def handle_queue(self, number):
        for chain in self.chains(number):
            self.queues[number].push(chain.head, chain.write(self.memory, b"x" * chain.writable_size))


LOGGED = 1 << spec.PROTOCOL_FEATURES | 1 << spec.LOG_ALL


async def write(front_end, address, size):
    front_end.queues[0].add([], [(address, size)], 1)
    front_end.queues[0].publish()
    front_end.kick(0)
    await front_end.wait_call(0)
    assert front_end.queues[0].collect() is not None


@pytest.mark.parametrize("log_first", [True, False])
async def test_what_the_device_writes_is_logged_while_the_front_end_wants_it(log_first):
    before = open_fds()
    log = os.memfd_create("log")
    os.ftruncate(log, 4096)
    async with served(Writer(GuestMemory.absent())) as front_end:
        await front_end.negotiate()
        await front_end.share_memory()
        front_end.queue(0)
        await front_end.start_ring(0)
        await front_end.settle()
        await write(front_end, 0x200000, 8192)
        assert logged(log) == set()

        set_log = (R.SET_LOG_BASE, spec.LOG.build({"size": 512, "offset": 0}), [log])
        switch_on = (R.SET_FEATURES, u64(RING_FEATURES | LOGGED))
        for step in (set_log, switch_on) if log_first else (switch_on, set_log):
            assert await front_end.ask_u64(*step) == 0
        used = front_end.queues[0].addresses.device >> 12
        assert await front_end.ask_u64(R.SET_VRING_ADDR, front_end.ring_address(0, flags=1, log=used << 12)) == 0
        await write(front_end, 0x201FFF, 0x9002)  # a byte, nine pages, a byte
        assert logged(log) == {used, *range(0x201, 0x20C)}
        # The used ring is logged where the front end says, which need not be in RAM.
        assert await front_end.ask_u64(R.SET_VRING_ADDR, front_end.ring_address(0, flags=1, log=0xFFE000)) == 0
        await write(front_end, 0x300000, 1)
        assert logged(log) - {used} == {0xFFE, 0x300}
        assert await front_end.ask_u64(R.SET_FEATURES, u64(RING_FEATURES | 1 << spec.PROTOCOL_FEATURES)) == 0
        await write(front_end, 0x400000, 4096)
        assert logged(log) == set()
    os.close(log)
    del front_end
    assert_open_fds(before)


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), max_size=8), st.lists(st.integers(0, 319)))
def test_the_bitmap_says_what_a_set_of_pages_says(ranges, pages):
    memory = GuestMemory([Region(0x3000, PrivateBacking(100 << 12)), Region(0x200000, PrivateBacking(220 << 12))])
    log = os.memfd_create("log")
    os.ftruncate(log, 4096)
    bitmap = DirtyBitmap(memory, log, 200, 8)
    expected = set()
    for first, end in ranges:
        bitmap.mark(first, end)
        expected |= set(range(first, end))
    bitmap.mark_pages(np.array(pages, np.int64))
    expected |= set(pages)
    found = np.unpackbits(np.frombuffer(os.pread(log, 200, 8), np.uint8), bitorder="little").nonzero()[0]
    assert set(found.tolist()) == {memory.address_of(page) >> 12 for page in expected}
    bitmap.close()


SETTER = """
import mmap, sys
import numpy as np
from vdev.memory.atomic import atomic_or
area = mmap.mmap(int(sys.argv[1]), 4096)
address = np.frombuffer(area, np.uint8).ctypes.data
print("ready", flush=True)
for _ in sys.stdin:
    for bit in range(int(sys.argv[2]), 8, 2):
        for place in range(4096):
            atomic_or(address + place, 1 << bit)
    print("done", flush=True)
"""


@pytest.mark.process
def test_no_bit_is_lost_while_another_process_sets_its_own():
    log = os.memfd_create("log")
    os.ftruncate(log, 4096)
    command = [sys.executable, "-c", SETTER, str(log)]
    pipes = {"pass_fds": [log], "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    workers = [subprocess.Popen([*command, first_bit], **pipes) for first_bit in "01"]
    assert [worker.stdout.readline() for worker in workers] == ["ready\n"] * 2
    for _ in range(20):
        os.pwrite(log, bytes(4096), 0)
        for worker in workers:
            worker.stdin.write("go\n")
        assert [worker.stdout.readline() for worker in workers] == ["done\n"] * 2
        # Each bit is set once, so one that was lost stays lost.
        assert os.pread(log, 4096, 0) == b"\xff" * 4096
    for worker in workers:
        worker.stdin.close()
        assert worker.wait(60) == 0
        worker.stdout.close()
    os.close(log)
