"""A device served over vhost-user by a loop in a thread of its own: the front end in the test blocks, as guests do."""

import os
import socket
import threading
from contextlib import contextmanager

import trio

from guest_agent.vhost_user import VhostUserTransport
from spec.balloon import QueueNumbering
from vdev.devices.balloon import BalloonDevice
from vdev.memory import GuestMemory, MemfdBacking, Region
from vdev.vhost_user.server import BackEnd, listen

MIB = 1 << 20
PATIENCE = 20.0


def shared_memory(*regions):
    """RAM in memfds; (guest-physical address, bytes) each, 32 MiB from 0 on unless told."""
    return GuestMemory([Region(address, MemfdBacking(size)) for address, size in regions or ((0, 32 * MIB),)])


def open_fd_count():
    return len(os.listdir("/proc/self/fd"))


def balloon_device(**options):
    return BalloonDevice(GuestMemory.absent(), numbering=QueueNumbering.COMPACT, **options)


class Served:
    """`device` with its back end; all that touches either runs in the loop's thread, by `do`."""

    def __init__(self, device):
        self.device = device
        self.back_end = BackEnd(device)
        self.violations = []
        self._listening = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._run,))
        self._thread.start()
        assert self._listening.wait(PATIENCE)

    async def _run(self):
        self._token = trio.lowlevel.current_trio_token()
        self._stop = trio.Event()
        async with trio.open_nursery() as self._nursery:
            self._listening.set()
            await self._stop.wait()
            self._nursery.cancel_scope.cancel()

    async def _serve(self, sock):
        violation = await self.back_end.serve_connection(sock)
        if violation is not None:
            self.violations.append(violation)

    def connect(self):
        """Return a socket at whose other end the device is served, once nobody else is."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)

        async def serve():
            while self.back_end.statistics.is_connected:
                await trio.lowlevel.checkpoint()
            self._nursery.start_soon(self._serve, theirs)

        trio.from_thread.run(serve, trio_token=self._token)
        return ours

    def listen(self, path):
        """Serve whoever connects at `path`, one after the other; return the path as a string."""
        listener = listen(path)

        async def serve_at():
            with listener:
                await self.back_end.serve(listener)

        async def serve():
            self._nursery.start_soon(serve_at)

        trio.from_thread.run(serve, trio_token=self._token)
        return str(path)

    def do(self, function, *args):
        """Return what `function(*args)` returns, run in the loop."""
        return trio.from_thread.run_sync(function, *args, trio_token=self._token)

    def stop(self):
        if not self._thread.is_alive():
            return
        self.do(self._stop.set)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


@contextmanager
def serving(device):
    served = Served(device)
    try:
        yield served
    finally:
        served.stop()


def front_end(served, memory, **options):
    options = {"device_id": served.device.device_id, "patience": PATIENCE, **options}
    return VhostUserTransport(memory, served.connect(), **options)
