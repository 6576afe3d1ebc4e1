"""The exhaustive search: every state that the two sides and their store buffers can reach, nearest first."""

import time
from array import array
from collections.abc import Callable

from vdev.race.rings.machine import Machine, Move
from vdev.race.rings.scenario import RingScenario
from vdev.race.rings.verdict import RingFinding, RingVerdict

__all__ = ["STATE_LIMIT", "search"]

STATE_LIMIT = 5_000_000
_PROGRESS_STEP = 1 << 14


def search(
    scenario: RingScenario,
    *,
    model: str = "tso",
    limit: int = STATE_LIMIT,
    progress: Callable[[int], None] | None = None,
) -> RingVerdict:
    """Look at every interleaving, up to `limit` states; a finding has the fewest moves that break something.

    `progress` is called now and then with the number of states so far.
    """
    began = time.perf_counter()
    machine = Machine.of(scenario, model)
    start = machine.settled(machine.start)
    states, numbers = [start], {start: 0}
    # How each state was reached first: from which one, and by which move.
    parents, choices = array("q", [-1]), array("b", [0])
    transition_count = 0
    broken = machine.broken(start, at_rest=False)
    at = 0
    while broken is None and at < len(states) < limit:
        state = states[at]
        moves = machine.moves(state)
        if not moves:
            broken = machine.broken(state, at_rest=True)
            if broken is not None:
                break
        transition_count += len(moves)
        for move, reached in moves:
            after = machine.settled(reached)
            if after in numbers:
                continue
            numbers[after] = len(states)
            states.append(after)
            parents.append(at)
            choices.append(2 * move.actor + move.is_flush)
            broken = machine.broken(after, at_rest=False)
            if broken is not None:
                at = len(states) - 1
                break
        else:
            at += 1
            if progress is not None and not at % _PROGRESS_STEP:
                progress(len(states))
    finding = None
    if broken is not None:
        moves_made = []
        while at:
            moves_made.append(Move(choices[at] >> 1, bool(choices[at] & 1)))
            at = parents[at]
        steps = machine.told(moves_made[::-1], settle=True)
        finding = RingFinding(scenario, model, tuple(steps), *broken)
    return RingVerdict(
        scenario=scenario,
        model=model,
        mode="exhaustive",
        state_count=len(states),
        transition_count=transition_count,
        execution_count=machine.execution_count,
        seconds=time.perf_counter() - began,
        complete=finding is not None or at == len(states),
        finding=finding,
    )
