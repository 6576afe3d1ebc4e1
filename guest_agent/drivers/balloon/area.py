"""What the balloon driver keeps in guest RAM: its state, the buffers it shares with the device, and its queues.

Everything that the driver must know after a migration stands here; pages that it holds are found by their owner in the
page database.
"""

from enum import IntEnum
from functools import cache

import numpy as np
import numpy.typing as npt
from construct import Array, Construct, Int8ul, Int32ul, Int64ul, Struct

from guest_agent.drivers.area import REASON, DriverArea
from guest_agent.drivers.balloon.behaviour import (
    MAX_BATCH,
    HintAnswer,
    HintBehaviour,
    HintCollecting,
    HintHolding,
    HintRefresh,
    StartBuffer,
)
from guest_agent.virtqueue.factory import driver_area_size
from spec.balloon import HINT_REQUEST, STATISTIC, BalloonQueue, CommandId
from spec.layout import dtype_of
from vdev.memory import PAGE_SIZE, GuestMemory

__all__ = [
    "BUFFERS",
    "FRAMES_PER_REQUEST",
    "MAX_BITMAP_BLOCKS",
    "REPORTS_PER_REQUEST",
    "STATE",
    "STATISTICS_LIMIT",
    "BalloonArea",
    "HintPhase",
    "command_ids",
]

FRAMES_PER_REQUEST = 256
REPORTS_PER_REQUEST = 32
STATISTICS_LIMIT = 32
"""Entries in the statistics buffer."""
MAX_BITMAP_BLOCKS = 16
"""Blocks for a bitmap of free pages: at 4 MiB each, those of RAM of nearly 2 TiB."""

_HINT_WORDS = {
    "hint_answer": HintAnswer,
    "hint_holds": HintHolding,
    "hint_collects": HintCollecting,
    "hint_start_buffer": StartBuffer,
    "hint_refresh": HintRefresh,
}
"""Fields of STATE that are a place in the declaration of an enumeration."""
_SHARED = list(StartBuffer).index(StartBuffer.SHARED)


class HintPhase(IntEnum):
    """Where the driver is in answering one command id."""

    IDLE = 0
    POSTING = 1
    """The id is posted; blocks follow, then STOP."""


STATE = "balloon_driver_state" / Struct(
    "magic" / Int32ul,
    "queue_size" / Int32ul,
    "numbering" / Int32ul,  # place in the declaration of QueueNumbering
    "config_pending" / Int32ul,  # 1: the device said that its configuration changed
    "features" / Int64ul,  # negotiated
    "current_id" / Int32ul,  # free_page_hint_cmd_id when last read
    "announced_id" / Int32ul,  # the id last posted; 0 when there is none to compare with
    "hint_phase" / Int32ul,
    "hint_waiting" / Int32ul,  # 1: the free page queue was full, and calls are on
    "hint_answer" / Int8ul,  # how hints are given (HintBehaviour)
    "hint_holds" / Int8ul,
    "hint_collects" / Int8ul,
    "hint_start_buffer" / Int8ul,
    "hint_refresh" / Int8ul,
    "hint_order" / Int8ul,
    "hint_batch" / Int8ul,
    "hint_single_steps" / Int8ul,
    "batch_ready" / Int32ul,  # 1: something is collected and not yet queued
    "batch_count" / Int32ul,  # of it: blocks in a list, pages in a bitmap
    "answer_over" / Int32ul,  # 1: this answer has no more hints
    "answer_size" / Int32ul,  # hints in this answer, or the last: blocks, or pages of a bitmap
    "hints_out" / Int32ul,  # buffers with hints that the device has
    "shared_ids_out" / Int32ul,  # ids that the device has, where all have one buffer
    "hint_epoch" / Int32ul,  # counts the releases of what was held
    "hint_cursor" / Int64ul,  # the first page that an answer that holds nothing has not seen
    "requested_id" / Int32ul,  # of the last request that came in a buffer
    "refresh_interval" / Int32ul,  # free_page_hint_interval when last read
    "refresh_due" / Int32ul,  # 1: the interval is over
    "refresh_at" / Int64ul,  # when it will be, in milliseconds; 0: it has not begun
    "bitmap_order" / Int32ul,  # of the blocks in which a bitmap is stored
    "bitmap_block_count" / Int32ul,
    "target" / Int32ul,  # num_pages when last read
    "actual" / Int32ul,  # pages in the balloon, acknowledged
    "balance_due" / Int32ul,  # 1: target and actual may differ, and that is to be changed
    "inflating_count" / Int32ul,  # frames in the inflate buffer that the device holds
    "deflating_count" / Int32ul,
    "deflating_is_free" / Int32ul,  # 1: those pages went back to the allocator at once
    "report_due" / Int32ul,  # 1: a pass of free page reporting is under way
    "reporting_count" / Int32ul,  # blocks in the report that the device holds
    "report_low_water" / Int64ul,  # fewest free pages since the last pass
    REASON,
)
BUFFERS = "balloon_driver_buffers" / Struct(
    "inflate_frames" / Array(FRAMES_PER_REQUEST, Int32ul),
    "deflate_frames" / Array(FRAMES_PER_REQUEST, Int32ul),
    "statistics" / Array(STATISTICS_LIMIT, STATISTIC),
    "reported_heads" / Array(REPORTS_PER_REQUEST, Int64ul),  # first pages of the blocks in the report
    "collected_heads" / Array(MAX_BATCH, Int64ul),  # first pages of the blocks that are collected and not yet queued
    "bitmap_heads" / Array(MAX_BITMAP_BLOCKS, Int64ul),  # first pages of the blocks in which a bitmap is stored
    "request" / HINT_REQUEST,  # the device's to write
)


