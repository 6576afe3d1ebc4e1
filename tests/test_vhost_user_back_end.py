"""A front end over a real socket, a device behind it: what the session promises while all goes well."""

import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from guest_agent.virtqueue.packed import PackedDriverQueue
from guest_agent.virtqueue.split import SplitDriverQueue
from spec import vhost_user as spec
from spec.balloon import QueueNumbering
from spec.device import Feature, feature_mask
from spec.vhost_user import BackEndRequest
from tests.device_setup import recorded_events
from tests.vhost_user_setup import (
    MIB,
    PATIENCE,
    RING_FEATURES,
    FrontEnd,
    R,
    assert_open_fds,
    connect,
    frames,
    open_fds,
    served,
    state,
    u64,
    wait_until,
)
from vdev.device import Device
from vdev.devices.balloon import BalloonDevice
from vdev.errors import BackEndViolation
from vdev.events import FrontEndConnected, FrontEndGone, KickHandled, ViolationFound
from vdev.memory import GuestMemory, PrivateBacking, Region
from vdev.vhost_user.dirty_bitmap import DirtyBitmap
from vdev.vhost_user.framing import MessageDecoder
from vdev.vhost_user.server import BackEnd, listen


def make_balloon():
    return BalloonDevice(GuestMemory.absent(), numbering=QueueNumbering.COMPACT)


async def inflate(front_end, *pages):
    """Put pages into the balloon and wait for the used buffer."""
    front_end.post(0, frames(*pages))
    await front_end.wait_call(0)
    return front_end.queues[0].collect()


async def start_balloon(front_end):
    await front_end.negotiate()
    await front_end.share_memory()
    for number in (0, 1):
        front_end.queue(number)
        await front_end.start_ring(number)
    await front_end.settle()


async def test_a_balloon_is_inflated_over_a_real_unix_socket(tmp_path):
    before = open_fds()
    device = make_balloon()
    back_end = BackEnd(device)
    with listen(tmp_path / "balloon.sock") as listener:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(back_end.serve, listener)
            front_end = FrontEnd(connect(tmp_path / "balloon.sock"))
            await start_balloon(front_end)
            used = await inflate(front_end, 300, 301, 302)
            assert used.written_size == 0
            assert device.inflation.inflated_count == 3
            [inflate_queue, *_] = back_end.statistics.queues
            assert (inflate_queue.kick_count, inflate_queue.call_count, inflate_queue.chain_count) == (1, 1, 1)
            front_end.close()
            await wait_until(lambda: not back_end.statistics.is_connected)
            nursery.cancel_scope.cancel()
    del front_end
    assert_open_fds(before)


async def restart(front_end, *numbers, base=None):
    """Stop rings and start them where they stood, or from `base`, as a front end does for a guest that is paused."""
    bases = {number: await front_end.stop_ring(number) for number in numbers}
    await front_end.send(R.SET_FEATURES, u64(front_end.features | 1 << spec.PROTOCOL_FEATURES))
    for number in numbers:
        await front_end.start_ring(number, base=bases[number] if base is None else base)
    await front_end.settle()
    return bases


@pytest.mark.parametrize("told_status", [False, True])
async def test_a_guest_that_is_paused_finds_its_device_as_it_left_it(told_status):
    device = make_balloon()
    async with served(device) as front_end:
        await start_balloon(front_end)
        await inflate(front_end, 300, 301)
        if told_status:  # as QEMU does when its user stops the guest
            await front_end.send(R.SET_STATUS, u64(0))
        assert await restart(front_end, 0, 1) == {0: 1, 1: 0}
        assert device.inflation.inflated_count == 2
        await inflate(front_end, 302)
        assert device.inflation.inflated_count == 3


async def test_a_driver_that_begins_anew_finds_a_device_that_was_reset():
    device = make_balloon()
    async with served(device) as front_end:
        await start_balloon(front_end)
        await inflate(front_end, 300, 301)
        for number in (0, 1):
            await front_end.stop_ring(number)
            front_end.queue(number)
        for number in (0, 1):
            await front_end.start_ring(number)
        await front_end.settle()
        assert device.inflation.inflated_count == 0
        await inflate(front_end, 300)
        assert device.inflation.inflated_count == 1


async def test_a_front_end_comes_back_again_and_again():
    before = open_fds()
    device = make_balloon()
    back_end = BackEnd(device)
    for turn in range(1, 4):
        async with served(device, back_end=back_end) as front_end:
            await start_balloon(front_end)
            await inflate(front_end, 300, 301)
            assert device.inflation.inflated_count == 2
        assert device.status == 0
        assert back_end.statistics.front_end_count == turn
    del front_end
    assert_open_fds(before)


async def test_a_packed_ring_is_served_and_goes_on_from_its_base():
    device = make_balloon()
    async with served(device) as front_end:
        await front_end.negotiate(RING_FEATURES | feature_mask(Feature.RING_PACKED, Feature.EVENT_IDX))
        await front_end.share_memory()
        for number in (0, 1):
            front_end.queue(number, size=5, make=PackedDriverQueue)
            await front_end.start_ring(number, base=0x8000_8000)
        await front_end.settle()
        for page in range(300, 307):
            await inflate(front_end, page)
        bases = await restart(front_end, 0, 1)
        assert bases == {0: 0x0002_0002, 1: 0x8000_8000}
        await inflate(front_end, 310)
        assert device.inflation.inflated_count == 8


