"""Free page hinting: which pages the guest says are free while it migrates ("Free Page Hinting").

The migrator asks with `request`, takes the hints through `sink`, and says `stop` before it merges the dirty log and
`done` when it needs no more. Everything here is synchronous, so applying a hint, checking the id and a merge in the
same task exclude each other. A sink that takes more than one turn for a batch keeps it, and gives it back later.

Hinting skips pages, so it is only right where nobody needs a skipped page's content. Two uses must not be combined
with it, and this is the place that says so: post-copy migration, where the destination could demand a page that was
skipped; and a guest that relies on the content of its free pages (PAGE_POISON negotiated with a pattern other than 0),
for which `request` gives None.
"""

import numpy as np
import numpy.typing as npt

from spec.balloon import COMMAND_ID_SIZE, FIRST_COMMAND_ID, CommandId, HintAnswer
from vdev.devices.balloon.hint_bitmap import read_hint_bitmap
from vdev.devices.balloon.hint_requests import HintRequests
from vdev.devices.balloon.hint_states import HintInput, HintState, next_hint_state, shown_command_id
from vdev.devices.balloon.hint_taker import HintedDevice, HintTaker
from vdev.errors import DriverViolation, GuestAddressError
from vdev.events import Emitter, HintApplied, HintRefused, HintStateChanged
from vdev.memory import GuestMemory
from vdev.memory.pages import PAGE_SIZE, PageRanges
from vdev.virtqueue.chain import Chain, ChainBatch
from vdev.virtqueue.queue import DeviceQueue

__all__ = ["Hinting"]

_CLAUSE = "Memory Balloon Device / Device Operation / Free Page Hinting"

_REFUSALS = {
    HintState.STOP: "hinting is stopped",
    HintState.REQUESTED: "the driver has not echoed the current id",
    HintState.DONE: "hinting is done",
    HintState.START: "nobody takes hints",
}
_FLUSH_PASSES = 16


