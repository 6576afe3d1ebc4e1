"""Random reads of 4 KiB from the page cache, 32 under way, from a disk that another process serves over vhost-user.

    python benchmarks/bench_block_served.py [--reads N]

Two back ends, `vdev serve block` and qemu-storage-daemon, each behind two drivers, libblkio's and vdev's own; in turns
and in one run. Prints reads per second (median and middle half) and how our device does beside QEMU's, for each driver.
Needs what `make peers` brings, and says so where it is missing.
"""

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import AF_UNIX, socket

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from peers.parts import BOOKWORM, TRIXIE, Missing

from guest_agent.drivers.block import BlockDriver
from guest_agent.vhost_user import VhostUserTransport
from spec.device import DeviceId, Feature, feature_mask
from vdev.memory import GuestMemory, MemfdBacking, Region
from vdev.notify import BusyWait

DISK_SIZE = 256 << 20
SIZE, DEPTH = 4096, 32
TURNS = 7
AREA, BUFFERS = 0x10_0000, 0x40_0000
FEATURES = feature_mask(Feature.VERSION_1, Feature.EVENT_IDX, Feature.INDIRECT_DESC)

Reads = Callable[[], float]
"""Does the reads, and returns their rate, per second."""


@contextlib.contextmanager
def process(command: list[str], path: Path) -> Iterator[Path]:
    """Run a back end that listens at `path` until the body ends."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            while not path.exists():
                if server.poll() is not None:
                    raise SystemExit(f"{command[0]} ended with status {server.returncode}")
                time.sleep(0.01)
            yield path
        finally:
            server.kill()


def our_back_end(disk: Path, path: Path) -> list[str]:
    """Return the command of `vdev serve block`."""
    return [sys.executable, "-m", "vdev", "serve", "block", "--file", str(disk), "--socket", str(path)]


def qemu_back_end(disk: Path, path: Path) -> list[str]:
    """Return the command of qemu-storage-daemon's vhost-user export."""
    return [
        *BOOKWORM.command("usr/bin/qemu-storage-daemon"),
        *("--blockdev", f"file,node-name=disk,filename={disk}"),
        *("--export", f"vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path={path},writable=on"),
    ]


@contextlib.contextmanager
def libblkio(path: Path, count: int) -> Iterator[Reads]:
    """Yield `count` reads through libblkio's driver, in a process of its own."""
    script = str(Path(__file__).with_name("blkio_reads.py"))
    library = str(TRIXIE.find("usr/lib/x86_64-linux-gnu/libblkio.so.1"))
    command = [*TRIXIE.command("usr/bin/python3"), script, library, str(path), str(DEPTH), str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdin is not None
        assert driver.stdout is not None

        def reads() -> float:
            driver.stdin.write("\n")
            driver.stdin.flush()
            return count / float(driver.stdout.readline())

        try:
            yield reads
        finally:
            driver.kill()


@contextlib.contextmanager
def our_driver(path: Path, count: int) -> Iterator[Reads]:
    """Yield `count` reads through vdev's own driver, in this process."""
    memory = GuestMemory([Region(0, MemfdBacking(8 << 20))])
    connection = socket(AF_UNIX)
    connection.connect(str(path))
    transport = VhostUserTransport(memory, connection, device_id=DeviceId.BLOCK)
    driver = BlockDriver.start(transport, memory, AREA, wanted_features=FEATURES)
    sectors = np.random.default_rng(1).integers(0, DISK_SIZE // SIZE, count) * (SIZE // 512)
    busy_wait = BusyWait()

    def reads() -> float:
        slots, left, under_way = list(range(DEPTH)), sectors.tolist(), 0
        began = time.perf_counter()
        while left or under_way:
            while left and slots:
                slot = slots.pop()
                driver.submit_read(left.pop(), ((BUFFERS + SIZE * slot, SIZE),), slot)
                under_way += 1
            driver.publish()
            done = driver.collect()
            while not done:
                if not busy_wait.until(driver.queues[0].has_used):
                    transport.wait_interrupt(None)
                    driver.handle_interrupt()
                done = driver.collect()
            slots += [completion.token for completion in done]
            under_way -= len(done)
        return count / (time.perf_counter() - began)

    yield reads
    transport.close()


def compare(name: str, disk: Path, count: int) -> float:
    """Measure both back ends behind one driver, in turns; print them, and return our rate beside QEMU's."""
    open_driver = {"libblkio": libblkio, "vdev": our_driver}[name]
    commands = {"vdev": our_back_end, "qemu": qemu_back_end}
    rates: dict[str, list[float]] = {back_end: [] for back_end in commands}
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        reads = {}
        for back_end, command in commands.items():
            path = directory / back_end
            stack.enter_context(process(command(disk, path), path))
            reads[back_end] = stack.enter_context(open_driver(path, count))
            reads[back_end]()
        for _ in range(TURNS):
            for back_end, read in reads.items():
                rates[back_end].append(read())
    print(f"{name}'s driver")
    medians = {}
    for back_end, values in rates.items():
        low, medians[back_end], high = statistics.quantiles(values, n=4)
        print(f"  {back_end:<5} {medians[back_end]:9,.0f} reads/s   middle half {low:,.0f} to {high:,.0f}")
    ratio = medians["vdev"] / medians["qemu"]
    print(f"  {ratio:.2f} of qemu-storage-daemon's rate")
    return ratio


def main() -> None:
    """Compare behind both drivers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reads", type=int, default=20_000, help="reads a turn")
    count = parser.parse_args().reads
    with tempfile.NamedTemporaryFile() as disk:
        disk.write(np.random.default_rng(0).bytes(DISK_SIZE))
        disk.flush()
        for name in ("libblkio", "vdev"):
            try:
                compare(name, Path(disk.name), count)
            except Missing as missing:
                print(f"{name}'s driver: not measured, {missing}")


if __name__ == "__main__":
    main()
