"""Some orders of one combination's acts, where there are too many to look at them all, and the verdict."""

from vdev.race.combination import Bound, Combination
from vdev.race.explore import broken_findings
from vdev.race.explorer import Progress
from vdev.race.fewest_turns import with_fewest_turns
from vdev.race.finding import replay
from vdev.race.shrink import shrink
from vdev.race.verdict import Verdict
from vdev.race.walker import Chooser, PriorityChooser, RandomChooser, walk
from vdev.race.world import World

__all__ = ["pct", "random_walks"]


def random_walks(
    combination: Combination, bound: Bound, *, count: int, seed: int, on_progress: Progress | None = None
) -> Verdict:
    """Look at `count` random orders; a loss is made as short as it goes. The same seed gives the same verdict.

    `on_progress` is told the schedules and transitions so far, and the longest schedule.
    """
    return _walks(combination, bound, "random", RandomChooser(seed), count, seed, on_progress)


def pct(
    combination: Combination,
    bound: Bound,
    *,
    depth: int,
    count: int,
    seed: int,
    on_progress: Progress | None = None,
) -> Verdict:
    """Look at `count` orders by random priorities of the actors, which change `depth` - 1 times in each.

    A loss that needs `depth` acts in order, among n acts of k actors, is found by each with a probability of
    1 / (k * n ** (depth - 1)) at least (Burckhardt et al., "A Randomized Scheduler with Probabilistic Guarantees of
    Finding Bugs"). It is made as short as it goes. The same seed gives the same verdict.
    """
    return _walks(combination, bound, "pct", PriorityChooser(seed, depth), count, seed, on_progress)


def _walks(
    combination: Combination,
    bound: Bound,
    mode: str,
    chooser: Chooser,
    count: int,
    seed: int,
    on_progress: Progress | None,
) -> Verdict:
    walked = walk(World(combination, bound), chooser, count, on_progress=on_progress)
    loss = None
    if walked.loss is not None:
        smallest, acts = shrink(lambda smaller: World(combination, smaller), bound, walked.loss)
        loss = with_fewest_turns(replay(combination, smallest, acts))
    return Verdict(
        combination,
        bound,
        mode,
        len(walked.keys),
        walked.transition_count,
        walked.seconds,
        False,
        loss,
        broken_findings(combination, bound, walked.broken),
        walked.schedule_count,
        seed,
    )