class Hinting:
    """The STOP / REQUESTED / START / DONE machine of one balloon, and the queue that drives it.

    `sink` takes the hints that count. Those are the ones under the id that was asked for last, unless `checks_id` is
    false: then nobody looks at ids, the state is REQUESTED from `request` until `stop` or `done`, and all hints count
    meanwhile. While `polled`, the driver's kicks are not looked at (see `BalloonDevice.poll_hints`).
    """

    def __init__(
        self,
        memory: GuestMemory,
        device: HintedDevice,
        *,
        answer: HintAnswer = HintAnswer.LIST,
        events: Emitter,
    ) -> None:
        self.sink: HintTaker | None = None
        self.checks_id = True
        self.polled = False
        self.state = HintState.STOP
        self.command_id = FIRST_COMMAND_ID - 1
        """The last id asked for; they count up from FIRST_COMMAND_ID and wrap back there."""
        self.applied_count = 0
        """Pages that hints took out of the set still to send."""
        self.refused_count = 0
        """Hints (buffers) that were ignored."""
        self.kept: list[npt.NDArray[np.int64]] = []
        """Batches that the sink did not let go of, as the heads of their buffers, the oldest first."""
        self.requests = HintRequests(memory)
        self._answer = answer
        self._memory = memory
        self._device = device
        self._events = events

    def request(self) -> int | None:
        """Ask the driver for hints under a new id and return it.

        None when there is nobody to ask: hints not negotiated, driver not up, device broken, free pages poisoned.
        """
        if not self._device.hints_are_usable():
            return None
        self.command_id = FIRST_COMMAND_ID if self.command_id == 0xFFFF_FFFF else self.command_id + 1
        self._move(HintInput.REQUEST)
        if self._answer is HintAnswer.BITMAP and (queue := self._device.hint_queue()) is not None:
            try:
                self.requests.ask(self.command_id, queue)
            except (DriverViolation, GuestAddressError) as error:
                self._break(error, queue)
            else:
                self._device.call_driver(queue.number)
        return self.command_id

    def stop(self) -> None:
        """Take no more hints; the driver keeps holding those it gave. Tells the driver unless it was told."""
        self._move(HintInput.STOP)

    def done(self) -> None:
        """Take no more hints and let the driver have its pages back. A second call does nothing."""
        self._move(HintInput.DONE)

    def reset(self) -> None:
        """Forget the driver: it was reset, so it holds nothing and no id of its past counts."""
        self.state = HintState.STOP
        self.forget_buffers()

    def forget_buffers(self) -> None:
        """The queue is gone, and with it what was kept of it."""
        self.kept.clear()
        self.requests.forget_buffer()

    def restore(self, heads: tuple[int, ...]) -> None:
        """Go on with these buffers in hand: they go back, unapplied, when the queue is next looked at."""
        if heads:
            self.kept.append(np.array(heads, np.int64))

    def set_refresh_interval(self, milliseconds: int) -> None:
        """Have the driver answer again by itself so often; 0: not any more.

        Raises ValueError if the device was made without the field for it.
        """
        self._device.show_refresh_interval(milliseconds)

    @property
    def has_batch(self) -> bool:
        """Whether a batch is in hand."""
        return bool(self.kept)

    def give_back(self) -> None:
        """Give the oldest batch in hand back to the driver."""
        if not self.kept:
            return
        heads = self.kept.pop(0)
        queue = self._device.hint_queue()
        if queue is not None:
            queue.push_batch(heads, np.zeros(len(heads), np.int64))
            self._device.call_driver(queue.number)

    def flush(self) -> int:
        """Take all that is unread in the queue and give it back with no hint applied; return the hints refused.

        What was in hand goes back first. It writes to the ring: not while the guest is stopped.
        """
        queue = self._device.hint_queue()
        if queue is None or not self._device.hints_are_usable():
            return 0
        before = self.refused_count
        while self.kept:
            self.give_back()
        try:
            for _ in range(_FLUSH_PASSES):
                if not len(batch := queue.pop_batch()):
                    break
                heads = self._take(batch, queue, applies=False)
                queue.push_batch(heads, np.zeros(len(heads), np.int64))
        except (DriverViolation, GuestAddressError) as error:
            self._break(error, queue)
        else:
            self._device.call_driver(queue.number)
        return self.refused_count - before

    def _break(self, error: DriverViolation | GuestAddressError, queue: DeviceQueue) -> None:
        if isinstance(error, GuestAddressError):
            error = DriverViolation(_CLAUSE, str(error), queue=queue.number)
        self._device.needs_reset(error)

    def _move(self, what: HintInput) -> None:
        after = next_hint_state(self.state, what)
        if after is None:
            return
        if after is not HintState.REQUESTED:
            self.requests.withdraw()
        before, self.state = self.state, after
        if self._events.listening:
            self._events.emit(HintStateChanged(before.name, after.name, self.command_id))
        # A bitmap is asked for through the queue.
        is_asked = what is HintInput.REQUEST and self._answer is HintAnswer.LIST
        is_news = is_asked or what in (HintInput.STOP, HintInput.DONE)
        self._device.show_command_id(shown_command_id(after, self.command_id), is_news)

    def handle(self, queue: DeviceQueue) -> None:
        """Take what the driver posted, in its order, and give every buffer back with nothing written.

        An ignored hint goes back like any other: a Linux guest waits for room in this queue without end.
        Raises DriverViolation for an id that is not 4 bytes, a hint that is not made of whole pages, and a bitmap that
        is not one of all of RAM.
        """
        while self.kept and self.sink is None:
            self.give_back()
        batch = queue.pop_batch()
        if not len(batch):
            return
        heads = self._take(batch, queue, applies=True)
        if not len(heads) or self.sink is None or self.sink.batch_taken():
            queue.push_batch(heads, np.zeros(len(heads), np.int64))
        else:
            self.kept.append(heads)

    def _take(self, batch: ChainBatch, queue: DeviceQueue, *, applies: bool) -> npt.NDArray[np.int64]:
        """Look at all buffers of a batch; return the heads of those that are to go back."""
        if self._answer is HintAnswer.BITMAP:
            return self._take_messages(batch, queue, applies=applies)
        self._check_pages(batch, queue.number)
        first = 0
        for position in np.unique(batch.segment_chain[~batch.writable]).tolist():
            self._take_pages(batch, first, position, applies=applies)
            self._take_id(batch.chain(position), queue.number)
            first = position
        self._take_pages(batch, first, len(batch), applies=applies)
        return batch.heads

    def _take_messages(self, batch: ChainBatch, queue: DeviceQueue, *, applies: bool) -> npt.NDArray[np.int64]:
        returned = []
        for chain in batch:
            if chain.writable:
                self.requests.keep(chain, queue)
                continue
            if chain.readable_size == COMMAND_ID_SIZE:
                self._take_id(chain, queue.number)
            else:
                self._take_bitmap(chain, queue.number, applies=applies)
            returned.append(chain.head)
        return np.array(returned, np.int64)

    def _check_pages(self, batch: ChainBatch, number: int) -> None:
        offset = (batch.addresses | batch.sizes) & np.uint64(PAGE_SIZE - 1)
        bad = np.flatnonzero((offset != 0) & batch.writable)
        if len(bad):
            raise DriverViolation(
                _CLAUSE,
                f"a hint of {int(batch.sizes[bad[0]])} bytes that is not made of whole pages",
                queue=number,
                descriptor=int(batch.heads[batch.segment_chain[bad[0]]]),
                address=int(batch.addresses[bad[0]]),
            )

    def _take_id(self, chain: Chain, number: int) -> None:
        if chain.readable_size != COMMAND_ID_SIZE:
            raise DriverViolation(
                _CLAUSE,
                f"an id buffer of {chain.readable_size} bytes, not {COMMAND_ID_SIZE}",
                queue=number,
                descriptor=chain.head,
            )
        command_id = int.from_bytes(chain.read(self._memory), "little")
        before = self.state
        if self.checks_id:
            self._move(HintInput.ID_ECHOED if command_id == self.command_id else HintInput.OTHER_ID)
            has_ended = before is HintState.START and self.state is HintState.STOP
        else:
            has_ended = before is HintState.REQUESTED and command_id == CommandId.STOP
        if has_ended and self.sink is not None:
            self.sink.answer_ended()

    def _counting_sink(self, applies: bool) -> HintTaker | None:
        counting = HintState.START if self.checks_id else HintState.REQUESTED
        return self.sink if applies and self.state is counting else None

    def _take_bitmap(self, chain: Chain, number: int, *, applies: bool) -> None:
        ranges = read_hint_bitmap(self._memory, chain, number)
        sink = self._counting_sink(applies)
        cleared = 0 if sink is None else sink.take(ranges)
        self.applied_count += cleared
        self.refused_count += sink is None
        if not self._events.listening:
            return
        # The event speaks of what the guest sent: where the buffer is that says which pages are free.
        address, size = chain.readable[0].address, chain.readable_size
        if sink is None:
            self._events.emit(HintRefused(address, size, self._refusal(applies)))
        else:
            self._events.emit(HintApplied(address, size, ranges.page_count, cleared))

    def _refusal(self, applies: bool) -> str:
        if not applies:
            return "the queue is flushed"
        return _REFUSALS[self.state] if self.checks_id or self.sink is not None else _REFUSALS[HintState.START]

    def _take_pages(self, batch: ChainBatch, first: int, end: int, *, applies: bool) -> None:
        """Apply or refuse the hints of the chains from position `first` up to `end`."""
        low, high = np.searchsorted(batch.segment_chain, (first, end)).tolist()
        chosen = np.flatnonzero(batch.writable[low:high]) + low
        if not len(chosen):
            return
        addresses, sizes = batch.addresses[chosen], batch.sizes[chosen]
        sink = self._counting_sink(applies)
        if sink is None:
            self.refused_count += len(chosen)
            if self._events.listening:
                reason = self._refusal(applies)
                for address, size in zip(addresses.tolist(), sizes.tolist(), strict=True):
                    self._events.emit(HintRefused(address, size, reason))
            return
        ranges = self._memory.page_ranges_inside(addresses, sizes)
        if not self._events.listening:
            self.applied_count += sink.take(ranges)
            return
        for index, (address, size) in enumerate(zip(addresses.tolist(), sizes.tolist(), strict=True)):
            one = PageRanges(ranges.first[index : index + 1], ranges.end[index : index + 1])
            cleared = sink.take(one)
            self.applied_count += cleared
            self._events.emit(HintApplied(address, size, one.page_count, cleared))
