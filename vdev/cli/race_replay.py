"""A schedule made to happen for real, among tasks or between processes, and what a person is shown of it."""

from functools import partial
from pathlib import Path

import trio

from vdev.cli.one_line import complain
from vdev.cli.race_show import print_lines, write_json
from vdev.errors import UserError, VdevError
from vdev.race.replay import Outcome
from vdev.race.replay_loop import replay_in_one_loop
from vdev.race.replay_processes import replay_in_processes
from vdev.race.schedule_file import Schedule, read_schedule
from vdev.race.sentences import name_pages
from vdev.race.story import Line, describe_combination

__all__ = ["show_real_replay"]

_OTHERWISE_STATUS = 4


def show_real_replay(command: str, path: Path, json_path: Path | None, *, processes: bool) -> int:
    """Make a schedule happen, show what the guest says of itself, and return the exit status.

    Raises UserError for a file that is no schedule, and for a schedule that does not fit, with the act that does not.
    """
    schedule = read_schedule(path)
    try:
        outcome = _replay(schedule, processes=processes)
    except VdevError as error:
        raise UserError(f"{path}: {error}") from error
    if json_path is not None:
        write_json(json_path, outcome.to_json())
    print_lines(_lines(schedule, outcome, "between processes" if processes else "in one loop"), json_path)
    if schedule.lost is not None and set(schedule.lost) != set(outcome.lost):
        complain(command, f"{path} names {name_pages(schedule.lost)} as lost, the guest {name_pages(outcome.lost)}")
        return _OTHERWISE_STATUS
    return outcome.status


def _replay(schedule: Schedule, *, processes: bool) -> Outcome:
    if processes:
        return trio.run(partial(replay_in_processes, schedule.combination, schedule.bound, schedule.acts))
    return replay_in_one_loop(schedule.combination, schedule.bound, schedule.acts)


def _lines(schedule: Schedule, outcome: Outcome, where: str) -> list[Line]:
    lines = [
        Line(f"{schedule.combination.strategy} {where}", "title" if outcome.stale else "good"),
        Line(describe_combination(schedule.combination), "plain"),
        *(Line(f"made: {act}", "plain") for act in outcome.made),
    ]
    for stale in outcome.stale:
        found = f"page {stale.page} has version {stale.found}, version {stale.wanted} was written"
        lines.append(Line(f"the guest at the destination: {found}", "fatal"))
    if not outcome.stale:
        count = outcome.verdict["pages"]
        lines.append(Line(f"the guest at the destination: nothing is lost, of {count} pages in use", "good"))
    return lines
