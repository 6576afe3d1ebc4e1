"""`vdev drive block`: read, write and change somebody else's disk."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from guest_agent.drivers.block.driver import BLOCK_DRIVER_FEATURES, BlockDriver, Completion
from guest_agent.transport import DeviceRefused
from guest_agent.virtqueue.queue import QueueFull
from spec.block import CONFIG, SECTOR_SIZE, BlockFeature
from spec.device import DeviceId
from vdev.errors import DeviceViolation, UserError
from vdev.memory import PAGE_SIZE, GuestMemory
from vdev.run.drive import (
    RAM_ADDRESS,
    DriveFailed,
    Driven,
    DriveOptions,
    attach,
    check_ring,
    describe,
    failure,
    ring_features,
)

__all__ = ["CHUNK_SIZE", "BlockJob", "Disk", "Range", "drive_block", "open_disk"]

CHUNK_SIZE = 256 << 10
"""Bytes of one read or write while a file is copied."""

_COPY_DEPTH = 8

_SMALLEST_CONFIG_SIZE = 24
"""Bytes up to and with blk_size, which any block device has had from the beginning."""


@dataclass(frozen=True)
class Range:
    """Bytes of the disk: `size` from `offset` on, whole sectors."""

    offset: int
    size: int

    def check(self, disk_size: int) -> None:
        """Raise UserError unless it is whole sectors of a disk of `disk_size` bytes."""
        if self.offset % SECTOR_SIZE or self.size % SECTOR_SIZE:
            raise UserError(f"{self.size} bytes at {self.offset} are not whole sectors of {SECTOR_SIZE} bytes")
        if not self.size:
            raise UserError(f"nothing is asked for at {self.offset}: give more than 0 bytes")
        if self.offset + self.size > disk_size:
            raise UserError(f"{self.size} bytes at {self.offset} reach beyond the disk's end at {disk_size}")

    @property
    def sectors(self) -> tuple[int, int]:
        """First sector, and how many."""
        return self.offset // SECTOR_SIZE, self.size // SECTOR_SIZE


@dataclass(frozen=True)
class BlockJob:
    """What to do, in this order: ask for the id, write, write zeroes, discard, flush, read."""

    get_id: bool = False
    write: tuple[int, Path] | None = None
    write_zeroes: Range | None = None
    discard: Range | None = None
    flush: bool = False
    read: Range | None = None


class Disk:
    """A block driver with buffers in guest RAM, and a limit for each wait.

    What the device answers with an error raises DriveFailed.
    """

    def __init__(
        self,
        driver: BlockDriver,
        driven: Driven,
        buffers_address: int,
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.driver = driver
        self.memory: GuestMemory = driven.memory
        self.buffers_address = buffers_address
        self._transport = driven.transport
        self._timeout = timeout
        self._clock = clock
        self.under_way = 0
        """Requests that were submitted and not collected."""

    @property
    def size(self) -> int:
        """Bytes."""
        return self.driver.capacity * SECTOR_SIZE

    @property
    def config(self) -> dict[str, int]:
        """The device's configuration space."""
        return self._transport.read_config(CONFIG)

    def submit(self, place: Callable[[], None]) -> list[Completion]:
        """Submit by calling `place`; return what was collected to make room for it, if that was needed."""
        done: list[Completion] = []
        while True:
            try:
                place()
            except QueueFull:
                done += self.wait()
                continue
            except DeviceRefused as refused:
                raise failure(self._transport, str(refused)) from refused
            self.under_way += 1
            return done

    def wait(self) -> list[Completion]:
        """Show the device what was submitted, and return at least one completion. Raises DriveFailed."""
        self.driver.publish()
        deadline = self._clock() + self._timeout
        while True:
            try:
                done = self.driver.collect()
            except DeviceViolation as violation:
                raise failure(self._transport, str(violation)) from violation
            if done:
                self.under_way -= len(done)
                return done
            remaining = deadline - self._clock()
            if remaining <= 0:
                raise DriveFailed(f"the device did not answer {self.under_way} requests within {self._timeout:g} s")
            if self._transport.wait_interrupt(remaining):
                self.driver.handle_interrupt()
                self.driver.work()
            if (reason := self.driver.gave_up) is not None:
                raise failure(self._transport, reason)

    def finish(self, what: str, place: Callable[[], None]) -> Completion:
        """Submit one request, wait for it alone, and return it. Raises DriveFailed if it failed."""
        try:
            self.submit(place)
        except ValueError as impossible:
            raise UserError(f"the device cannot {what}: {impossible}") from impossible
        (completion,) = self.wait()
        return check(completion, what)


