"""Every order of one combination's acts within a bound, and the verdict."""

from collections.abc import Mapping, Sequence

from vdev.race.combination import Bound, Combination
from vdev.race.explorer import Explorer, Limits, Progress
from vdev.race.fewest_turns import with_fewest_turns
from vdev.race.finding import replay
from vdev.race.verdict import Act, Finding, Verdict
from vdev.race.world import World

__all__ = ["broken_findings", "explore"]


def explore(
    combination: Combination,
    bound: Bound,
    *,
    reduction: bool = True,
    on_progress: Progress | None = None,
    max_states: int | None = None,
    max_seconds: float | None = None,
) -> Verdict:
    """Look at every order within the bound, shortest first; the loss found is a shortest one, with the fewest turns.

    `reduction` leaves out orders that cannot matter. After a limit the verdict is not complete.
    """
    world = World(combination, bound)
    limits = Limits(max_states, max_seconds)
    found = Explorer(world, reduction=reduction, limits=limits, on_progress=on_progress).run()
    return Verdict(
        combination,
        bound,
        "exhaustive",
        found.state_count,
        found.transition_count,
        found.seconds,
        found.complete,
        with_fewest_turns(replay(combination, bound, found.loss)) if found.loss is not None else None,
        broken_findings(combination, bound, found.broken),
    )


def broken_findings(combination: Combination, bound: Bound, broken: Mapping[str, Sequence[Act]]) -> dict[str, Finding]:
    """Return the schedules that break invariants as findings, in the order of the invariants."""
    found = sorted(broken.items(), key=lambda item: int(item[0].split()[0]))
    return {name: with_fewest_turns(replay(combination, bound, acts, broken=name)) for name, acts in found}
