"""What is watched at every act: the invariants by name, and the little that must be remembered to judge them."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from host_migrator.migration import Migration, Stage
from spec.balloon import CommandId
from vdev.devices.balloon import BalloonDevice, HintState
from vdev.memory import PageMarks
from vdev.race.verdict import Hint

__all__ = ["INVARIANTS", "DataMarks", "Watch", "WatchedHint"]

NO_SYNC_BETWEEN = "1 no-sync-between"
NO_WRITE_ERASED = "2 no-write-erased"
ONE_AT_A_TIME = "3 one-at-a-time"
LOG_BEFORE_REQUEST = "4 log-before-request"
ID_AS_QUEUED = "5 id-as-queued"
NOTHING_AFTER_LAST_SYNC = "6 nothing-after-last-sync"
COUNT_IS_POPCOUNT = "7 count-is-popcount"
SOURCE_UNTOUCHED = "8 source-untouched"
DONE_ONCE = "9 done-once"
PROGRESS = "11 progress"
FRESH_START = "12 fresh-start"

INVARIANTS = (
    NO_SYNC_BETWEEN,
    NO_WRITE_ERASED,
    ONE_AT_A_TIME,
    LOG_BEFORE_REQUEST,
    ID_AS_QUEUED,
    NOTHING_AFTER_LAST_SYNC,
    COUNT_IS_POPCOUNT,
    SOURCE_UNTOUCHED,
    DONE_ONCE,
    PROGRESS,
    FRESH_START,
)
"""Their names, in the order of docs/race.md."""


class DataMarks(PageMarks):
    """D: marks of the data pages, which are the first of RAM. What else is stored is only noted."""

    def __init__(self, page_count: int) -> None:
        super().__init__(page_count)
        self.stored = False
        """Whether anything was stored to RAM since this was last set to false."""

    def mark(self, first: int, end: int) -> None:
        """Mark those of the pages that are data."""
        self.stored = True
        if first < self.page_count:
            super().mark(first, min(end, self.page_count))

    def mark_pages(self, pages: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
        """Mark those of the pages that are data."""
        self.stored = True
        super().mark_pages(pages[pages < self.page_count])


@dataclass(frozen=True)
class WatchedHint:
    """A hint on its way; `written` are those of its pages that were written since it was collected.

    `is_taken` once the device found that it counts, and handed it on.
    """

    pages: tuple[int, ...]
    collected_at_sync: int
    where: str
    written: frozenset[int] = frozenset()
    applied: frozenset[int] = frozenset()
    is_taken: bool = False


class Watch:
    """Looks at what the acts do, and keeps the names of the invariants that the present one breaks in `broken`."""

    def __init__(self, marks: DataMarks) -> None:
        self.marks = marks
        self.broken: set[str] = set()
        self.sync_count = 0
        """Merges by anybody."""
        self.hints: tuple[WatchedHint, ...] = ()
        self.ids: tuple[int, ...] = ()
        """What the id buffers in the queue said when they were queued."""
        self.ids_seen: frozenset[int] = frozenset()
        """Ids that the host read."""
        self.log_is_on = False
        self.was_asked = False
        self.done_count = 0
        self.was_done = False
        self.refused_before = 0
        """How many hints the device had refused when it popped last."""
        self.checked_at: int | None = None
        self.is_frozen = False
        """Whether the last sync was made."""

    # The guest

    def collected(self, hints: Iterable[tuple[int, ...]]) -> None:
        """These hints were collected."""
        self.hints += tuple(WatchedHint(pages, self.sync_count, "collected") for pages in hints)

    def dropped(self) -> None:
        """What was collected is not to be queued any more."""
        self.hints = tuple(hint for hint in self.hints if hint.where != "collected")

    def moved(self, before: str, after: str) -> None:
        """All hints that were at one place went to the next."""
        self.hints = tuple(replace(hint, where=after) if hint.where == before else hint for hint in self.hints)

    def written(self, page: int) -> None:
        """The guest wrote a page."""
        self.hints = tuple(
            replace(hint, written=hint.written | {page}) if page in hint.pages else hint for hint in self.hints
        )

    # The handler

    def read_ids(self, ids: list[int]) -> None:
        """The host takes id buffers out of the queue, which say this."""
        if tuple(ids) != self.ids:
            self.broken.add(ID_AS_QUEUED)
        self.ids = ()
        self.ids_seen |= frozenset(ids)

    def popped(self, refused_count: int) -> None:
        """The device pops all that is queued; so many hints it has refused before."""
        self.moved("queued", "popped")
        self.refused_before = refused_count

    def taken(self, count: int, refused_count: int) -> None:
        """The device hands on so many of the hints popped: those that follow what it refused and handed on already."""
        open_ones = [n for n, hint in enumerate(self.hints) if hint.where == "popped" and not hint.is_taken]
        first = refused_count - self.refused_before
        chosen = open_ones[first : first + count]
        self.hints = tuple(
            replace(hint, is_taken=True) if number in chosen else hint for number, hint in enumerate(self.hints)
        )

    def handled(self) -> None:
        """What was handed on was applied at once, if at all."""
        self.hints = tuple(hint for hint in self.hints if not hint.is_taken)

    def returned(self) -> None:
        """What was popped is the driver's again."""
        self.hints = tuple(hint for hint in self.hints if hint.where != "popped")

    def applied(self, page: int, *, was_recorded: bool, is_recorded: bool) -> None:
        """A hint was applied to a page whose record (a bit in M or D) was there before and is there after."""
        number = next((number for number, hint in enumerate(self.hints) if _is_next(hint, page)), None)
        if number is None:
            return
        hint = self.hints[number]
        if hint.collected_at_sync != self.sync_count:
            self.broken.add(NO_SYNC_BETWEEN)
        if self.checked_at is not None and self.checked_at != self.sync_count:
            self.broken.add(ONE_AT_A_TIME)
        if page in hint.written and was_recorded and not is_recorded:
            self.broken.add(NO_WRITE_ERASED)
        if self.is_frozen:
            self.broken.add(NOTHING_AFTER_LAST_SYNC)
        if self.was_done:
            self.broken.add(DONE_ONCE)
        changed = replace(hint, applied=hint.applied | {page})
        self.hints = (*self.hints[:number], changed, *self.hints[number + 1 :])

    # The migrator

    def merged(self, stage: Stage) -> None:
        """D was merged into M."""
        self.sync_count += 1
        if stage is Stage.STOPPED:
            self.is_frozen = True
            self.marks.stored = False

    def told(self, device: BalloonDevice) -> None:
        """The driver is interrupted."""
        is_asked = device.hinting.state in (HintState.REQUESTED, HintState.START)
        self.was_asked |= is_asked
        if is_asked and not self.log_is_on:
            self.broken.add(LOG_BEFORE_REQUEST)

    def told_config(self, device: BalloonDevice) -> None:
        """The driver is interrupted for a new configuration."""
        if int(device.config["free_page_hint_cmd_id"]) == CommandId.DONE:
            self.done_count += 1
            self.was_done = True
            if self.done_count > 1:
                self.broken.add(DONE_ONCE)

    def look_at(self, migration: Migration, device: BalloonDevice) -> None:
        """Judge what can be seen after each act."""
        to_send = migration.to_send
        if to_send.count != sum(word.bit_count() for word in to_send.words.tolist()):
            self.broken.add(COUNT_IS_POPCOUNT)
        if self.is_frozen and self.marks.stored:
            self.marks.stored = False
            self.broken.add(NOTHING_AFTER_LAST_SYNC)
        if device.hinting.state is HintState.START and device.hinting.command_id not in self.ids_seen:
            self.broken.add(FRESH_START)

    def began(self, migration: Migration) -> None:
        """The migration began."""
        if migration.to_send.count != migration.to_send.page_count:
            self.broken.add(FRESH_START)

    def ended(self) -> None:
        """The migration is over, in success or not."""
        if self.done_count != int(self.was_asked):
            self.broken.add(DONE_ONCE)
        self.is_frozen = False

    # What others ask

    def shown_hints(self) -> tuple[Hint, ...]:
        """Return the outstanding hints."""
        return tuple(Hint(hint.pages, hint.collected_at_sync, hint.where) for hint in self.hints)

    def digest_parts(self) -> tuple[object, ...]:
        """Return plain values that are equal where the same acts will break the same."""
        hints = [
            (
                hint.pages,
                hint.collected_at_sync == self.sync_count,
                hint.where,
                hint.is_taken,
                *map(sorted, (hint.written, hint.applied)),
            )
            for hint in self.hints
        ]
        check = None if self.checked_at is None else self.checked_at == self.sync_count
        flags = (self.log_is_on, self.was_asked, self.done_count, self.was_done, self.is_frozen)
        return (hints, self.ids, check, *flags)


def _is_next(hint: WatchedHint, page: int) -> bool:
    return hint.is_taken and page in hint.pages and page not in hint.applied