async def test_a_ring_without_a_kick_descriptor_is_looked_at_again_and_again():
    device = make_balloon()
    async with served(device) as front_end:
        await front_end.negotiate()
        await front_end.share_memory()
        front_end.queue(0)
        await front_end.start_ring(0, enable=False)
        await front_end.send(R.SET_VRING_KICK, u64(spec.NO_FD))
        await front_end.send(R.SET_VRING_ENABLE, state(0, 1))
        await front_end.settle()
        for turn in range(3):
            front_end.memory.write(0x80000, frames(300 + turn))
            front_end.queues[0].add([(0x80000, 4)], [], 1)
            front_end.queues[0].publish()
            await front_end.wait_call(0)
        assert device.inflation.inflated_count == 3


async def test_a_kick_that_came_before_the_ring_was_enabled_is_not_lost():
    device = make_balloon()
    async with served(device) as front_end:
        await front_end.negotiate()
        await front_end.share_memory()
        front_end.queue(0)
        await front_end.start_ring(0, enable=False)
        front_end.post(0, frames(300))
        await front_end.settle()
        assert device.inflation.inflated_count == 0
        await front_end.send(R.SET_VRING_ENABLE, state(0, 1))
        await front_end.wait_call(0)
        assert device.inflation.inflated_count == 1


async def test_ram_that_is_told_anew_while_rings_are_served_is_the_ram_that_is_used():
    device = make_balloon()
    async with served(device) as front_end:
        await start_balloon(front_end)
        await inflate(front_end, 300)
        await front_end.share_memory()
        await front_end.settle()
        await inflate(front_end, 301)
        assert device.inflation.inflated_count == 2


# Announcements


class Channel:
    """The front end's end of the back end's channel."""

    def __init__(self):
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)

    def take(self):
        """Return the requests that came."""
        try:
            data = self.ours.recv(4096)
        except BlockingIOError:
            return []
        return [message.request for message in MessageDecoder(BackEndViolation).feed(data)]

    async def give(self, front_end):
        await front_end.send(R.SET_BACKEND_REQ_FD, fds=[self.theirs.fileno()])
        self.theirs.close()

    def close(self):
        self.ours.close()


async def turns(count=20):
    for _ in range(count):
        await trio.lowlevel.checkpoint()


async def test_a_change_is_announced_while_a_ring_is_served_and_at_no_other_time():
    device = make_balloon()
    channel = Channel()
    async with served(device) as front_end:
        await front_end.negotiate()
        await channel.give(front_end)
        config = spec.CONFIG.build({"offset": 0, "size": 16, "flags": 0, "payload": bytes(16)})
        await front_end.ask(R.GET_CONFIG, config)
        await front_end.share_memory()
        front_end.queue(0)
        await front_end.start_ring(0, enable=False)
        await front_end.settle()
        device.set_target(10)
        await turns()
        assert channel.take() == []
        # What changed before is announced when the device begins to run.
        await front_end.send(R.SET_VRING_ENABLE, state(0, 1))
        await front_end.settle()
        await turns()
        assert channel.take() == [BackEndRequest.CONFIG_CHANGE_MSG]
        device.set_target(20)
        await turns()
        assert channel.take() == [BackEndRequest.CONFIG_CHANGE_MSG]
        await front_end.stop_ring(0)
        device.set_target(30)
        await turns()
        assert channel.take() == []
        # The front end reads the change by itself: there is nothing left to tell.
        await front_end.ask(R.GET_CONFIG, config)
        await front_end.start_ring(0)
        await front_end.settle()
        await turns()
        assert channel.take() == []
    channel.close()


async def test_a_front_end_that_reads_no_announcement_gets_the_next_ones_later():
    device = make_balloon()
    channel = Channel()
    channel.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    async with served(device) as front_end:
        await front_end.negotiate()
        await channel.give(front_end)
        await front_end.share_memory()
        front_end.queue(0)
        await front_end.start_ring(0)
        await front_end.settle()
        for target in range(2000):
            device.set_target(target)
            await turns(2)
        seen = channel.take()
        assert 0 < len(seen) < 2000
        await front_end.settle()  # nothing hangs
        await turns()
        assert channel.take()
    channel.close()


async def test_a_front_end_that_closed_its_channel_is_told_nothing_and_served():
    device = make_balloon()
    channel = Channel()
    async with served(device) as front_end:
        await front_end.negotiate()
        await channel.give(front_end)
        channel.close()
        await front_end.share_memory()
        front_end.queue(0)
        await front_end.start_ring(0)
        await front_end.settle()
        device.set_target(5)
        await turns()
        await inflate(front_end, 300)
        assert front_end.back_end.statistics.front_end_violation_count == 0


# A state that moves


