"""One question to the lab, or one schedule, and what a person is shown of it."""

from pathlib import Path

import click

from vdev.cli.one_line import complain
from vdev.cli.race_display import open_race_display
from vdev.cli.race_show import print_lines, write_json, write_text
from vdev.cli.sizes import format_duration
from vdev.errors import UserError
from vdev.race.finding_json import finding_to_json, verdict_to_json
from vdev.race.judge import Question, judge
from vdev.race.schedule_file import Schedule, read_schedule, schedule_of, write_schedule
from vdev.race.sentences import name_pages
from vdev.race.story import Line, describe_combination, story_of
from vdev.race.timeline_page import page_of_finding, page_of_verdict
from vdev.race.verdict import Finding, Verdict

__all__ = ["show_question", "show_replay"]

LOST_STATUS = 1
UNFINISHED_STATUS = 3
OTHERWISE_STATUS = 4


def show_question(
    question: Question,
    save_path: Path | None,
    html_path: Path | None,
    json_path: Path | None,
    *,
    each_act: bool = False,
) -> int:
    """Explore, show what was found, and return the exit status.

    `each_act` prints a letter for each act instead of each turn. Raises UserError for a file that cannot be written.
    """
    unit = "states" if question.mode == "exhaustive" else "runs"
    with open_race_display() as display:
        verdict = judge(
            question,
            lambda count, acts, depth: display.show("exploring", f"{count:,} {unit}, {acts:,} acts, {depth} deep"),
        )
    if save_path is not None and verdict.loss is not None:
        write_schedule(save_path, schedule_of(verdict.loss))
    if html_path is not None:
        write_text(html_path, page_of_verdict(verdict))
    if json_path is not None:
        write_json(json_path, verdict_to_json(verdict, timing=False))
    print_lines(_lines(verdict, each_act=each_act), json_path)
    # Not in the report: equal searches give equal reports.
    click.echo(f"took {format_duration(verdict.seconds)}", err=True)
    if verdict.is_broken:
        return LOST_STATUS
    return 0 if verdict.complete or verdict.mode != "exhaustive" else UNFINISHED_STATUS


def _lines(verdict: Verdict, *, each_act: bool) -> list[Line]:
    if verdict.loss is not None:
        return [*story_of(verdict.loss, each_act=each_act), Line(_explored(verdict), "plain")]
    unknown = "" if verdict.complete else " so far"
    lines = [
        Line(f"{verdict.combination.strategy} loses no page{unknown}", "good"),
        Line(describe_combination(verdict.combination), "plain"),
        Line(f"bound: {verdict.bound}", "plain"),
        Line(_explored(verdict), "plain"),
    ]
    for name, finding in verdict.broken_invariants.items():
        lines.append(Line(f"broken without a loss: {name}, in {len(finding.moments)} acts", "plain"))
    return lines


def _explored(verdict: Verdict) -> str:
    if verdict.mode != "exhaustive":
        return f"explored: {verdict.schedule_count:,} runs of mode {verdict.mode} with seed {verdict.seed}"
    seen = f"explored: {verdict.state_count:,} states, {verdict.transition_count:,} acts between them"
    if verdict.is_broken:
        return f"{seen}; nothing shorter loses a page"
    return f"{seen}; {'that is all within the bound' if verdict.complete else 'and there are more within the bound'}"


def show_replay(
    command: str,
    path: Path,
    save_path: Path | None,
    html_path: Path | None,
    json_path: Path | None,
    *,
    each_act: bool = False,
) -> int:
    """Replay a schedule, tell its story, and return the exit status.

    Raises UserError for a file that is no schedule, or a schedule with an act that is not possible at its place.
    """
    schedule = read_schedule(path)
    finding = _replay(path, schedule)
    if save_path is not None:
        write_schedule(save_path, schedule_of(finding))
    if html_path is not None:
        write_text(html_path, page_of_finding(finding))
    if json_path is not None:
        head = {"combination": finding.combination.to_json(), "bound": finding.bound.to_json()}
        write_json(json_path, head | finding_to_json(finding))
    print_lines(story_of(finding, each_act=each_act), json_path)
    if schedule.lost is not None and set(schedule.lost) != set(finding.lost):
        complain(command, f"{path} names {name_pages(schedule.lost)} as lost, the replay {name_pages(finding.lost)}")
        return OTHERWISE_STATUS
    return LOST_STATUS if finding.lost else 0


def _replay(path: Path, schedule: Schedule) -> Finding:
    from vdev.race.finding import replay

    try:
        return replay(schedule.combination, schedule.bound, schedule.acts)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
