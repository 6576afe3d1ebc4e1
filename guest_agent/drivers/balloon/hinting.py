"""Posting free pages while the host migrates the guest ("Free Page Hinting"), as Linux does it or HintBehaviour says.

A new command id is posted first, then what is free, then STOP. As a list, that is one buffer for each block, as long as
there are any and the id stays the same; as a bitmap, one buffer. Blocks that are held stay so until the device says
DONE; memory pressure may take them back before.
"""

import numpy as np
import numpy.typing as npt

from guest_agent.drivers.balloon.area import BalloonArea, HintPhase
from guest_agent.drivers.balloon.behaviour import HintAnswer, HintCollecting, HintHolding
from guest_agent.drivers.balloon.free_bitmap import FreeBitmap
from guest_agent.drivers.balloon.held_hints import HeldHints
from guest_agent.drivers.balloon.piece import Piece
from guest_agent.drivers.balloon.refreshing import NO_REQUEST, HintRefresher
from guest_agent.drivers.pages import PageAllocator, Pages
from guest_agent.transport import Transport
from guest_agent.virtqueue.queue import DriverQueue
from spec.balloon import COMMAND_ID_SIZE, HINT_REQUEST, CommandId
from vdev.memory import PAGE_SIZE

__all__ = ["MIN_QUEUE_SIZE", "HintPoster"]

MIN_QUEUE_SIZE = 2
"""An id and a STOP must fit at the same time."""

_ID_TOKEN = 1 << 63
"""Set in the token of an id buffer, whose index is the rest."""
_REQUEST_TOKEN = 1 << 62
_BITMAP_TOKEN = 1 << 61
_EPOCH_SHIFT = 40
"""Other tokens are page numbers, and from this bit on the epoch in which they were hinted, modulo 2**16."""
_EPOCHS = 1 << 16


