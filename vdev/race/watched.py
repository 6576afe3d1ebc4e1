"""The real dirty log, handler and migration, with an eye on what they do to hints."""

from collections.abc import Iterator

from host_migrator.dirty_log import DirtyLog
from host_migrator.hint_work import HintWork
from host_migrator.migration import Migration
from vdev.devices.balloon.hinting import Hinting
from vdev.memory import PageRanges
from vdev.race.invariants import Watch

__all__ = ["WatchedLog", "WatchedMigration", "WatchedWork"]


class WatchedLog:
    """A dirty log, and when it was started."""

    def __init__(self, log: DirtyLog, watch: Watch) -> None:
        self._log = log
        self._watch = watch

    @property
    def name(self) -> str:
        """What a report calls it."""
        return self._log.name

    @property
    def deferred(self) -> bool:
        """Whether marks stay until they are cleared."""
        return self._log.deferred

    def start(self) -> None:
        """Note writes from now on."""
        self._log.start()
        self._watch.log_is_on = True

    def take(self) -> Iterator[PageRanges]:
        """Yield the pages written."""
        return self._log.take()

    def clear(self, ranges: PageRanges) -> None:
        """Clear what the last take saw."""
        self._log.clear(ranges)

    def stop(self) -> None:
        """Give the log up."""
        self._log.stop()


class WatchedMigration(Migration):
    """A migration, with an eye on each merge and on each hint that is applied."""

    watch: Watch

    def merge(self) -> int:
        """Merge, and count it."""
        dirty_count = super().merge()
        self.watch.merged(self.stage)
        return dirty_count

    def apply_hint(self, ranges: PageRanges) -> int:
        """Apply a hint, and judge that."""
        marks = self.watch.marks.marks
        pages = ranges.to_pages().tolist()
        before = [page in self.to_send or bool(marks[page]) for page in pages]
        cleared = super().apply_hint(ranges)
        for page, was_recorded in zip(pages, before, strict=True):
            self.watch.applied(page, was_recorded=was_recorded, is_recorded=page in self.to_send or bool(marks[page]))
        return cleared


class WatchedWork(HintWork):
    """Takes hints, and tells the watch which ones.

    The device goes through a batch in order, and refuses a hint or hands it here: so how many it has refused says how
    many came between.
    """

    hinting: Hinting
    is_bitmap: bool
    migration: WatchedMigration

    def take(self, ranges: PageRanges) -> int:
        """Take hints as usual: one for each range, or all of one bitmap."""
        watch = self.migration.watch
        watch.taken(1 if self.is_bitmap else len(ranges.first), self.hinting.refused_count)
        cleared = super().take(ranges)
        if not self.divided:
            watch.handled()
        return cleared
