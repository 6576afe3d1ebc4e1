"""A front end that is the test itself: it sends single messages, right or wrong, and has RAM with a driver's rings."""

import array
import gc
import os
import socket
from contextlib import asynccontextmanager

import trio

from guest_agent.virtqueue.split import SplitDriverQueue
from spec import vhost_user as spec
from spec.balloon import QueueNumbering
from spec.device import Feature, feature_mask
from spec.vhost_user import FrontEndRequest
from vdev.devices.balloon import BalloonDevice
from vdev.errors import BackEndViolation
from vdev.memory import GuestMemory, MemfdBacking, Region
from vdev.vhost_user.framing import MessageDecoder, encode
from vdev.vhost_user.server import BackEnd

MIB = 1 << 20
USER_BASE = 0x7F00_0000_0000
"""What the front end adds to a guest-physical address to get its own."""
RING_FEATURES = feature_mask(Feature.VERSION_1)
PATIENCE = 10
R = FrontEndRequest


def open_fds():
    """Return how many file descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


def assert_open_fds(before):
    """See that as many are open as before; what a test's own exceptions still hold does not count."""
    if open_fds() != before:
        gc.collect()
        assert open_fds() == before


class RawFrontEnd:
    """Sends what it is told to, and waits for answers at most PATIENCE seconds."""

    def __init__(self, sock):
        self.socket = trio.socket.from_stdlib_socket(sock)
        self.decoder = MessageDecoder(BackEndViolation)

    async def send_bytes(self, data, fds=()):
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sent = await self.socket.sendmsg([data], ancillary)
        while sent < len(data):
            sent += await self.socket.send(data[sent:])

    async def send(self, request, body=b"", fds=(), *, need_reply=False):
        await self.send_bytes(encode(request, body, need_reply=need_reply), fds)

    async def receive(self):
        """Return the next message, None if the back end closed the connection."""
        with trio.fail_after(PATIENCE):
            while True:
                try:
                    data, ancillary, _, _ = await self.socket.recvmsg(self.decoder.wanted_size, 1024)
                except ConnectionResetError:
                    return None
                fds = array.array("i")
                for _, _, content in ancillary:
                    fds.frombytes(content)
                if not data:
                    return None
                for message in self.decoder.feed(data, fds):
                    return message

    async def ask(self, request, body=b"", fds=(), *, need_reply=False):
        await self.send(request, body, fds, need_reply=need_reply)
        return await self.receive()

    async def ask_u64(self, request, body=b"", fds=()):
        """Return the number that answers a request, or acknowledges it."""
        message = await self.ask(request, body, fds, need_reply=True)
        assert message is not None, f"the connection was closed after {request!r}"
        assert message.request == request
        return spec.U64.parse(message.body).value

    async def is_closed(self):
        """Wait until the back end has closed the connection; false if it answers first."""
        return await self.receive() is None

    def close(self):
        self.decoder.close()
        self.socket.close()


