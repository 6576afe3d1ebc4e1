"""The bulk stage beside a bare loop: 1 GiB of random pages over a unix socket, to memory that is warm at the other end.

Both go between two processes, over the same memory, one after the other in turns. Exit status 0 when the median of
ours is at least 70 % of the bare loop's.

    python benchmarks/bench_stream.py --size 1024 --repeat 5
"""

import argparse
import os
import socket
import statistics
import sys
import time
import traceback
from collections.abc import Callable

import numpy as np
import trio

from host_migrator.destination import Destination
from host_migrator.dirty_log import CooperativeDirtyLog
from host_migrator.link import SocketLink
from host_migrator.machine import StreamHeader
from host_migrator.source import Source
from host_migrator.strategies import NoHints
from vdev.memory import GuestMemory, MemfdBacking, PageMarks, Region
from vdev.schedule import FreeSchedule

PIECE = 1 << 20
REQUIRED_RATIO = 0.70


class Machine:
    """Memory without a guest: what both ends of a migration ask for."""

    def __init__(self, memory: GuestMemory) -> None:
        self.memory = memory

    def guest_config(self):
        return {}

    async def pause(self):
        return b""

    async def resume(self):
        pass

    def save_devices(self):
        return []

    async def restore_devices(self, states):
        pass

    async def load_vcpu(self, state):
        pass

    async def run(self):
        pass

    async def verify(self):
        return {}

    async def discard(self):
        pass


def in_child(work: Callable[[], None]) -> int:
    """Run `work` in a forked process and return its pid."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            work()
            status = 0
        finally:
            if status:
                traceback.print_exc()
            os._exit(status)
    return pid


def timed(send: Callable[[socket.socket], float], receive: Callable[[socket.socket], None]) -> float:
    """Return the seconds that `send` measured, with `receive` in another process."""
    here, there = socket.socketpair()
    with here, there:
        here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)

        def work() -> None:
            here.close()
            receive(there)

        pid = in_child(work)
        there.close()
        seconds = send(here)
        _, status = os.waitpid(pid, 0)
    if status:
        raise RuntimeError(f"the receiving process ended with status {status}")
    return seconds


def bare_send(source: np.ndarray, sock: socket.socket) -> float:
    began = time.perf_counter()
    view = source.data
    for offset in range(0, len(source), PIECE):
        sock.sendall(view[offset : offset + PIECE])
    sock.recv(1)
    return time.perf_counter() - began


def bare_receive(target: np.ndarray, sock: socket.socket) -> None:
    view = target.data
    for offset in range(0, len(target), PIECE):
        sock.recv_into(view[offset : offset + PIECE], 0, socket.MSG_WAITALL)
    sock.send(b"1")


def our_send(memory: GuestMemory, sock: socket.socket) -> float:
    async def run() -> float:
        log = CooperativeDirtyLog(PageMarks(memory.page_count))
        source = Source(Machine(memory), SocketLink(sock.dup()), log, NoHints(), FreeSchedule())
        figures = await source.run()
        # The bulk stage, with the time until the destination has everything and answers.
        return figures.total_seconds

    return trio.run(run)


def our_receive(memory: GuestMemory, sock: socket.socket, populate_size: int) -> None:
    async def run() -> None:
        async def make_machine(header: StreamHeader) -> Machine:
            return Machine(memory)

        link = SocketLink(sock.dup())
        await Destination(link, make_machine, FreeSchedule(), populate_size=populate_size).run()

    trio.run(run)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024, help="MiB of random pages")
    parser.add_argument("--repeat", type=int, default=5, help="turns of each")
    parser.add_argument("--cold", action="store_true", help="the destination's memory is fresh each time")
    options = parser.parse_args()
    size = options.size << 20

    source = GuestMemory([Region(0, MemfdBacking(size))])
    data = source.regions[0].backing.data
    generator = np.random.default_rng(1)
    for offset in range(0, size, PIECE):
        data[offset : offset + PIECE] = np.frombuffer(generator.bytes(PIECE), np.uint8)
    target = GuestMemory([Region(0, MemfdBacking(size))])
    target.regions[0].backing.populate(0, size)

    bare, ours = [], []
    for _ in range(options.repeat):
        for seconds, send, receive in (
            (bare, lambda s: bare_send(data, s), lambda s: bare_receive(target.regions[0].backing.data, s)),
            (ours, lambda s: our_send(source, s), lambda s: our_receive(target, s, 32 << 20 if options.cold else 0)),
        ):
            if options.cold:
                target.regions[0].backing.give_back(0, size)
            seconds.append(timed(send, receive))
        if not np.array_equal(data, target.regions[0].backing.data):
            raise RuntimeError("the destination's memory is not the source's")

    for name, seconds in (("bare loop", bare), ("vdev stream", ours)):
        rates = sorted(size / second / 1e9 for second in seconds)
        print(f"{name:12} {statistics.median(rates):6.2f} GB/s   (from {rates[0]:.2f} to {rates[-1]:.2f})")
    ratio = statistics.median(bare) / statistics.median(ours)
    print(f"ratio        {ratio:6.2f}        (required: {REQUIRED_RATIO:.2f})")
    return 0 if ratio >= REQUIRED_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
