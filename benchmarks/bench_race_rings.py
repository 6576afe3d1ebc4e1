"""How fast the ring lab searches, and what the reductions save: settled moves, and points that are marked as equal.

python benchmarks/bench_race_rings.py
"""

import time
from collections.abc import Callable

from vdev.race.rings import RingScenario, search
from vdev.race.rings.actor import Execution
from vdev.race.rings.machine import Machine, State

ARMED = {"driver": "armed", "device": "until-empty"}
SCENARIOS = [
    RingScenario(ring, size=size, buffers=buffers, **way)
    for ring in ("split", "packed")
    for size, buffers, way in ((2, 2, {}), (2, 3, {}), (4, 4, {}), (4, 6, ARMED), (2, 3, {"batches": True}))
]


def count(machine: Machine, settled: Callable[[State], State]) -> int:
    """Return how many states there are."""
    states = [settled(machine.start)]
    seen = set(states)
    for state in states:
        for _, after in machine.moves(state):
            after = settled(after)
            if after not in seen:
                seen.add(after)
                states.append(after)
    return len(seen)


def main() -> None:
    print(f"{'states':>9}{'moves':>9}{'runs':>7}{'s':>7}{'states/s':>10}   scenario, every interleaving, x86-TSO")
    for scenario in SCENARIOS:
        verdict = search(scenario)
        assert verdict.finding is None
        print(
            f"{verdict.state_count:>9}{verdict.transition_count:>9}{verdict.execution_count:>7}{verdict.seconds:>7.2f}"
            f"{verdict.state_count / verdict.seconds:>10.0f}   {scenario.label}"
        )
    print("\nwhat is saved: states with all reductions, with moves that nobody can tell apart, and runs without marks")
    real_mark = Execution.mark
    for scenario in SCENARIOS[:2] + SCENARIOS[5:7]:
        machine = Machine.of(scenario)
        settled = count(machine, machine.settled)
        unsettled = count(Machine.of(scenario), lambda state: state)
        Execution.mark = lambda *_: None
        try:
            start = time.perf_counter()
            unmarked_machine = Machine.of(scenario)
            unmarked = count(unmarked_machine, unmarked_machine.settled)
            seconds = time.perf_counter() - start
        finally:
            Execution.mark = real_mark
        print(
            f"{settled:>9} states, {machine.execution_count} runs   {scenario.label}\n"
            f"          every move: {unsettled} states ({unsettled / settled:.1f} times)\n"
            f"          no marks: {unmarked} states ({unmarked / settled:.1f} times), "
            f"{unmarked_machine.execution_count} runs, {seconds:.1f} s"
        )


if __name__ == "__main__":
    main()
