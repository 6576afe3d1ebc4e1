"""`vdev drive block --exercise`: random reads and writes of somebody else's disk, held against a copy in memory."""

import time
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from guest_agent.drivers.block.driver import Completion
from spec.block import SECTOR_SIZE, BlockFeature
from vdev.errors import UserError
from vdev.run.drive import DriveOptions, describe
from vdev.run.drive_block import Disk, check, open_disk

__all__ = ["ExerciseOptions", "exercise_block"]

_LARGEST = 64
"""Sectors of the largest request."""
_PLACE_TRIES = 8


@dataclass(frozen=True)
class ExerciseOptions:
    """How many requests, from which seed, how many under way at a time, on how many queues.

    Only the first `span` bytes of the disk are touched.
    """

    request_count: int
    seed: int = 0
    depth: int = 16
    queue_count: int = 1
    span: int = 64 << 20


@dataclass
class _Request:
    first: int
    end: int
    is_write: bool


class _Exercise:
    def __init__(self, disk: Disk, options: ExerciseOptions) -> None:
        self.shadow: npt.NDArray[np.uint8] = np.zeros(
            min(options.span, disk.size) // SECTOR_SIZE * SECTOR_SIZE, np.uint8
        )
        self.read_count = self.write_count = 0
        self.mismatches: list[int] = []
        """First sectors of reads that gave something else than the copy has."""
        self._disk = disk
        self._options = options
        self._random = np.random.Generator(np.random.PCG64(options.seed))
        self._requests: dict[int, _Request] = {}
        self._free = list(range(options.depth))
        self._queue = 0

    @property
    def sector_count(self) -> int:
        return len(self.shadow) // SECTOR_SIZE

    def fill_shadow(self) -> None:
        """Learn what the disk has."""
        self._sweep(is_learning=True)

    def compare(self) -> None:
        """Read all of it once more."""
        self._sweep(is_learning=False)

    def _sweep(self, *, is_learning: bool) -> None:
        for first in range(0, self.sector_count, _LARGEST):
            request = _Request(first, min(first + _LARGEST, self.sector_count), is_write=False)
            self._submit(request, is_learning=is_learning)
        self._finish_all(is_learning=is_learning)

    def run(self) -> None:
        """Do the random requests."""
        for _ in range(self._options.request_count):
            self._submit(self._draw())
        self._finish_all()

    def _draw(self) -> _Request:
        is_write = not self._disk.driver.read_only and bool(self._random.integers(2))
        while True:
            for _ in range(_PLACE_TRIES):
                size = int(self._random.integers(1, min(_LARGEST, self.sector_count) + 1))
                first = int(self._random.integers(self.sector_count - size + 1))
                request = _Request(first, first + size, is_write)
                if not any(_meet(request, other) for other in self._requests.values()):
                    return request
            # Requests on the same sectors have no order: the place is free again when they are done.
            self._collect(self._disk.wait())

    def _submit(self, request: _Request, *, is_learning: bool = False) -> None:
        while not self._free:
            self._collect(self._disk.wait(), is_learning=is_learning)
        token = self._free.pop()
        size = (request.end - request.first) * SECTOR_SIZE
        address = self._disk.buffers_address + token * _LARGEST * SECTOR_SIZE
        place = slice(request.first * SECTOR_SIZE, request.end * SECTOR_SIZE)
        if request.is_write:
            data = self._random.integers(0, 256, size, np.uint8)
            self._disk.memory.write(address, data)
            self.shadow[place] = data
            submit = self._disk.driver.submit_write
        else:
            submit = self._disk.driver.submit_read
        self._queue = (self._queue + 1) % len(self._disk.driver.queues)
        done = self._disk.submit(lambda: submit(request.first, [(address, size)], token, self._queue))
        self._requests[token] = request
        self._collect(done, is_learning=is_learning)

    def _finish_all(self, *, is_learning: bool = False) -> None:
        while self._requests:
            self._collect(self._disk.wait(), is_learning=is_learning)

    def _collect(self, done: list[Completion], *, is_learning: bool = False) -> None:
        for completion in done:
            request = self._requests.pop(completion.token)
            self._free.append(completion.token)
            check(completion, f"a {'write' if request.is_write else 'read'} at sector {request.first}")
            if request.is_write:
                self.write_count += 1
                continue
            size = (request.end - request.first) * SECTOR_SIZE
            address = self._disk.buffers_address + completion.token * _LARGEST * SECTOR_SIZE
            got = self._disk.memory.bytes_view(address, size)
            wanted = self.shadow[request.first * SECTOR_SIZE : request.end * SECTOR_SIZE]
            if is_learning:
                wanted[:] = got
                continue
            self.read_count += 1
            if not np.array_equal(got, wanted):
                self.mismatches.append(request.first)


def _meet(request: _Request, other: _Request) -> bool:
    return (request.is_write or other.is_write) and request.first < other.end and other.first < request.end


def exercise_block(
    options: DriveOptions, exercise_options: ExerciseOptions, output: IO[bytes] | None
) -> dict[str, Any]:
    """Exercise the disk, write what it should hold to `output`, and return the report.

    Raises UserError or DriveFailed; wrong data raise nothing: the report's `exercise` names them.
    """
    depth, queue_count = exercise_options.depth, exercise_options.queue_count
    with open_disk(options, depth * _LARGEST * SECTOR_SIZE, queue_count=queue_count) as (disk, driven):
        if len(disk.driver.queues) < queue_count:
            raise UserError(f"the device has {len(disk.driver.queues)} queues; give --queues no more")
        exercise = _Exercise(disk, exercise_options)
        exercise.fill_shadow()
        begin = time.monotonic()
        exercise.run()
        seconds = time.monotonic() - begin
        counts = {"reads": exercise.read_count, "writes": exercise.write_count}
        if disk.driver.can_flush:
            disk.finish("flush", lambda: disk.driver.submit_flush(0))
        exercise.compare()
        if output is not None:
            output.write(exercise.shadow.data)
        return {
            "device": "block",
            **describe(options, driven, disk.driver.features, BlockFeature),
            "capacity_bytes": disk.size,
            "exercise": {
                **counts,
                "seed": exercise_options.seed,
                "depth": depth,
                "queues": queue_count,
                "span_bytes": len(exercise.shadow),
                "seconds": seconds,
                "mismatched_sectors": sorted(set(exercise.mismatches)),
            },
        }
