"""Free page hinting: which pages the guest says are free while it migrates ("Free Page Hinting").

The migrator asks with `request`, takes the hints through `sink`, and says `stop` before it merges the dirty log and
`done` when it needs no more. Everything here is synchronous, so applying a hint, checking the id and a merge in the
same task exclude each other.

Hinting skips pages, so it is only right where nobody needs a skipped page's content. Two uses must not be combined
with it, and this is the place that says so: post-copy migration, where the destination could demand a page that was
skipped; and a guest that relies on the content of its free pages (PAGE_POISON negotiated with a pattern other than 0),
for which `request` gives None.
"""

from collections.abc import Callable

import numpy as np

from spec.balloon import COMMAND_ID_SIZE, FIRST_COMMAND_ID
from vdev.devices.balloon.hint_states import HintInput, HintState, next_hint_state, shown_command_id
from vdev.errors import DriverViolation
from vdev.events import Emitter, HintApplied, HintRefused, HintStateChanged
from vdev.memory import GuestMemory
from vdev.memory.pages import PAGE_SIZE, PageRanges
from vdev.virtqueue.chain import ChainBatch
from vdev.virtqueue.queue import DeviceQueue

__all__ = ["HintSink", "Hinting"]

HintSink = Callable[[PageRanges], int]
"""Takes the pages of hints; returns how many of them left the set still to send."""

_CLAUSE = "Memory Balloon Device / Device Operation / Free Page Hinting"

_REFUSALS = {
    HintState.STOP: "hinting is stopped",
    HintState.REQUESTED: "the driver has not echoed the current id",
    HintState.DONE: "hinting is done",
    HintState.START: "nobody takes hints",
}


class Hinting:
    """The STOP / REQUESTED / START / DONE machine of one balloon, and the queue that drives it.

    `show` stores free_page_hint_cmd_id, and tells the driver if its second argument says so. `is_usable` says whether
    the driver negotiated hints, the device works, and no content of free pages is relied upon.
    """

    def __init__(
        self,
        memory: GuestMemory,
        *,
        show: Callable[[int, bool], None],
        is_usable: Callable[[], bool],
        events: Emitter,
    ) -> None:
        self.sink: HintSink | None = None
        self.state = HintState.STOP
        self.command_id = FIRST_COMMAND_ID - 1
        """The last id asked for; they count up from FIRST_COMMAND_ID and wrap back there."""
        self.applied_count = 0
        """Pages that hints took out of the set still to send."""
        self.refused_count = 0
        """Hints (buffers) that were ignored."""
        self._memory = memory
        self._show = show
        self._is_usable = is_usable
        self._events = events

    def request(self) -> int | None:
        """Ask the driver for hints under a new id and return it.

        None when there is nobody to ask: hints not negotiated, driver not up, device broken, free pages poisoned.
        """
        if not self._is_usable():
            return None
        self.command_id = FIRST_COMMAND_ID if self.command_id == 0xFFFF_FFFF else self.command_id + 1
        self._move(HintInput.REQUEST)
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

    def _move(self, what: HintInput) -> None:
        after = next_hint_state(self.state, what)
        if after is None:
            return
        before, self.state = self.state, after
        if self._events.listening:
            self._events.emit(HintStateChanged(before.name, after.name, self.command_id))
        is_news = what in (HintInput.REQUEST, HintInput.STOP, HintInput.DONE)
        self._show(shown_command_id(after, self.command_id), is_news)

    def handle(self, queue: DeviceQueue) -> None:
        """Take what the driver posted, in its order, and give every buffer back with nothing written.

        An ignored hint goes back like any other: a Linux guest waits for room in this queue without end.
        Raises DriverViolation for an id that is not 4 bytes, and a hint that is not made of whole pages.
        """
        batch = queue.pop_batch()
        if not len(batch):
            return
        self._check_pages(batch, queue.number)
        first = 0
        for position in np.unique(batch.segment_chain[~batch.writable]).tolist():
            self._take_pages(batch, first, position)
            self._take_id(batch, position, queue.number)
            first = position
        self._take_pages(batch, first, len(batch))
        queue.push_batch(batch.heads, np.zeros(len(batch), np.int64))

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

    def _take_id(self, batch: ChainBatch, position: int, number: int) -> None:
        chain = batch.chain(position)
        if chain.readable_size != COMMAND_ID_SIZE:
            raise DriverViolation(
                _CLAUSE,
                f"an id buffer of {chain.readable_size} bytes, not {COMMAND_ID_SIZE}",
                queue=number,
                descriptor=chain.head,
            )
        command_id = int.from_bytes(chain.read(self._memory), "little")
        self._move(HintInput.ID_ECHOED if command_id == self.command_id else HintInput.OTHER_ID)

    def _take_pages(self, batch: ChainBatch, first: int, end: int) -> None:
        """Apply or refuse the hints of the chains from position `first` up to `end`."""
        low, high = np.searchsorted(batch.segment_chain, (first, end)).tolist()
        chosen = np.flatnonzero(batch.writable[low:high]) + low
        if not len(chosen):
            return
        addresses, sizes = batch.addresses[chosen], batch.sizes[chosen]
        sink = self.sink if self.state is HintState.START else None
        if sink is None:
            self.refused_count += len(chosen)
            if self._events.listening:
                reason = _REFUSALS[self.state]
                for address, size in zip(addresses.tolist(), sizes.tolist(), strict=True):
                    self._events.emit(HintRefused(address, size, reason))
            return
        ranges = self._memory.page_ranges_inside(addresses, sizes)
        if not self._events.listening:
            self.applied_count += sink(ranges)
            return
        for index, (address, size) in enumerate(zip(addresses.tolist(), sizes.tolist(), strict=True)):
            one = PageRanges(ranges.first[index : index + 1], ranges.end[index : index + 1])
            cleared = sink(one)
            self.applied_count += cleared
            self._events.emit(HintApplied(address, size, one.page_count, cleared))