def check(completion: Completion, what: str) -> Completion:
    """Return it, if the device did it. Raises DriveFailed."""
    if completion.failed:
        raise DriveFailed(f"the device answers {completion.status.name} to {what}")
    return completion


@contextmanager
def open_disk(options: DriveOptions, buffers_size: int, *, queue_count: int = 1) -> Iterator[tuple[Disk, Driven]]:
    """Attach, start the block driver, and give the disk with `buffers_size` bytes for data at `buffers_address`.

    Raises UserError if there is no block device, DriveFailed if it is lost.
    """
    area_size = BlockDriver.area_size(options.queue_size, queue_count)
    with attach(options, DeviceId.BLOCK, area_size + buffers_size) as driven:
        _check_type(options, driven)
        try:
            driver = BlockDriver.start(
                driven.transport,
                driven.memory,
                RAM_ADDRESS,
                wanted_features=BLOCK_DRIVER_FEATURES & ring_features(options.ring),
                queue_size=options.queue_size,
                queue_count=queue_count,
            )
        except DeviceRefused as refused:
            raise UserError(str(refused)) from refused
        check_ring(options, driver.features)
        yield Disk(driver, driven, RAM_ADDRESS + area_size, options.timeout), driven
        if driver.gave_up is None:
            driven.transport.reset()


def _check_type(options: DriveOptions, driven: Driven) -> None:
    transport = driven.transport
    try:
        size = transport.config_size(CONFIG)
        config = transport.read_config(CONFIG)
    except DeviceViolation as violation:
        if transport.lost is not None:
            raise
        raise _no_disk(options, violation.message) from violation
    if size < _SMALLEST_CONFIG_SIZE:
        raise _no_disk(options, f"it has {size} bytes of configuration")
    if transport.offered_features() >> BlockFeature.SEG_MAX & 1 and not config["seg_max"]:
        raise _no_disk(options, "it allows no data in a request")
    if not config["capacity"]:
        raise _no_disk(options, "its capacity is 0")


def _no_disk(options: DriveOptions, why: str) -> UserError:
    return UserError(f"the device at {options.socket_path} is no block device: {why}")


def drive_block(options: DriveOptions, job: BlockJob, output: IO[bytes] | None) -> dict[str, Any]:
    """Do `job`, write what is read to `output`, and return the report. Raises UserError or DriveFailed."""
    with open_disk(options, CHUNK_SIZE * _COPY_DEPTH) as (disk, driven):
        report: dict[str, Any] = {
            "device": "block",
            **describe(options, driven, disk.driver.features, BlockFeature),
            **_describe_disk(disk),
        }
        done: dict[str, Any] = {}
        if job.get_id:
            data = disk.finish("tell its id", lambda: disk.driver.submit_get_id(0)).data
            report["id"] = data.decode(errors="replace")
        if job.write is not None:
            offset, path = job.write
            done["written_bytes"] = _write_file(disk, offset, path)
        for name, what, wanted in (
            ("zeroed_bytes", "write zeroes", job.write_zeroes),
            ("discarded_bytes", "discard", job.discard),
        ):
            if wanted is not None:
                _change(disk, what, wanted)
                done[name] = wanted.size
        if job.flush:
            disk.finish("flush", lambda: disk.driver.submit_flush(0))
            done["flushed"] = True
        if job.read is not None and output is not None:
            _read_range(disk, job.read, output)
            done["read_bytes"] = job.read.size
        return {**report, "done": done}


