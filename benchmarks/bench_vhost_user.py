"""What a request costs from a driver to a device in another process and back, over vhost-user.

    python benchmarks/bench_vhost_user.py [--rounds N]

Beside it, in turns and in one run: a bare ping-pong of two eventfds between two processes, blocking reads and nothing
else. Both with the processes on a core each, and on one core together. Prints microseconds (median and middle half)
and their ratio. The device is the smallest there can be: it gives each buffer back with four bytes in it.
"""

import argparse
import contextlib
import os
import socket
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from typing import ClassVar

import trio

from guest_agent.vhost_user import VhostUserTransport
from guest_agent.vhost_user.session import KNOWN_PROTOCOL_FEATURES
from guest_agent.virtqueue import make_driver_queue
from spec.device import Feature, feature_mask
from spec.vhost_user import ProtocolFeature, protocol_feature_mask
from vdev.device import Device
from vdev.memory import GuestMemory, MemfdBacking, Region
from vdev.notify import BusyWait
from vdev.vhost_user.server import BackEnd

DEVICE_ID = 63
RAM_SIZE = 1 << 20
BUFFER, AREA = 0x1000, 0x10_000
FEATURES = feature_mask(Feature.VERSION_1, Feature.EVENT_IDX)
WITHOUT = protocol_feature_mask(ProtocolFeature.INFLIGHT_SHMFD)
"""Buffers in flight are not noted down: a bare ping-pong survives no killed end either."""
TURNS = 9
WARM_UP = 200


class Answerer(Device):
    """Gives each buffer back with four bytes in it."""

    device_id: ClassVar[int] = DEVICE_ID
    name = "answerer"
    queue_sizes = (64,)

    def handle_queue(self, number: int) -> None:
        for chain in self.chains(number):
            self.queues[number].push(chain.head, chain.write(self.memory, b"vdev"))


@contextlib.contextmanager
def child(run: Callable[[], None], core: int) -> Iterator[None]:
    """Run `run` in a forked process on `core` until the body ends."""
    pid = os.fork()
    if not pid:
        os.sched_setaffinity(0, {core})
        try:
            run()
        except BaseException:  # noqa: BLE001 - nobody is above: a forked child must not run the parent's code
            traceback.print_exc()
        os._exit(1)
    try:
        yield
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


@contextlib.contextmanager
def bare_ping_pong(core: int) -> Iterator[Callable[[], None]]:
    """Yield one round trip over two blocking eventfds."""
    there, back = os.eventfd(0), os.eventfd(0)

    def answer() -> None:
        while True:
            os.eventfd_read(there)
            os.eventfd_write(back, 1)

    def round_trip() -> None:
        os.eventfd_write(there, 1)
        os.eventfd_read(back)

    with child(answer, core):
        yield round_trip
    os.close(there)
    os.close(back)


@contextlib.contextmanager
def vhost_user(core: int) -> Iterator[Callable[[], None]]:
    """Yield one request and its answer through a split ring that another process serves."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        ours.close()
        trio.run(BackEnd(Answerer(GuestMemory.absent())).serve_connection, theirs)

    with child(serve, core):
        theirs.close()
        memory = GuestMemory([Region(0, MemfdBacking(RAM_SIZE))])
        transport = VhostUserTransport(
            memory, ours, device_id=DEVICE_ID, wanted_protocol_features=KNOWN_PROTOCOL_FEATURES & ~WITHOUT
        )
        transport.acknowledge_device()
        features = transport.negotiate(FEATURES)
        queue = make_driver_queue(memory, 0, 64, AREA, features)
        transport.set_up_queue(0, queue.addresses)
        transport.drive()

        busy_wait = BusyWait()

        def round_trip() -> None:
            queue.add((), ((BUFFER, 4),), 7)
            transport.publish(queue)
            while queue.collect() is None:
                if not busy_wait.until(queue.has_used) and not queue.enable_calls():
                    transport.wait_interrupt(None)
                    transport.take_interrupt()
                queue.disable_calls()

        yield round_trip
        transport.close()


def measure(round_trip: Callable[[], None], rounds: int) -> list[float]:
    """Return the seconds of each of `rounds` round trips."""
    samples = []
    for _ in range(rounds):
        began = time.perf_counter()
        round_trip()
        samples.append(time.perf_counter() - began)
    return samples


def compare(core: int, rounds: int) -> float:
    """Measure both in turns; print them, and return the ratio of their medians."""
    samples: dict[str, list[float]] = {"bare": [], "vhost-user": []}
    with bare_ping_pong(core) as bare, vhost_user(core) as served:
        trips = {"bare": bare, "vhost-user": served}
        for trip in trips.values():
            measure(trip, WARM_UP)
        for _ in range(TURNS):
            for name, trip in trips.items():
                samples[name] += measure(trip, rounds)
    medians = {}
    for name, values in samples.items():
        low, medians[name], high = (1e6 * value for value in statistics.quantiles(values, n=4))
        print(f"  {name:<11} {medians[name]:8.1f} us   middle half {low:.1f} to {high:.1f}")
    ratio = medians["vhost-user"] / medians["bare"]
    print(f"  {ratio:.2f} times the bare ping-pong")
    return ratio


def main() -> None:
    """Compare on two cores, and on one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=500, help="round trips a turn")
    rounds = parser.parse_args().rounds
    ours, *others = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {ours})
    if others:
        print("a core each")
        compare(others[0], rounds)
    print("one core together")
    compare(ours, rounds)


if __name__ == "__main__":
    main()
