"""Many combinations, one after the other or at the same time; whatever the order they end in, the table has its own."""

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass, replace
from typing import Any

from vdev.errors import UserError
from vdev.race.combination import Combination
from vdev.race.executors import check_stop
from vdev.race.finding_json import verdict_from_json, verdict_to_json
from vdev.race.journal import Journal
from vdev.race.judge import Question, judge
from vdev.race.verdict import Verdict

__all__ = ["SweepProgress", "heading_of", "sweep"]

_LOOK_INTERVAL = 0.2


@dataclass(frozen=True)
class SweepProgress:
    """How far a sweep is: combinations judged, of how many; how many of them lose a page; states seen in all."""

    done_count: int
    total_count: int
    broken_count: int
    state_count: int
    label: str


def heading_of(version: str, question: Question) -> dict[str, Any]:
    """Return what must be the same for verdicts to be of one sweep."""
    return {
        "vdev": version,
        "bound": question.bound.to_json(),
        "reduction": question.reduction,
        "max_states": question.max_states,
    }


def sweep(
    combinations: Iterable[Combination],
    question: Question,
    executor: Executor,
    journal: Journal,
    on_progress: Callable[[SweepProgress], None],
    check_interrupted: Callable[[], None] = lambda: None,
) -> list[Verdict]:
    """Judge each combination, with the rest of `question`, and return the verdicts in their order.

    Those that `journal` has are not judged again; each new one is written there as soon as it is known.
    `check_interrupted` is called several times a second and ends the sweep by raising. Raises UserError when a worker
    process dies.
    """
    wanted = list(combinations)
    verdicts = {verdict.combination: verdict for verdict in journal.verdicts if verdict.combination in set(wanted)}

    def show(label: str) -> None:
        broken_count = sum(verdict.is_broken for verdict in verdicts.values())
        state_count = sum(verdict.state_count for verdict in verdicts.values())
        on_progress(SweepProgress(len(verdicts), len(wanted), broken_count, state_count, label))

    show("")
    missing = [combination for combination in wanted if combination not in verdicts]
    try:
        pending: set[Future[dict[str, Any]]] = set()
        for each in missing:
            check_interrupted()
            pending.add(executor.submit(judge_in_worker, replace(question, combination=each)))
        while pending:
            check_interrupted()
            done, pending = wait(pending, timeout=_LOOK_INTERVAL, return_when=FIRST_COMPLETED)
            for future in done:
                verdict = verdict_from_json(future.result())
                verdicts[verdict.combination] = verdict
                journal.add(verdict)
                show(verdict.combination.label)
    except BrokenExecutor as error:
        raise UserError("a worker process of the sweep died; go on with --resume") from error
    return [verdicts[combination] for combination in wanted]


def judge_in_worker(question: Question) -> dict[str, Any]:
    """Judge, and return the verdict as plain data, which any executor can carry."""
    return verdict_to_json(judge(question, lambda *_: check_stop()))
