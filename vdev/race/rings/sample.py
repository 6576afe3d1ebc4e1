"""What is too large to be searched: many schedules by chance, from a seed.

`random` takes any possible move at each step. `pct` (probabilistic concurrency testing) gives the two sides and their
store buffers priorities, always moves the first that can, and lowers the one that moves at `depth` - 1 places chosen by
chance: a fault that needs that few switches is found with a known probability.
"""

import random
import time
from collections.abc import Callable
from typing import Protocol

from vdev.errors import UserError
from vdev.race.rings.machine import Machine, Move, State
from vdev.race.rings.scenario import RingScenario
from vdev.race.rings.verdict import RingFinding, RingVerdict

__all__ = ["sample"]

_PROGRESS_STEP = 100
_FIRST_LENGTH = 100
"""Steps that a schedule is thought to have before one was seen."""


def sample(
    scenario: RingScenario,
    *,
    mode: str = "random",
    runs: int = 1000,
    seed: int = 0,
    depth: int = 3,
    model: str = "tso",
    progress: Callable[[int], None] | None = None,
) -> RingVerdict:
    """Try `runs` schedules, up to the first that breaks something.

    `progress` is called now and then with the number of schedules so far. Raises UserError for an unknown mode.
    """
    if mode not in ("random", "pct"):
        raise UserError(f"mode cannot be {mode!r}; choose one of random, pct")
    began = time.perf_counter()
    chance = random.Random(seed)
    machine = Machine.of(scenario, model)
    seen = {machine.start}
    transition_count = run_count = 0
    length = _FIRST_LENGTH
    finding = None
    while finding is None and run_count < runs:
        pick: _Pick = _anything(chance) if mode == "random" else _Priorities(chance, depth, length)
        moves, broken = _walk(machine, pick, seen)
        run_count += 1
        transition_count += len(moves)
        length = max(length, len(moves))
        if broken is not None:
            finding = RingFinding(scenario, model, tuple(machine.told(moves)), *broken)
        if progress is not None and not run_count % _PROGRESS_STEP:
            progress(run_count)
    return RingVerdict(
        scenario=scenario,
        model=model,
        mode=mode,
        state_count=len(seen),
        transition_count=transition_count,
        execution_count=machine.execution_count,
        seconds=time.perf_counter() - began,
        complete=finding is not None,
        finding=finding,
        schedule_count=run_count,
        seed=seed,
    )


Moves = list[tuple[Move, State]]


class _Pick(Protocol):
    def __call__(self, moves: Moves, /) -> tuple[Move, State]: ...


def _walk(machine: Machine, pick: _Pick, seen: set[State]) -> tuple[list[Move], tuple[str, str] | None]:
    state = machine.start
    made: list[Move] = []
    while True:
        moves = machine.moves(state)
        broken = machine.broken(state, at_rest=not moves)
        if broken is not None or not moves:
            return made, broken
        move, state = pick(moves)
        made.append(move)
        seen.add(state)


def _anything(chance: random.Random) -> _Pick:
    def pick(moves: Moves, /) -> tuple[Move, State]:
        return chance.choice(moves)

    return pick


class _Priorities:
    """The two sides and their store buffers, the first that can move first."""

    def __init__(self, chance: random.Random, depth: int, length: int) -> None:
        self._order = [Move(actor, is_flush) for actor in (0, 1) for is_flush in (False, True)]
        chance.shuffle(self._order)
        self._changes = {chance.randrange(length) for _ in range(depth - 1)}
        self._step_count = 0

    def __call__(self, moves: Moves, /) -> tuple[Move, State]:
        possible = dict(moves)
        move = next(move for move in self._order if move in possible)
        if self._step_count in self._changes:
            self._order.remove(move)
            self._order.append(move)
            move = next(move for move in self._order if move in possible)
        self._step_count += 1
        return move, possible[move]
