"""One question to the lab, and its answer: what a command, a worker process and a cluster all ask the same way."""

from collections.abc import Callable
from dataclasses import dataclass

from vdev.errors import UserError
from vdev.race.combination import Bound, Combination
from vdev.race.verdict import Verdict

__all__ = ["MODES", "Question", "judge"]

MODES = ("exhaustive", "random", "pct")


@dataclass(frozen=True)
class Question:
    """What is to be looked for, and how.

    `mode` is exhaustive, random or pct; `runs`, `depth` (changes of priority in a pct run) and `seed` are for the
    latter two, `reduction` and `max_states` (None: no limit) for the first.
    """

    combination: Combination
    bound: Bound
    mode: str = "exhaustive"
    reduction: bool = True
    max_states: int | None = None
    runs: int = 10_000
    depth: int = 3
    seed: int = 0


def judge(question: Question, on_progress: Callable[[int, int, int], None]) -> Verdict:
    """Put `question` to the lab.

    `on_progress` is told states (runs), transitions and depth; what it raises ends the search. Raises UserError for a
    mode that there is not.
    """
    q = question
    if q.mode == "exhaustive":
        from vdev.race.explore import explore

        return explore(q.combination, q.bound, reduction=q.reduction, on_progress=on_progress, max_states=q.max_states)
    from vdev.race.walks import pct, random_walks

    if q.mode == "random":
        return random_walks(q.combination, q.bound, count=q.runs, seed=q.seed, on_progress=on_progress)
    if q.mode == "pct":
        return pct(q.combination, q.bound, depth=q.depth, count=q.runs, seed=q.seed, on_progress=on_progress)
    raise UserError(f"nobody knows the mode {q.mode!r}; choose exhaustive, random or pct")
