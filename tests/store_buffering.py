"""One half of a race between two processes, to be run as a program: store mine, (fence,) load yours.

Both halves can only miss each other's store if a processor let its load overtake its own store. The halves
meet before every iteration, so that most of them truly race.

Arguments: half (0 or 1), memfd, iterations, fence (0 or 1).
"""

import mmap
import os
import sys

from vdev.memory.order import full_fence

LINE = 16
"""32-bit words of a cache line."""


def area_size(count):
    """Bytes of shared memory: two words of progress and two results per iteration, each on a line of its own."""
    return 4 * LINE * (2 + 4 * count)


def words_of(fd, count):
    return memoryview(mmap.mmap(fd, area_size(count))).cast("I")


def results_of(words, count):
    """What each half saw of the other, as two lists of 0 and 1."""
    return [[words[LINE * (2 + 4 * turn + 2 + half)] for turn in range(count)] for half in (0, 1)]


def run(half, fd, count, fence):
    words = words_of(fd, count)
    mine, yours = LINE * half, LINE * (1 - half)
    for turn in range(count):
        base = LINE * (2 + 4 * turn)
        my_store, your_store, my_result = base + mine, base + yours, base + 2 * LINE + mine
        words[mine] = turn + 1
        spins = 0
        while words[yours] <= turn:
            spins += 1
            if spins > 200:
                os.sched_yield()  # the other half may need this processor
        words[my_store] = 1
        if fence:
            full_fence()
        words[my_result] = words[your_store]


if __name__ == "__main__":
    half, fd, count, fence = map(int, sys.argv[1:])
    run(half, fd, count, bool(fence))
