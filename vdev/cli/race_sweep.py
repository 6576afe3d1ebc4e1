"""`vdev race --all`: explore the table, keep what was found, and show it."""

import contextlib
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from vdev import __version__
from vdev.cli.one_line import INTERRUPTED_STATUS, complain
from vdev.cli.race_display import RaceDisplay, open_race_display
from vdev.cli.race_show import print_lines, write_json, write_text
from vdev.errors import UserError
from vdev.race.combination import Combination
from vdev.race.combinations import default_combinations
from vdev.race.executors import open_executor
from vdev.race.finding_json import verdict_to_json
from vdev.race.journal import Journal
from vdev.race.judge import Question
from vdev.race.schedule_file import schedule_of, write_schedule
from vdev.race.story import Line
from vdev.race.strategies_page import page_of_sweep
from vdev.race.sweep import SweepProgress, heading_of, sweep
from vdev.race.verdict import Verdict

__all__ = ["run_sweep"]

_COMMAND = "vdev race"


def run_sweep(
    question: Question,
    wanted: Mapping[str, str],
    directory: Path,
    executor_name: str,
    *,
    resume: bool,
    json_path: Path | None,
    markdown_path: Path | None,
) -> int:
    """Explore every combination of the table that has the values in `wanted`, and return the exit status.

    Raises UserError where nothing is wanted, the directory cannot be used, or the executor is not there.
    """
    combinations = [each for each in default_combinations() if wanted.items() <= each.to_json().items()]
    if not combinations:
        raise UserError(
            f"the table has no combination with {', '.join(wanted.values())}; leave out --all to explore one"
        )
    try:
        verdicts = _sweep(combinations, question, directory, executor_name, resume=resume)
    except KeyboardInterrupt:
        complain(_COMMAND, f"interrupted; what was found is kept in {directory}: go on with --resume")
        return INTERRUPTED_STATUS
    for verdict in verdicts:
        if verdict.loss is not None:
            write_schedule(_schedule_path(directory, verdict.combination), schedule_of(verdict.loss))
    if json_path is not None:
        write_json(json_path, [verdict_to_json(verdict, timing=False) for verdict in verdicts])
    if markdown_path is not None:
        write_text(markdown_path, page_of_sweep(verdicts, question.bound))
    print_lines(_lines(verdicts, question, directory), json_path)
    return 0


class _Interruption:
    """Ctrl-C while processes are started, fed and ended: noted at once, raised where it can do no harm.

    An exception at any other moment, in the pool's own code, could leave a process waiting for ever.
    """

    def __init__(self) -> None:
        self._is_wanted = False

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Note SIGINT until the block ends."""
        before = signal.signal(signal.SIGINT, self._note)
        try:
            yield
        finally:
            # After an interruption the process only says so and ends: another one has nothing to add.
            signal.signal(signal.SIGINT, signal.SIG_IGN if self._is_wanted else before)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self._is_wanted = True

    def check(self) -> None:
        """Raise KeyboardInterrupt if there was one."""
        if self._is_wanted:
            raise KeyboardInterrupt


def _sweep(
    combinations: Sequence[Combination], question: Question, directory: Path, executor_name: str, *, resume: bool
) -> list[Verdict]:
    heading = heading_of(__version__, question)
    interruption = _Interruption()
    with (
        Journal(directory / "journal.jsonl", heading, resume=resume) as journal,
        interruption.noted(),
        open_executor(executor_name) as executor,
    ):
        if journal.was_cut:
            complain(_COMMAND, f"the last line of {journal.path} is cut off; its combination is explored again")
        with open_race_display() as display:
            return sweep(
                combinations,
                question,
                executor,
                journal,
                lambda progress: _show(display, progress),
                check_interrupted=interruption.check,
            )


def _show(display: RaceDisplay, progress: SweepProgress) -> None:
    figures = f"{progress.broken_count} BROKEN, {progress.state_count:,} states"
    display.show("combinations", figures, progress.done_count, progress.total_count)


def _schedule_path(directory: Path, combination: Combination) -> Path:
    return directory / f"{combination.label}.schedule"


def _lines(verdicts: Sequence[Verdict], question: Question, directory: Path) -> Iterator[Line]:
    strategy = ""
    for verdict in verdicts:
        if verdict.combination.strategy != strategy:
            strategy = verdict.combination.strategy
            yield from (Line("", "plain"), Line(strategy, "end"))
        yield _line(verdict, directory)
    broken_count = sum(verdict.is_broken for verdict in verdicts)
    yield Line("", "plain")
    yield Line(f"{broken_count} of {len(verdicts)} combinations lose a page", "end")
    yield Line(f"bound: {question.bound}", "plain")
    yield Line(f"explored: {sum(verdict.state_count for verdict in verdicts):,} states", "plain")


def _line(verdict: Verdict, directory: Path) -> Line:
    if verdict.loss is not None:
        acts = f"{len(verdict.loss.moments)} acts"
        return Line(f"  BROKEN {acts:>17}  {_schedule_path(directory, verdict.combination)}", "fatal")
    states = f"{verdict.state_count:,} states"
    unfinished = "" if verdict.complete else "  (not all: --max-states)"
    return Line(f"  safe   {states:>17}  {verdict.combination.label}{unfinished}", "plain")