async def save(front_end):
    """Return the state that the back end gives."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    body = spec.DEVICE_STATE_TRANSFER.build({"direction": 0, "phase": 0})
    assert await front_end.ask_u64(R.SET_DEVICE_STATE_FD, body, [writer]) == spec.NO_FD
    os.close(writer)
    state = b""
    with trio.fail_after(PATIENCE):
        while True:
            try:
                piece = os.read(reader, 1 << 16)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(reader)
                continue
            if not piece:
                break
            state += piece
    os.close(reader)
    assert await front_end.ask_u64(R.CHECK_DEVICE_STATE) == 0
    return state


async def load(front_end, state):
    reader, writer = os.pipe()
    body = spec.DEVICE_STATE_TRANSFER.build({"direction": 1, "phase": 0})
    assert await front_end.ask_u64(R.SET_DEVICE_STATE_FD, body, [reader]) == spec.NO_FD
    os.close(reader)
    assert os.write(writer, state) == len(state)
    os.close(writer)
    return await front_end.ask_u64(R.CHECK_DEVICE_STATE)


@pytest.mark.parametrize("ram_is_told_first", [False, True])
async def test_a_device_s_state_moves_to_another_back_end(ram_is_told_first):
    before = open_fds()
    source, destination = make_balloon(), make_balloon()
    async with served(source) as front_end:
        await start_balloon(front_end)
        await inflate(front_end, 300, 301, 302)
        source.set_target(77)
        bases = {number: await front_end.stop_ring(number) for number in (0, 1)}
        saved = await save(front_end)
        ram = front_end.memory.read(0, 16 * MIB)
        queues = front_end.queues
    async with served(destination) as front_end:
        front_end.memory.write(0, ram)
        if ram_is_told_first:
            await front_end.negotiate()
            await front_end.share_memory()
            assert await load(front_end, saved) == 0
        else:  # as QEMU does, which tells the rest when the guest goes on
            await front_end.send(R.SET_PROTOCOL_FEATURES, u64(await front_end.ask_u64(R.GET_PROTOCOL_FEATURES)))
            assert await load(front_end, saved) == 0
            front_end.features = RING_FEATURES
            await front_end.send(R.SET_FEATURES, u64(RING_FEATURES | 1 << spec.PROTOCOL_FEATURES))
            await front_end.share_memory()
        for number, queue in queues.items():
            driver = SplitDriverQueue.attach(front_end.memory, number, 0x10000 * (number + 1))
            assert driver.addresses == queue.addresses
            front_end.queues[number] = driver
            await front_end.start_ring(number, base=bases[number])
        await front_end.settle()
        assert destination.inflation.inflated_count == 3
        assert int(destination.config["num_pages"]) == 77
        await inflate(front_end, 303)
        assert sorted(destination.inflation.inflated.nonzero()[0]) == [300, 301, 302, 303]
    del front_end, driver, queue, queues
    assert_open_fds(before)


async def test_a_state_with_other_features_than_are_agreed_is_refused():
    async with served(make_balloon()) as front_end:
        await front_end.negotiate(RING_FEATURES | feature_mask(Feature.EVENT_IDX))
        await front_end.share_memory()
        front_end.queue(0)
        await front_end.start_ring(0)
        await front_end.stop_ring(0)
        saved = await save(front_end)
    async with served(make_balloon()) as front_end:
        await front_end.negotiate()
        assert await load(front_end, saved) & 0xFF
        assert "are agreed" in front_end.back_end.statistics.last_violation


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


async def test_front_ends_kicks_and_violations_are_in_the_event_stream():
    emitter, seen = recorded_events()
    back_end = BackEnd(make_balloon(), events=emitter)
    async with served(back_end.device, back_end=back_end) as front_end:
        await start_balloon(front_end)
        await inflate(front_end, 300)
        assert await front_end.ask_u64(R.SET_STATUS, u64(0x100)) == 1
    assert seen == [
        FrontEndConnected("balloon", 1),
        KickHandled(0, 1, 1),
        ViolationFound("balloon", "front end", "Front-end message types", "a status of 0x100"),
        FrontEndGone("balloon", 1),
    ]


async def test_a_state_without_a_driver_moves_and_the_driver_comes_at_the_destination():
    async with served(make_balloon()) as front_end:
        await front_end.send(R.SET_PROTOCOL_FEATURES, u64(await front_end.ask_u64(R.GET_PROTOCOL_FEATURES)))
        front_end.back_end.device.set_target(5)
        saved = await save(front_end)
    for features_first in (True, False):
        async with served(make_balloon()) as front_end:
            if features_first:
                await front_end.negotiate()
                assert await load(front_end, saved) == 0
            else:
                await front_end.send(R.SET_PROTOCOL_FEATURES, u64(await front_end.ask_u64(R.GET_PROTOCOL_FEATURES)))
                assert await load(front_end, saved) == 0
                await front_end.negotiate()
            await front_end.share_memory()
            front_end.queue(0)
            await front_end.start_ring(0)
            await front_end.settle()
            await inflate(front_end, 300)
            assert int(front_end.back_end.device.config["num_pages"]) == 5