def _describe_disk(disk: Disk) -> dict[str, Any]:
    config, driver = disk.config, disk.driver
    has = driver.features
    limits: dict[str, int] = {}
    for feature, names in _LIMITS.items():
        if has >> feature & 1:
            limits |= {name: config[name] for name in names}
    return {
        "capacity_bytes": disk.size,
        "read_only": driver.read_only,
        "queues": len(driver.queues),
        "queue_size": driver.queues[0].size,
        "limits": limits,
    }


_LIMITS: dict[BlockFeature, tuple[str, ...]] = {
    BlockFeature.SIZE_MAX: ("size_max",),
    BlockFeature.SEG_MAX: ("seg_max",),
    BlockFeature.BLK_SIZE: ("blk_size",),
    BlockFeature.TOPOLOGY: ("physical_block_exp", "alignment_offset", "min_io_size", "opt_io_size"),
    BlockFeature.CONFIG_WCE: ("writeback",),
    BlockFeature.MQ: ("num_queues",),
    BlockFeature.DISCARD: ("max_discard_sectors", "max_discard_seg", "discard_sector_alignment"),
    BlockFeature.WRITE_ZEROES: ("max_write_zeroes_sectors", "max_write_zeroes_seg", "write_zeroes_may_unmap"),
}


def _change(disk: Disk, what: str, wanted: Range) -> None:
    wanted.check(disk.size)
    submit = disk.driver.submit_discard if what == "discard" else disk.driver.submit_write_zeroes
    disk.finish(what, lambda: submit([wanted.sectors], 0))


def _read_range(disk: Disk, wanted: Range, output: IO[bytes]) -> None:
    wanted.check(disk.size)
    offsets = range(wanted.offset, wanted.offset + wanted.size, CHUNK_SIZE)
    finished: set[int] = set()
    written = submitted = 0
    while written < len(offsets):
        while submitted < len(offsets) and submitted - written < _COPY_DEPTH:
            place = _placing(disk, disk.driver.submit_read, wanted, offsets[submitted], submitted)
            finished.update(check(completion, "a read").token for completion in disk.submit(place))
            submitted += 1
        if written not in finished:
            finished.update(check(completion, "a read").token for completion in disk.wait())
        while written in finished:
            finished.remove(written)
            size = min(CHUNK_SIZE, wanted.offset + wanted.size - offsets[written])
            output.write(disk.memory.read(_buffer(disk, written), size))
            written += 1


def _write_file(disk: Disk, offset: int, path: Path) -> int:
    size = path.stat().st_size
    wanted = Range(offset, size)
    wanted.check(disk.size)
    if disk.driver.read_only:
        raise UserError("the disk is read-only")
    free = list(range(_COPY_DEPTH))
    with path.open("rb") as file:
        for start in range(offset, offset + size, CHUNK_SIZE):
            while not free:
                free += [check(completion, "a write").token for completion in disk.wait()]
            buffer = free.pop()
            data = file.read(min(CHUNK_SIZE, offset + size - start))
            disk.memory.write(_buffer(disk, buffer), data)
            place = _placing(disk, disk.driver.submit_write, wanted, start, buffer)
            free += [check(completion, "a write").token for completion in disk.submit(place)]
    while disk.under_way:
        for completion in disk.wait():
            check(completion, "a write")
    return size


def _buffer(disk: Disk, number: int) -> int:
    return disk.buffers_address + number % _COPY_DEPTH * CHUNK_SIZE


def _placing(
    disk: Disk, submit: Callable[[int, list[tuple[int, int]], int], None], wanted: Range, start: int, number: int
) -> Callable[[], None]:
    """Return what submits the chunk from `start` on. Its pages are segments: a device may limit a segment's size."""
    size = min(CHUNK_SIZE, wanted.offset + wanted.size - start)
    address = _buffer(disk, number)
    segments = [(address + at, min(PAGE_SIZE * 16, size - at)) for at in range(0, size, PAGE_SIZE * 16)]
    return lambda: submit(start // SECTOR_SIZE, segments, number)
