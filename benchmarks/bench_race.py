"""States and transitions a second of the lab, and what sleep sets save. Prints a table; asserts nothing.

python benchmarks/bench_race.py
"""

import time

from vdev.race.combination import Bound, Combination
from vdev.race.explorer import Explored, Explorer
from vdev.race.world import World

COMBINATIONS = (
    Combination("command-id"),
    Combination("command-id", dirty_log="deferred-clear", holds="until-used"),
    Combination("ignore-late"),
    Combination("flush-after-sync"),
)
BOUND = Bound()


def explored(combination: Combination, *, reduction: bool) -> tuple[Explored, float]:
    """Explore and return what was found, and the seconds of CPU time that it took."""
    began = time.process_time()
    found = Explorer(World(combination, BOUND), reduction=reduction).run()
    return found, time.process_time() - began


def main() -> None:
    """Print one line for each combination."""
    print(f"bound: {BOUND}")
    heads = ("states", "transitions", "left out", "s", "states/s", "trans/s", "whole s")
    print(f"{'combination':45} " + " ".join(f"{head:>11}" for head in heads))
    for combination in COMBINATIONS:
        found, seconds = explored(combination, reduction=True)
        _, whole_seconds = explored(combination, reduction=False)
        total = found.transition_count + found.skipped_count
        values = (
            found.state_count,
            found.transition_count,
            f"{found.skipped_count / total:.0%}",
            f"{seconds:.1f}",
            f"{found.state_count / seconds:.0f}",
            f"{found.transition_count / seconds:.0f}",
            f"{whole_seconds:.1f}",
        )
        print(f"{combination.label:45} " + " ".join(f"{value:>11}" for value in values))


if __name__ == "__main__":
    main()
