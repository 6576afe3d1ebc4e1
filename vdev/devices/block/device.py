"""The block device: what it offers, its configuration space and queues, and how a batch of requests goes through it."""

from typing import Any, ClassVar

import construct
import numpy as np

from spec.block import CONFIG, ID_SIZE, MAX_QUEUE_COUNT, SAVED_STATE, SECTOR_SHIFT, SECTOR_SIZE, BlockFeature
from spec.device import DeviceId, feature_mask
from spec.layout import dtype_of
from vdev.device import RING_FEATURES, Device
from vdev.devices.block.execution import Executor, Failure
from vdev.devices.block.file import BlockFile
from vdev.devices.block.limits import (
    BATCH_SIZE,
    DISCARD_ALIGNMENT,
    DISCARD_RANGES_MAX,
    DISCARD_SECTORS_MAX,
    FEW,
    QUEUE_SIZE,
    SEG_MAX,
    SIZE_MAX,
    ZEROES_RANGES_MAX,
    ZEROES_SECTORS_MAX,
)
from vdev.devices.block.requests import Requests, parse_chains, parse_requests
from vdev.errors import DriverViolation, SavedStateError, UserError
from vdev.events import SILENT, Emitter, RequestFailed
from vdev.memory import GuestMemory
from vdev.virtqueue.chain import Chain
from vdev.virtqueue.queue import DeviceQueue

__all__ = ["BlockDevice"]

_CLAUSE = "Block Device / Device Operation"

_ALWAYS_OFFERED = (
    BlockFeature.SIZE_MAX,
    BlockFeature.SEG_MAX,
    BlockFeature.GEOMETRY,
    BlockFeature.BLK_SIZE,
    BlockFeature.FLUSH,
    BlockFeature.TOPOLOGY,
    BlockFeature.CONFIG_WCE,
)
_HEADS, _SECTORS = 16, 63
_PHYSICAL_EXPONENT = 3
"""Pages of 4096 bytes: what the host's page cache reads and writes as a whole."""


