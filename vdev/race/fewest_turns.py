"""The same finding with the fewest turns: acts that touch nothing in common change places until runs are long.

A turn is a run of acts of one actor. Schedules that differ only in the order of acts that touch nothing in common are
equivalent: they lead to the same end (footprint.py). Of these, the one that a person follows best changes the actor as
seldom as it can.
"""

from collections import deque
from collections.abc import Sequence

from vdev.errors import UserError
from vdev.race.finding import replay
from vdev.race.footprint import Footprints
from vdev.race.verdict import Act, Finding
from vdev.race.world import World

__all__ = ["count_turns", "with_fewest_turns"]

_MAX_STATES = 50_000
"""Ways that are looked at before a schedule is left as it is."""


def count_turns(acts: Sequence[Act]) -> int:
    """Return how often the actor changes, and one for the first."""
    return sum(number == 0 or acts[number - 1].actor != act.actor for number, act in enumerate(acts))


def with_fewest_turns(finding: Finding) -> Finding:
    """Return the finding with its acts in an equivalent order of fewest turns; equal findings give equal ones.

    It has the same acts, loses the same pages, and its last act breaks what the last act broke. Where that does not
    come true when it is done again, or the schedule is too long to look for it, the finding stays as it is.
    """
    order = _reorder(finding.acts, _befores(finding))
    if order is None or count_turns(order) >= count_turns(finding.acts):
        return finding
    try:
        found = replay(finding.combination, finding.bound, order, broken=finding.broken)
    except UserError:  # an act that is not possible at its new place
        return finding
    is_same = found.lost == finding.lost and found.moments[-1].broken == finding.moments[-1].broken
    return found if is_same else finding


def _befores(finding: Finding) -> list[int]:
    """Return for each act, as a set of bits, the earlier ones that must stay before it."""
    world = World(finding.combination, finding.bound)
    footprints = Footprints(world)
    seen: list[tuple[Act, int, int]] = []
    befores = []
    for act in finding.acts:
        reads, writes = footprints.of(act)
        before = 0
        for number, (other, other_reads, other_writes) in enumerate(seen):
            if act.actor == other.actor or writes & (other_reads | other_writes) or other_writes & reads:
                before |= 1 << number
        seen.append((act, reads, writes))
        befores.append(before)
        world.do(act)
    if befores:
        befores[-1] = (1 << len(befores) - 1) - 1  # what is found, is found at the last act
    return befores


def _reorder(acts: Sequence[Act], befores: Sequence[int]) -> tuple[Act, ...] | None:
    """Look for the fewest turns, breadth first; None when it takes too long.

    A turn is made as long as it can be: what is done earlier by the same actor is never in the way later.
    """
    chains = [[n for n, act in enumerate(acts) if act.actor == actor] for actor in dict.fromkeys(a.actor for a in acts)]
    everything = (1 << len(acts)) - 1
    came_from: dict[int, tuple[int, list[int]]] = {0: (0, [])}
    waiting = deque([0])
    while waiting and everything not in came_from:
        done = waiting.popleft()
        for turn in sorted(filter(None, (_longest_turn(chain, befores, done) for chain in chains))):
            after = done | sum(1 << number for number in turn)
            if after not in came_from:
                came_from[after] = done, turn
                waiting.append(after)
        if len(came_from) > _MAX_STATES:
            return None
    order: list[int] = []
    done = everything
    while done:
        done, turn = came_from[done]
        order[:0] = turn
    return tuple(acts[number] for number in order)


def _longest_turn(chain: Sequence[int], befores: Sequence[int], done: int) -> list[int]:
    """Return what of an actor's acts can be done now, one after the other."""
    turn = []
    for number in chain:
        if done >> number & 1:
            continue
        if befores[number] & ~done:
            break
        done |= 1 << number
        turn.append(number)
    return turn