class HintPoster:
    """The free page queue and what was posted to it."""

    def __init__(self, area: BalloonArea, queue: DriverQueue, registers: Transport, allocator: PageAllocator) -> None:
        self._area = area
        self._memory = area.memory
        self._queue = queue
        self._registers = registers
        self._behaviour = area.hint_behaviour
        self.held = HeldHints(area, allocator, self._behaviour)
        self.refresh = HintRefresher(area, self.held, self._behaviour)
        self._bitmap = FreeBitmap(area) if self._behaviour.answer is HintAnswer.BITMAP else None

    # Setting up

    def begin(self) -> None:
        """Set an empty queue up. Only a used request needs a call; the device sees its buffer with `publish`."""
        if self._bitmap is None:
            self._queue.disable_calls()
        else:
            self._queue.enable_calls()
            self._add_request_buffer()

    def publish(self) -> None:
        """Show the device what was placed."""
        self._registers.publish(self._queue)

    def begin_again(self) -> None:
        """Go on with an empty queue after one that is gone. An id that the device may not have seen is posted anew."""
        area = self._area
        area["hint_waiting"] = 0
        area["hints_out"] = 0
        self.held.all_used()
        self.begin()
        lost_ids = area.take_id_buffers_back()
        if area["announced_id"] in lost_ids:
            area["announced_id"] = 0
            area["answer_over"] = 0
            area["hint_phase"] = HintPhase.IDLE
        elif CommandId.STOP in lost_ids:
            self._add_id(CommandId.STOP)
        self.publish()

    def _add_request_buffer(self) -> None:
        self._queue.add([], [(self._area.buffer_address("request"), HINT_REQUEST.sizeof())], _REQUEST_TOKEN)

    # What the device says

    def see_config(self, command_id: int, interval: int) -> None:
        """Take note of the configuration: free_page_hint_cmd_id, whose DONE lets all held blocks go, and the interval.

        Without a field for the interval (milliseconds) it is 0.
        """
        area = self._area
        self.refresh.see_interval(interval)
        if self._bitmap is not None and command_id not in NO_REQUEST and command_id != area["requested_id"]:
            # Its request is still on its way.
            command_id = CommandId.STOP
        is_idle = area["hint_phase"] == HintPhase.IDLE
        if command_id != area["current_id"] and is_idle and not area["batch_ready"]:
            # That nothing was free was found out for another id.
            area["answer_over"] = 0
        area["current_id"] = command_id
        if command_id == CommandId.DONE:
            self._release()
        if command_id in NO_REQUEST and is_idle:
            # Any later id is new, also one that a device whose count began again gives a second time.
            area["announced_id"] = 0

    def _release(self) -> None:
        self.held.release()
        self._area["hint_epoch"] = (self._area["hint_epoch"] + 1) % _EPOCHS
        self._area["batch_ready"] = 0

    # Working

    @property
    def next_piece(self) -> Piece:
        """What `work` does when it is called next. Without single steps it reaps and goes on in one call."""
        return Piece.REAP if self._queue.has_used() else self._answer_piece()

    def work(self) -> bool:
        """Do one piece; return whether there is more to do at once."""
        piece = self.next_piece
        if piece is Piece.REAP:
            self.reap()
            if self._area["config_pending"]:
                # A request: before it is answered, the configuration says whether it still stands.
                return True
            if self._behaviour.single_steps:
                return self.next_piece is not Piece.IDLE
            piece = self._answer_piece()
        match piece:
            case Piece.ANNOUNCE:
                self._announce()
            case Piece.COLLECT:
                self._collect()
            case Piece.QUEUE:
                self._post_collected()
            case Piece.END:
                self._end()
            case Piece.WAIT:
                self._area["hint_waiting"] = 1
                return self._queue.enable_calls()
            case _:
                return False
        return True

    def _answer_piece(self) -> Piece:
        area = self._area
        room = self._queue.free_count
        if area["hint_phase"] == HintPhase.IDLE:
            if not self._is_answer_due():
                return self._waiting() if self.refresh.awaits_use else Piece.IDLE
            if area["reporting_count"]:
                # These blocks come back when the device acknowledges them, and could not be hinted before.
                return Piece.IDLE
            early = self._behaviour.collects is HintCollecting.BEFORE_ANNOUNCING
            if early and not area["batch_ready"] and not area["answer_over"]:
                return Piece.COLLECT if self._can_collect() else self._waiting()
            return Piece.ANNOUNCE if room >= MIN_QUEUE_SIZE else self._waiting()
        # One descriptor stays free, so that STOP never has to wait for the device.
        if area["batch_ready"]:
            return Piece.QUEUE if room > self._hint_descriptors() else self._waiting()
        if area["current_id"] != area["announced_id"] or area["answer_over"]:
            return Piece.END
        return Piece.COLLECT if room > self._hint_descriptors() and self._can_collect() else self._waiting()

    def _waiting(self) -> Piece:
        asked = self._area["hint_waiting"] or self._behaviour.single_steps
        return Piece.IDLE if asked else Piece.WAIT

    def _hint_descriptors(self) -> int:
        return 1 if self._bitmap is None else len(self._bitmap.segments)

    def _can_collect(self) -> bool:
        # There is room for one bitmap.
        return self._bitmap is None or not self._area["hints_out"]

    def _is_answer_due(self) -> bool:
        current_id = self._area["current_id"]
        return current_id not in NO_REQUEST and (current_id != self._area["announced_id"] or self.refresh.is_due)

    def _begin_answer(self) -> None:
        area = self._area
        if area["current_id"] == area["announced_id"] and self.refresh.is_consumed:
            self._release()
        self.held.begin()
        area["answer_size"] = 0
        area["refresh_due"] = 0

    def _announce(self) -> None:
        area = self._area
        if not area["batch_ready"] and not area["answer_over"]:
            self._begin_answer()
        area["announced_id"] = area["current_id"]
        area["hint_phase"] = HintPhase.POSTING
        self._add_id(area["current_id"])
        self.publish()

    def _collect(self) -> None:
        area = self._area
        kept = 1
        if area["hint_phase"] == HintPhase.IDLE:
            self._begin_answer()
            kept = MIN_QUEUE_SIZE
        if self._bitmap is not None:
            area["batch_count"] = self._bitmap.fill(self.held.collect_all())
            area["batch_ready"] = 1
            return
        heads = self.held.collect(max(min(self._queue.free_count - kept, self._behaviour.batch), 1))
        self._keep_collected(heads)
        area["answer_over"] = int(not len(heads))

    @property
    def collected(self) -> Pages:
        """What is collected and not yet queued: heads of blocks, or the pages of a bitmap."""
        area = self._area
        if not area["batch_ready"]:
            return np.empty(0, np.int64)
        if self._bitmap is not None:
            return self._bitmap.pages()
        return area.load("collected_heads", area["batch_count"])

    def _keep_collected(self, heads: Pages) -> None:
        self._area.store("collected_heads", heads)
        self._area["batch_count"] = len(heads)
        self._area["batch_ready"] = int(len(heads) > 0)

    def _post_collected(self) -> None:
        area = self._area
        if self._bitmap is not None:
            self._queue.add(self._bitmap.segments, [], _BITMAP_TOKEN)
            self.held.all_queued()
            area["answer_size"] = area["batch_count"]
            area["batch_ready"] = 0
            area["answer_over"] = 1
            area["hints_out"] += 1
        else:
            collected = area.load("collected_heads", area["batch_count"])
            heads = collected[: self._queue.free_count - 1]
            self._add_blocks(heads)
            self.held.queued(heads)
            area["answer_size"] += len(heads)
            self._keep_collected(collected[len(heads) :])
            area["hints_out"] += len(heads)
        self.publish()

    def _end(self) -> None:
        area = self._area
        area["answer_over"] = 0
        area["hint_phase"] = HintPhase.IDLE
        self._add_id(CommandId.STOP)
        self.publish()

    def _add_id(self, command_id: int) -> None:
        index, address = self._area.take_id_buffer(command_id)
        self._queue.add([(address, COMMAND_ID_SIZE)], [], _ID_TOKEN | index)

    def _add_blocks(self, heads: Pages) -> None:
        self._queue.add_batch(
            self._memory.addresses_of(heads),
            np.full(len(heads), PAGE_SIZE << self._behaviour.order, np.uint64),
            writable=True,
            tokens=(heads | self._area["hint_epoch"] << _EPOCH_SHIFT).astype(np.uint64),
        )

    # What comes back

    def collect(self) -> None:
        """Take back what the device has looked at, from a queue that is gone."""
        self._take_used()

    def reap(self) -> None:
        """Take back what the device has looked at. A request is copied, and its buffer goes into the queue again."""
        if self._area["hint_waiting"]:
            self._area["hint_waiting"] = 0
            if self._bitmap is None:
                self._queue.disable_calls()
        if self._take_used():
            self._add_request_buffer()
            self.publish()

    def _take_used(self) -> bool:
        """Take all used buffers; return whether the one for requests was among them."""
        has_request = False
        while len((used := self._queue.collect_batch()).tokens):
            tokens = used.tokens
            ids = tokens >= np.uint64(_ID_TOKEN)
            if ids.any():
                self._area.release_id_buffers((tokens[ids] - np.uint64(_ID_TOKEN)).astype(np.int64))
            requests = tokens == np.uint64(_REQUEST_TOKEN)
            if requests.any():
                has_request = True
                self._take_request(int(used.written_sizes[requests][0]))
            hints = tokens[~ids & ~requests].astype(np.int64)
            if len(hints):
                self._take_used_hints(hints)
        return has_request

    def _take_request(self, written_size: int) -> None:
        if written_size < HINT_REQUEST.sizeof():
            # Given back without a question, as after a migration.
            return
        self._area["requested_id"] = self._area.load_request()
        self._area["config_pending"] = 1

    def _take_used_hints(self, tokens: npt.NDArray[np.int64]) -> None:
        area = self._area
        area["hints_out"] -= len(tokens)
        if self._behaviour.holds is not HintHolding.UNTIL_USED:
            return
        if self._bitmap is not None:
            self.held.all_used()
            return
        # What was released since is not held for this hint any more.
        current = tokens >> _EPOCH_SHIFT == area["hint_epoch"]
        self.held.used(tokens[current] & ((1 << _EPOCH_SHIFT) - 1))

    # Memory pressure

    def shrink(self, wanted: int) -> int:
        """Give held blocks back to the allocator, `wanted` pages or a little more; return how many pages."""
        if self._behaviour.holds is HintHolding.UNTIL_USED and not self._behaviour.single_steps:
            self.reap()
        heads = self.held.reclaimable
        count = min(len(heads), -(-wanted >> self._behaviour.order))
        return self.held.take_back(heads[-count:]) if count else 0