@cache
def command_ids(queue_size: int) -> Construct:
    """Return the layout of the id buffers: one fresh one for each that a queue of `queue_size` can hold."""
    return "command_ids" / Struct("id" / Array(queue_size, Int32ul), "in_use" / Array(queue_size, Int8ul))


class BalloonArea(DriverArea):
    """The driver's area at the page-aligned guest-physical `address`, for queues of up to `queue_size` descriptors."""

    name = "balloon"
    layout = STATE
    magic = int.from_bytes(b"VBLN", "little")

    def __init__(self, memory: GuestMemory, address: int, queue_size: int) -> None:
        super().__init__(memory, address)
        self._buffers_address = address + _whole_pages(STATE.sizeof())
        self._buffers = memory.view(self._buffers_address, BUFFERS)
        self._ids_address = self._buffers_address + _whole_pages(BUFFERS.sizeof())
        ids_layout = command_ids(queue_size)
        self._ids = memory.view(self._ids_address, ids_layout)
        self._queues_address = self._ids_address + _whole_pages(ids_layout.sizeof())
        self._queue_area_size = driver_area_size(queue_size)

    @staticmethod
    def size(queue_size: int) -> int:
        """Bytes of the whole area, a multiple of the page size, for queues of up to `queue_size` descriptors."""
        parts = [STATE.sizeof(), BUFFERS.sizeof(), command_ids(queue_size).sizeof()]
        return sum(map(_whole_pages, parts)) + len(BalloonQueue) * driver_area_size(queue_size)

    @classmethod
    def create(cls, memory: GuestMemory, address: int, queue_size: int) -> "BalloonArea":
        """Clear the area's state and buffers; the queues are made by their own class."""
        memory.write(address, bytes(cls.size(queue_size)))
        area = cls(memory, address, queue_size)
        area["queue_size"] = queue_size
        area["magic"] = cls.magic
        return area

    @classmethod
    def find(cls, memory: GuestMemory, address: int) -> "BalloonArea":
        """Return the area that `create` made at `address`.

        Raises NoQueueHere.
        """
        cls.require(memory, address)
        return cls(memory, address, int(memory.view(address, STATE)["queue_size"]))

    # State

    @property
    def is_hinting(self) -> bool:
        """Whether the device asks for hints, or an answer to it is not finished."""
        asked = self["current_id"] not in (CommandId.STOP, CommandId.DONE)
        return asked or self["hint_phase"] != HintPhase.IDLE

    @property
    def hint_behaviour(self) -> HintBehaviour:
        """How hints are given."""
        words = {field: list(kind)[self[field]].value for field, kind in _HINT_WORDS.items()}
        return HintBehaviour.of(
            **{field.removeprefix("hint_"): word for field, word in words.items()},
            order=self["hint_order"],
            batch=self["hint_batch"],
            single_steps=bool(self["hint_single_steps"]),
        )

    @hint_behaviour.setter
    def hint_behaviour(self, behaviour: HintBehaviour) -> None:
        for field, kind in _HINT_WORDS.items():
            self[field] = list(kind).index(getattr(behaviour, field.removeprefix("hint_")))
        self["hint_order"] = behaviour.order
        self["hint_batch"] = behaviour.batch
        self["hint_single_steps"] = int(behaviour.single_steps)

    # Buffers

    def buffer_address(self, name: str) -> int:
        """Return the guest-physical address of one of BUFFERS."""
        fields = dtype_of(BUFFERS).fields
        assert fields is not None
        return self._buffers_address + int(fields[name][1])

    def load(self, name: str, count: int) -> npt.NDArray[np.int64]:
        """Return a copy of the first `count` numbers of one of BUFFERS."""
        return self._buffers[name][:count].astype(np.int64)

    def store(self, name: str, values: npt.NDArray[np.int64]) -> None:
        """Store numbers at the start of one of BUFFERS."""
        array = self._buffers[name]
        array[: len(values)] = values
        self.memory.mark_written(self.buffer_address(name), len(values) * array.itemsize)

    def store_statistics(self, values: dict[int, int]) -> int:
        """Store tag -> value as the statistics buffer's entries; return their size in bytes."""
        entries = np.array(list(values.items())[:STATISTICS_LIMIT], dtype_of(STATISTIC))
        self.memory.write(self.buffer_address("statistics"), entries.tobytes())
        return entries.nbytes

    def load_request(self) -> int:
        """Return the id in the buffer for requests."""
        return int(self._buffers["request"]["id"])

    def take_id_buffer(self, command_id: int) -> tuple[int, int]:
        """Store `command_id` in an id buffer; return its index and address.

        It is one that the device does not hold, unless all ids share one.
        """
        index = 0
        if self._shares_ids:
            self["shared_ids_out"] += 1
        else:
            index = int(np.argmin(self._ids["in_use"]))
            self._ids["in_use"][index] = 1
        self._ids["id"][index] = command_id
        self._mark_ids()
        return index, self._ids_address + 4 * index

    def release_id_buffers(self, indices: npt.NDArray[np.int64]) -> None:
        """The device gave these id buffers back."""
        if self._shares_ids:
            self["shared_ids_out"] -= len(indices)
        else:
            self._ids["in_use"][indices] = 0
            self._mark_ids()

    def take_id_buffers_back(self) -> set[int]:
        """The queue is gone, and no id buffer is the device's; return the ids in those that were."""
        if self._shares_ids:
            # What stood in the one field before is not known: as if it were all that this answer has posted.
            ids = {self["announced_id"], int(CommandId.STOP)} if self["shared_ids_out"] else set()
            self["shared_ids_out"] = 0
            return ids
        in_use = self._ids["in_use"] == 1
        ids = set(self._ids["id"][in_use].tolist())
        self._ids["in_use"][:] = 0
        self._mark_ids()
        return ids

    @property
    def ids_out(self) -> int:
        """Id buffers that the device has."""
        return self["shared_ids_out"] if self._shares_ids else int(np.count_nonzero(self._ids["in_use"]))

    @property
    def _shares_ids(self) -> bool:
        return self["hint_start_buffer"] == _SHARED

    def _mark_ids(self) -> None:
        self.memory.mark_written(self._ids_address, self._ids.dtype.itemsize)

    def queue_address(self, role: BalloonQueue) -> int:
        """Return where the area of a queue begins."""
        return self._queues_address + role * self._queue_area_size


def _whole_pages(size: int) -> int:
    return -(-size // PAGE_SIZE) * PAGE_SIZE
