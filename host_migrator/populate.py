"""Faults the destination's memory in ahead of the stream, so that the stream does not wait for fresh pages."""

import threading
from types import TracebackType

from vdev.memory import PAGE_SIZE, GuestMemory

__all__ = ["PopulateAhead"]

_STEP_SIZE = 4 << 20


class PopulateAhead:
    """A thread that keeps `ahead_size` bytes of memory behind the stream's place populated. A context manager.

    It populates no more pages than were loaded and a window besides, so a guest with little content in a large memory
    does not become resident as a whole.
    """

    def __init__(self, memory: GuestMemory, ahead_size: int) -> None:
        self._memory = memory
        self._ahead_count = ahead_size // PAGE_SIZE
        self._cursor = 0
        self._budget = self._ahead_count
        self._stopped = False
        self._moved = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="populate-ahead", daemon=True)

    def __enter__(self) -> "PopulateAhead":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop within one step, about a millisecond."""
        with self._moved:
            self._stopped = True
            self._moved.notify()
        self._thread.join()

    def advanced(self, cursor: int, page_count: int) -> None:
        """Say that the stream brought the content of `page_count` more pages, up to page `cursor`."""
        with self._moved:
            self._budget += page_count
            if cursor > self._cursor:
                self._cursor = cursor
                self._moved.notify()

    def _run(self) -> None:
        populated = 0
        while (step := self._wait_step(populated)) is not None:
            first, populated = step
            for region in self._memory.regions:
                base = self._memory.region_first_page(region)
                low = max(first - base, 0) * PAGE_SIZE
                high = min((populated - base) * PAGE_SIZE, region.size)
                if low < high:
                    region.backing.populate(low, high - low)

    def _wait_step(self, populated: int) -> tuple[int, int] | None:
        # A jump of the cursor leaves what lies between alone: those pages were skipped, or are zero.
        with self._moved:
            while not self._stopped:
                first = max(populated, self._cursor)
                end = min(self._cursor + self._ahead_count, first + self._budget, self._memory.page_count)
                if first < end and self._cursor:
                    end = min(first + _STEP_SIZE // PAGE_SIZE, end)
                    self._budget -= end - first
                    return first, end
                self._moved.wait()
        return None