class BlockDevice(Device):
    """A disk whose sectors are in `file`, which belongs to the device from now on: `close` closes it.

    `serial` is what GET_ID gives, at most 20 bytes of UTF-8. With `queue_count` above 1 MQ is offered. Requests of one
    batch are done in order and at once; what one may ask for is bounded (`vdev.devices.block.limits`).

    Raises UserError for a serial or queue count that cannot be.
    """

    device_id: ClassVar[int] = DeviceId.BLOCK
    name = "block"
    type_features = tuple(BlockFeature)
    config_layout: ClassVar[construct.Construct] = CONFIG
    writable_config: ClassVar[frozenset[str]] = frozenset({"writeback"})

    def __init__(
        self,
        memory: GuestMemory,
        file: BlockFile,
        *,
        serial: str = "vdev",
        queue_count: int = 1,
        events: Emitter = SILENT,
    ) -> None:
        if len(serial.encode()) > ID_SIZE:
            raise UserError(f"the serial {serial!r} is longer than {ID_SIZE} bytes")
        if not 1 <= queue_count <= MAX_QUEUE_COUNT:
            raise UserError(f"a disk has 1 to {MAX_QUEUE_COUNT} queues, not {queue_count}")
        self.queue_sizes = (QUEUE_SIZE,) * queue_count
        super().__init__(memory, events=events)
        self._file = file
        self._executor = Executor(file, serial.encode())
        self.offered_features = RING_FEATURES | feature_mask(*_ALWAYS_OFFERED)
        if queue_count > 1:
            self.offered_features |= feature_mask(BlockFeature.MQ)
        if file.read_only:
            self.offered_features |= feature_mask(BlockFeature.RO)
        else:
            self.offered_features |= feature_mask(BlockFeature.DISCARD, BlockFeature.WRITE_ZEROES)
        self._fill_config()
        self._busy: set[int] = set()  # queues that had many requests at once when last looked at
        self.request_count = 0
        """Requests that were answered since this object was made."""
        self.failed_count = 0
        """Those of them that were not answered with OK."""

    @property
    def capacity(self) -> int:
        """Sectors of 512 bytes."""
        return self._file.size >> SECTOR_SHIFT

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    # What the base asks for

    def negotiated(self) -> None:
        """Take note of limits, types and cache mode."""
        self._executor.negotiate(self.features)
        if self.has_feature(BlockFeature.CONFIG_WCE) and not self.has_feature(BlockFeature.FLUSH):
            self.config["writeback"] = 0
        self._choose_cache_mode()

    def config_written(self, offset: int, size: int) -> None:
        """Change the cache mode: `writeback` is the only field that is the driver's to write."""
        if self.config["writeback"] > 1:
            clause = "Block Device / Device Initialization"
            self.report(DriverViolation(clause, f"writeback was written with {self.config['writeback']}, not 0 or 1"))
            self.config["writeback"] = 1
        self._choose_cache_mode()

    def _choose_cache_mode(self) -> None:
        # A driver that knows of neither feature cannot flush, and takes each completed write for a stable one.
        can_flush = self.has_feature(BlockFeature.FLUSH)
        has_switch = self.has_feature(BlockFeature.CONFIG_WCE)
        self._executor.write_through = not self.config["writeback"] if has_switch else not can_flush

    def queue_size_max(self, number: int) -> int:
        """Return the largest size of queue `number`; without MQ there is only the first."""
        if number and self.features and not self.has_feature(BlockFeature.MQ):
            return 0
        return super().queue_size_max(number)

    def handle_queue(self, number: int) -> None:
        """Do one batch of requests.

        Raises DriverViolation for a request that has no room for a status, or too short a header.
        """
        queue = self.queues[number]
        requests = self._take_many(queue) if number in self._busy else self._take_few(queue)
        written_sizes, failures = self._executor.run(requests)
        if requests.writable is not None:
            self.memory.mark_written_many(*requests.writable)
        if len(written_sizes) < FEW:
            for head, written_size in zip(requests.heads, written_sizes, strict=True):
                queue.push(head, written_size)
        else:
            queue.push_batch(np.array(requests.heads, np.int64), np.array(written_sizes, np.int64))
        self.request_count += len(written_sizes)
        if failures:
            self._tell(number, requests, failures)
        if requests.violation is not None:
            raise requests.violation

    def _take_few(self, queue: DeviceQueue) -> Requests:
        """Take requests one by one; if they turn out to be more than a few, the next ones are taken as a batch."""
        chains: list[Chain] = []
        violation: DriverViolation | None = None
        try:
            while len(chains) < BATCH_SIZE and (chain := queue.pop()) is not None:
                chains.append(chain)
        except DriverViolation as error:
            violation = error  # of the chain behind those
        if len(chains) >= FEW:
            self._busy.add(queue.number)
        requests = parse_chains(self.memory, chains, queue.number)
        requests.violation = requests.violation or violation
        return requests

    def _take_many(self, queue: DeviceQueue) -> Requests:
        batch = queue.pop_batch(BATCH_SIZE)
        if len(batch) < FEW:
            self._busy.discard(queue.number)
        return parse_requests(self.memory, batch, queue.number) if len(batch) else Requests()

    def reset(self) -> None:
        """Forget the driver, the cache mode that it chose, and what a front end stored over the disk's own fields."""
        super().reset()
        self._fill_config()
        self._executor.negotiate(0)

    def save_specific(self) -> bytes:
        """Return a SAVED_STATE of `spec.block`. Nothing is under way between two batches."""
        state: bytes = SAVED_STATE.build({"writeback": int(self.config["writeback"])})
        return state

    def restore_specific(self, state: bytes) -> None:
        """Go on from a SAVED_STATE, on a disk like the saved one. Raises SavedStateError if it is another."""
        for field, value in self._fixed_config().items():
            if field != "writeback" and self.config[field] != value:
                raise SavedStateError(f"the saved block does not fit: its {field} is {self.config[field]}, not {value}")
        try:
            self.config["writeback"] = SAVED_STATE.parse(state).writeback
        except construct.ConstructError as error:
            raise SavedStateError(f"the saved block cannot be read: {error}") from error
        self._choose_cache_mode()

    # Inside

    def _fill_config(self) -> None:
        for field, value in self._fixed_config().items():
            self.config[field] = value

    def _fixed_config(self) -> dict[str, int]:
        """Return every field of the configuration space that is not always 0, as a new device has it."""
        fields: dict[str, Any] = {
            "capacity": self.capacity,
            "size_max": SIZE_MAX,
            "seg_max": SEG_MAX,
            "cylinders": min(self.capacity // (_HEADS * _SECTORS), 0xFFFF),
            "heads": _HEADS,
            "sectors": _SECTORS,
            "blk_size": SECTOR_SIZE,
            "physical_block_exp": _PHYSICAL_EXPONENT,
            "min_io_size": 1 << _PHYSICAL_EXPONENT,
            "writeback": 1,
            "num_queues": len(self.queue_sizes),
        }
        if not self._file.read_only:
            fields |= {
                "max_discard_sectors": DISCARD_SECTORS_MAX,
                "max_discard_seg": DISCARD_RANGES_MAX,
                "discard_sector_alignment": DISCARD_ALIGNMENT,
                "max_write_zeroes_sectors": ZEROES_SECTORS_MAX,
                "max_write_zeroes_seg": ZEROES_RANGES_MAX,
                "write_zeroes_may_unmap": 1,
            }
        assert fields.keys() <= set(dtype_of(CONFIG).names or ())
        return fields

    def _tell(self, number: int, requests: Requests, failures: list[Failure]) -> None:
        self.failed_count += len(failures)
        for failure in failures:
            if failure.is_drivers_fault:
                message = f"{failure.request}: {failure.reason}"
                head = int(requests.heads[failure.position])
                self.report(DriverViolation(_CLAUSE, message, queue=number, descriptor=head))
            elif self._events.listening:
                self._events.emit(RequestFailed(self.name, number, failure.request, failure.reason))
