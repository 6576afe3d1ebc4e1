"""A migration's own state and what comes next in it. No I/O: whoever holds it sends, waits, and stops the guest.

All state is in plain fields, so a migration can be copied between any two acts and gone on with.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from host_migrator.dirty_log import DirtyLog
from host_migrator.figures import SourceFigures
from host_migrator.page_set import PageSet
from host_migrator.strategies import HintTaker, Strategy
from vdev.memory import GuestMemory, PageRanges

__all__ = ["STEPS", "Migration", "Stage", "Step", "Tally"]


class Stage(StrEnum):
    """Where a migration is."""

    NEW = "new"
    WAITING = "waiting"
    """The guest was asked, and nothing is sent before the answer is whole or the wait is given up."""
    RUNNING = "running"
    """Passes go on while the guest runs."""
    STOPPED = "stopped"
    """The guest is stopped and the last sync was made: one pass more."""
    COMPLETED = "completed"
    OVER = "over"


class Step(StrEnum):
    """An act of the migrator; the value is its name in `docs/race.md`."""

    START = "start"
    GO_ON = "go on"
    TAKE = "take"
    SEND = "send"
    ADVANCE = "advance"
    SYNC = "sync"
    STOP = "stop"
    COMPLETE = "complete"
    NOTHING = "nothing"


STEPS: Mapping[Stage, frozenset[Step]] = {
    Stage.NEW: frozenset({Step.START}),
    Stage.WAITING: frozenset({Step.GO_ON}),
    Stage.RUNNING: frozenset({Step.TAKE, Step.SEND, Step.ADVANCE, Step.SYNC, Step.STOP}),
    Stage.STOPPED: frozenset({Step.TAKE, Step.SEND, Step.COMPLETE}),
    Stage.COMPLETED: frozenset(),
    Stage.OVER: frozenset(),
}
"""Stage -> the acts that are legal in it. `clean_up` always is."""

_ONE_STEP = {
    Stage.NEW: Step.START,
    Stage.WAITING: Step.GO_ON,
    Stage.COMPLETED: Step.NOTHING,
    Stage.OVER: Step.NOTHING,
}
_NO_PAGES = np.empty(0, np.int64)


@dataclass
class Tally:
    """What a migration counts and never looks at."""

    hinted_count: int = 0
    """Pages that hints took out of the set still to send."""


class Migration:
    """The set of pages still to send, the dirty log that adds to it, and the strategy whose hints take from it.

    The acts raise ValueError where they are not legal. After `sync_limit` syncs (the first, one after each pass, the
    last with the guest stopped) the migration ends; without it, whoever holds the migration calls `stop` when it likes.
    With `discards`, the source page of a hint is given back to the system at once.
    """

    def __init__(
        self,
        memory: GuestMemory,
        dirty_log: DirtyLog,
        strategy: Strategy,
        *,
        sync_limit: int | None = None,
        discards: bool = False,
        tally: Tally | SourceFigures | None = None,
    ) -> None:
        self.memory = memory
        self.dirty_log = dirty_log
        self.strategy = strategy
        self.sync_limit = sync_limit
        self.discards = discards
        self.stage = Stage.NEW
        self.to_send = PageSet(memory.page_count)
        self.cursor = 0
        """Where the pass is: what is added below it waits for the next one."""
        self.pass_count = 0
        """Passes begun."""
        self.sync_count = 0
        """Merges by the migrator; those of a handler do not count."""
        self.in_flight: npt.NDArray[np.int64] = _NO_PAGES
        """Pages that were taken and are not sent yet."""
        self.tally = tally or Tally()

    @property
    def next_step(self) -> Step:
        """What comes next when nobody interferes."""
        if (only := _ONE_STEP.get(self.stage)) is not None:
            return only
        if len(self.in_flight):
            return Step.SEND
        if self.next_page() is not None:
            return Step.TAKE
        if self.stage is Stage.STOPPED:
            return Step.COMPLETE
        if self.sync_limit is not None and self.pass_count + 1 >= self.sync_limit:
            return Step.STOP
        return Step.ADVANCE if self.strategy.advance_due else Step.SYNC

    def next_page(self) -> int | None:
        """Return the page that the pass comes to next, None when it is through."""
        return self.to_send.first_from(self.cursor)

    # The migrator's acts

    def start(self, hints: HintTaker) -> int:
        """Begin with every page to send, sync, and ask the guest, whose hints go to `hints`; returns pages dirty."""
        self._check(Step.START)
        # The log is on before the guest can see a request, or a write after its answer could go unseen.
        self.dirty_log.start()
        self.to_send.fill()
        self.strategy.set_up(hints)
        self.stage = Stage.WAITING if self.strategy.waits_for_answer else Stage.RUNNING
        return self._sync(running=True)

    def go_on(self) -> int:
        """End the wait for the answer, and sync; returns pages dirty."""
        self._check(Step.GO_ON)
        self.stage = Stage.RUNNING
        dirty_count = self._sync(running=True)
        self.pass_count = 1
        return dirty_count

    def take(self, limit: int) -> npt.NDArray[np.int64]:
        """Take the next pages of the pass, at most `limit`, out of the set, before anybody reads them.

        A write from now on is in the dirty log. None come when a hint took the rest.
        """
        self._check(Step.TAKE)
        if len(self.in_flight):
            raise ValueError("what was taken before is not sent yet")
        self.in_flight, self.cursor = self.to_send.take_window(self.cursor, limit)
        if self.dirty_log.deferred:
            self.dirty_log.clear(PageRanges.of_pages(self.in_flight))
        return self.in_flight

    def sent(self) -> None:
        """What was taken is at the destination."""
        self._check(Step.SEND)
        self.in_flight = _NO_PAGES

    def advance(self) -> None:
        """Move the command id on, ahead of the sync."""
        self._check(Step.ADVANCE)
        self.strategy.advance()

    def sync(self) -> int:
        """Merge the dirty log, with no hint between, and begin the next pass; returns pages dirty."""
        self._check(Step.SYNC)
        return self._sync(running=True)

    def stop(self) -> int:
        """Make the last sync; the guest is stopped, and its hints are not served any more. Returns pages dirty."""
        self._check(Step.STOP)
        self.stage = Stage.STOPPED
        return self._sync(running=False)

    def complete(self) -> None:
        """The guest runs at the destination."""
        self._check(Step.COMPLETE)
        self.stage = Stage.COMPLETED
        self.strategy.complete()

    def clean_up(self) -> None:
        """The migration is over, in success, failure or cancellation; a second call does nothing."""
        if self.stage is not Stage.OVER:
            self.stage = Stage.OVER
            self.strategy.clean_up()
            self.dirty_log.stop()

    # The handler's

    def apply_hint(self, ranges: PageRanges) -> int:
        """Take pages that were free out of the set; returns how many were in it."""
        cleared = self.to_send.remove_ranges(ranges)
        self.tally.hinted_count += cleared
        if self.dirty_log.deferred:
            self.dirty_log.clear(ranges)
        if self.discards:
            self.memory.discard(ranges)
        return cleared

    def merge(self) -> int:
        """Merge the dirty log and tell the strategy nothing; returns pages dirty."""
        return self.to_send.merge(self.dirty_log.take())

    # Inside

    def _check(self, step: Step) -> None:
        if step not in STEPS[self.stage]:
            raise ValueError(f"a migration that is {self.stage} cannot {step}")

    def _sync(self, *, running: bool) -> int:
        self.strategy.before_sync()
        dirty_count = self.merge()
        self.strategy.after_sync(running)
        self.sync_count += 1
        self.pass_count += 1
        self.cursor = 0
        return dirty_count