class FrontEnd(RawFrontEnd):
    """A raw front end with RAM and a driver's rings, and the usual ways to set them up."""

    def __init__(self, sock, *, size=16 * MIB, memory=None):
        super().__init__(sock)
        self.memory = memory or GuestMemory([Region(0, MemfdBacking(size))])
        self.queues = {}
        self.kicks, self.calls, self.errs = {}, {}, {}
        self.features = 0

    @property
    def table(self):
        return spec.MEMORY_TABLE.build(
            {
                "region_count": len(self.memory.regions),
                "regions": [
                    {
                        "guest_address": region.guest_address,
                        "size": region.size,
                        "user_address": USER_BASE + region.guest_address,
                        "mmap_offset": 0,
                    }
                    for region in self.memory.regions
                ],
            }
        )

    @property
    def table_fds(self):
        return [region.backing.fd for region in self.memory.regions]

    async def negotiate(self, features=RING_FEATURES, *, protocol_features=None, need=True):
        """Agree on features; protocol features are all that are offered unless said otherwise, none for 0."""
        offered = await self.ask_u64(R.GET_FEATURES)
        self.features = features & offered
        session_bits = 0
        if protocol_features != 0:
            has = await self.ask_u64(R.GET_PROTOCOL_FEATURES)
            wanted = has if protocol_features is None else protocol_features
            await self.send(R.SET_PROTOCOL_FEATURES, u64(wanted))
            session_bits = 1 << spec.PROTOCOL_FEATURES
        await self.send(R.SET_OWNER)
        await self.send(R.SET_FEATURES, u64(self.features | session_bits))

    async def share_memory(self):
        await self.send(R.SET_MEM_TABLE, self.table, self.table_fds)

    def queue(self, number, *, size=64, address=None, make=SplitDriverQueue):
        """Make the driver's side of a ring."""
        address = 0x10000 * (number + 1) if address is None else address
        self.queues[number] = make.create(self.memory, number, size, address, self.features)
        return self.queues[number]

    def ring_address(self, number, *, flags=0, log=0):
        addresses = self.queues[number].addresses
        return spec.VRING_ADDRESS.build(
            {
                "index": number,
                "flags": flags,
                "descriptor": USER_BASE + addresses.descriptor,
                "used": USER_BASE + addresses.device,
                "available": USER_BASE + addresses.driver,
                "log": log,
            }
        )

    async def start_ring(self, number, *, base=0, enable=True, size=None):
        """Set a ring up with new eventfds, in the order of QEMU."""
        size = self.queues[number].addresses.size if size is None else size
        await self.send(R.SET_VRING_NUM, state(number, size))
        await self.send(R.SET_VRING_BASE, state(number, base))
        await self.send(R.SET_VRING_ADDR, self.ring_address(number))
        for events, request in (
            (self.errs, R.SET_VRING_ERR),
            (self.kicks, R.SET_VRING_KICK),
            (self.calls, R.SET_VRING_CALL),
        ):
            self.close_event(events.pop(number, None))
            events[number] = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            await self.send(request, u64(number), [events[number]])
        if enable:
            await self.send(R.SET_VRING_ENABLE, state(number, 1))

    async def settle(self):
        """Return when the back end has done all that was sent."""
        await self.ask_u64(R.GET_FEATURES)

    async def stop_ring(self, number):
        """Return the base of a ring that is stopped now."""
        message = await self.ask(R.GET_VRING_BASE, state(number, 0))
        return spec.VRING_STATE.parse(message.body).num

    def kick(self, number):
        os.eventfd_write(self.kicks[number], 1)

    def post(self, number, data, *, address=0x80000):
        """Make `data` available as one buffer, and kick."""
        self.memory.write(address, data)
        self.queues[number].add([(address, len(data))], [], 1)
        self.queues[number].publish()
        self.kick(number)

    async def wait_call(self, number):
        """Return how many calls there were, after at least one."""
        return await wait_event(self.calls[number])

    @staticmethod
    def close_event(fd):
        if fd is not None:
            trio.lowlevel.notify_closing(fd)
            os.close(fd)

    def close(self):
        super().close()
        for events in (self.kicks, self.calls, self.errs):
            for fd in events.values():
                self.close_event(fd)
            events.clear()
        for region in self.memory.regions:
            region.backing.close()


async def wait_event(fd):
    with trio.fail_after(PATIENCE):
        while True:
            try:
                return os.eventfd_read(fd)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(fd)


async def wait_until(condition):
    """Let others run until `condition()`."""
    with trio.fail_after(PATIENCE):
        while not condition():
            await trio.lowlevel.checkpoint()


def frames(*pages):
    """Return page numbers as a request of the balloon's inflate or deflate queue."""
    return b"".join(page.to_bytes(4, "little") for page in pages)


def u64(value):
    return spec.U64.build({"value": value})


def state(index, num):
    return spec.VRING_STATE.build({"index": index, "num": num})


@asynccontextmanager
async def served(device, *, back_end=None, make=FrontEnd, **options):
    """Serve `device` over a socketpair; give the front end, with `back_end` as an attribute."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    back_end = back_end or BackEnd(device)
    front_end = make(ours, **options)
    front_end.back_end = back_end
    gone = trio.Event()

    async def serve():
        try:
            await back_end.serve_connection(theirs)
        finally:
            gone.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        try:
            yield front_end
        finally:
            front_end.close()
            with trio.CancelScope(shield=True), trio.fail_after(PATIENCE):
                await gone.wait()
            nursery.cancel_scope.cancel()


def connect(path):
    """Return a connected socket, without waiting: whoever listens need not accept yet."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(str(path))
    return sock


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


async def ready(front_end):
    await front_end.negotiate()
    await front_end.share_memory()
    front_end.queue(0)


async def refused(front_end, request, body=b"", fds=()):
    """Send a bad message; return the violation that it was. The connection goes on."""
    before = front_end.back_end.statistics.front_end_violation_count
    assert await front_end.ask_u64(request, body, fds) & 0xFF
    assert front_end.back_end.statistics.front_end_violation_count == before + 1
    return front_end.back_end.statistics.last_violation
