"""A sync and the application of 10,000 hints of 4 MiB on a guest of 1 TiB, which need no guest: only its bitmaps.

Exit status 0 when each median is under 50 ms.

    python benchmarks/bench_page_set.py --size 1024 --hints 10000
"""

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

from host_migrator.dirty_log import CooperativeDirtyLog
from host_migrator.page_set import PageSet
from vdev.memory import PAGE_SIZE, PageMarks, PageRanges

LIMIT = 0.050
HINT_PAGES = (4 << 20) // PAGE_SIZE
HINTS_PER_CALL = 128
DIRTY_PAGES = 10_000


def empty(pages: PageSet) -> None:
    pages.remove_ranges(PageRanges.of((0, pages.page_count)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024, help="GiB of guest RAM")
    parser.add_argument("--hints", type=int, default=10_000, help="hints of 4 MiB")
    parser.add_argument("--repeat", type=int, default=9)
    options = parser.parse_args()

    page_count = (options.size << 30) // PAGE_SIZE
    generator = np.random.default_rng(1)
    pages = PageSet(page_count)
    marks = PageMarks(page_count)
    marks.marks[:] = 0  # Touched once, as by a guest that has run for a while.
    log = CooperativeDirtyLog(marks)
    blocks = generator.permutation(page_count // HINT_PAGES)[: options.hints].astype(np.int64) * HINT_PAGES
    dirty = generator.integers(0, page_count, DIRTY_PAGES)
    every_other = PageRanges(np.arange(0, 1 << 20, 2), np.arange(1, 1 + (1 << 20), 2))

    def apply_hints(per_call: int) -> None:
        for start in range(0, len(blocks), per_call):
            first = blocks[start : start + per_call]
            pages.remove_ranges(PageRanges(first, first + HINT_PAGES))

    def sync() -> None:
        pages.merge(log.take())

    def mark() -> None:
        marks.marks[dirty] = 1

    cases: list[tuple[str, Callable[[], object], Callable[[], object], bool]] = [
        (f"sync, {DIRTY_PAGES} scattered dirty pages", mark, sync, True),
        ("sync, nothing dirty", lambda: None, sync, True),
        ("sync, 524,288 single pages as ranges", lambda: None, lambda: pages.add_ranges(every_other), False),
        (f"{len(blocks)} hints, {HINTS_PER_CALL} a call", pages.fill, lambda: apply_hints(HINTS_PER_CALL), True),
        (f"{len(blocks)} hints in one call", pages.fill, lambda: apply_hints(len(blocks)), True),
        (f"{len(blocks)} hints one by one", pages.fill, lambda: apply_hints(1), False),
        ("finding no page left to send", lambda: empty(pages), lambda: pages.take_window(0, 1), False),
    ]
    good = True
    for name, prepare, act, limited in cases:
        seconds = []
        for _ in range(options.repeat):
            prepare()
            began = time.perf_counter()
            act()
            seconds.append(time.perf_counter() - began)
        median = statistics.median(seconds)
        good &= not limited or median < LIMIT
        spread = f"{min(seconds) * 1e3:.2f} to {max(seconds) * 1e3:.2f}"
        print(f"{name:42} {median * 1e3:8.2f} ms  ({spread}){'  limit 50 ms' if limited else ''}")
    print(f"page set {pages.words.nbytes >> 20} MiB, marks {marks.marks.nbytes >> 20} MiB; most memory used:", end=" ")
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
