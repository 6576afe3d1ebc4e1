"""`vdev race`: let guest, handler and migrator act in every order, and say which order loses a page."""

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import click

from vdev.cli.parameters import check_writable
from vdev.cli.race_options import bound_options, dimension_options
from vdev.cli.running import json_option
from vdev.errors import UserError
from vdev.race.combination import DIMENSIONS, Bound, Combination
from vdev.race.judge import MODES, Question
from vdev.run.options import STRATEGIES

__all__ = ["race"]

_EXIT_STATUS = """\b
Exit status:
    0  nothing is lost (with --all: the table is complete)
    1  a page is lost
    2  the arguments make no sense, or a file cannot be used
    3  nothing was lost so far, but the search ended at --max-states
    4  a replayed schedule ended otherwise than its file says
    7  the loss was made to happen (--in-one-loop, --processes): the guest itself reports it
  130  interrupted
"""


@click.command(short_help="Find the order of events that loses a page.", epilog=_EXIT_STATUS)
@click.option("--strategy", type=click.Choice(STRATEGIES), help="How the guest's free pages are skipped.")
@dimension_options
@bound_options
@click.option(
    "--mode",
    type=click.Choice(MODES),
    default=MODES[0],
    show_default=True,
    help="Every order; or runs that choose at random, or by priorities that change a few times (PCT).",
)
@click.option("--runs", type=click.IntRange(min=1), metavar="NUMBER", help="Runs of random and pct. [default: 10000]")
@click.option(
    "--depth", type=click.IntRange(min=1), metavar="NUMBER", help="Changes of priority in a pct run. [default: 3]"
)
@click.option("--seed", type=click.IntRange(min=0), metavar="NUMBER", help="What random and pct choose. [default: 0]")
@click.option("--no-reduction", is_flag=True, help="Explore also orders that differ in nothing that matters.")
@click.option("--max-states", type=click.IntRange(min=1), metavar="NUMBER", help="Look no further. [default: no limit]")
@click.option("--save", "save_path", metavar="FILE", type=click.Path(path_type=Path), help="Write the loss's schedule.")
@click.option(
    "--html", "html_path", metavar="FILE", type=click.Path(path_type=Path), help="Draw it, as a page for a browser."
)
@click.option("--each-act", is_flag=True, help="Print a letter for each act, not for each turn of an actor.")
@json_option
@click.option("--replay", "replay_path", metavar="FILE", type=click.Path(path_type=Path), help="Replay a schedule.")
@click.option("--in-one-loop", is_flag=True, help="Make a replayed schedule happen to real tasks of one loop.")
@click.option("--processes", is_flag=True, help="Make it happen between real processes.")
@click.option("--rings", type=click.Choice(("split", "packed")), help="Race driver against device on one ring instead.")
@click.option("--all", "is_all", is_flag=True, help="Explore all strategies by all dimensions, on all cores.")
@click.option(
    "--out",
    "directory",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where --all keeps its journal and schedules. [default: race-results]",
)
@click.option("--resume", is_flag=True, help="Go on with an interrupted --all.")
@click.option(
    "--executor", "executor_name", metavar="local|dask:ADDRESS", help="Where --all computes. [default: local]"
)
@click.option(
    "--markdown", "markdown_path", metavar="FILE", type=click.Path(path_type=Path), help="Write --all's table."
)
@click.pass_context
def race(
    ctx: click.Context,
    /,
    *,
    strategy: str | None,
    mode: str,
    runs: int | None,
    depth: int | None,
    seed: int | None,
    no_reduction: bool,
    max_states: int | None,
    save_path: Path | None,
    html_path: Path | None,
    each_act: bool,
    json_path: Path | None,
    replay_path: Path | None,
    in_one_loop: bool,
    processes: bool,
    rings: str | None,
    is_all: bool,
    directory: Path | None,
    resume: bool,
    executor_name: str | None,
    markdown_path: Path | None,
    **numbers_and_dimensions: Any,
) -> int:
    """Run the argument: which order of events loses a page.

    Guest, handler and migrator act one at a time, in every order within a bound. The shortest order that loses a page
    is told in lettered steps; if there is none, the number of states that were seen.
    """
    given = {name: value for name, value in numbers_and_dimensions.items() if value is not None}
    dimensions = {name: value for name, value in given.items() if name in DIMENSIONS}
    bound = Bound(**{name: value for name, value in given.items() if name not in DIMENSIONS})
    if rings is None:
        _check_task(strategy, replay_path, is_all, given)
    walk = {name: value for name, value in (("runs", runs), ("depth", depth), ("seed", seed)) if value is not None}
    _check_mode(mode, walk, max_states)
    _check_sweep(
        is_all, {"--resume": resume, "--out": directory, "--executor": executor_name, "--markdown": markdown_path}
    )
    files = {"--save": save_path, "--html": html_path, "--json": json_path, "--markdown": markdown_path}
    _check_files({option: path for option, path in files.items() if path is not None})
    if rings is not None:
        others = {
            "--strategy": strategy,
            "--replay": replay_path,
            "--all": is_all,
            "--html": html_path,
            "--each-act": each_act,
            "--in-one-loop": in_one_loop,
            "--processes": processes,
        }
        _check_rings({**others, "--no-reduction": no_reduction, "--markdown": markdown_path, **given})
        from vdev.cli.race_rings import show_rings

        return show_rings(rings, mode, walk, max_states, save_path, json_path)
    if in_one_loop or processes:
        schedule_path = _check_real_replay(replay_path, in_one_loop and processes, save_path or html_path or each_act)
        from vdev.cli.race_replay import show_real_replay

        return show_real_replay(ctx.command_path, schedule_path, json_path, processes=processes)
    combination = Combination(strategy or STRATEGIES[0], **dimensions)
    question = Question(combination, bound, mode, not no_reduction, max_states, **walk)
    if is_all:
        if each_act:
            raise UserError("--each-act: a table has no letters; leave out --all")
        if mode != MODES[0] or save_path or html_path:
            raise UserError("--all explores every order and keeps all schedules; leave out --mode, --save and --html")
        from vdev.cli.race_sweep import run_sweep

        wanted = dimensions if strategy is None else {"strategy": strategy, **dimensions}
        return run_sweep(
            question,
            wanted,
            directory or Path("race-results"),
            executor_name or "local",
            resume=resume,
            json_path=json_path,
            markdown_path=markdown_path,
        )
    from vdev.cli.race_one import show_question, show_replay
    from vdev.cli.race_rings import is_ring_schedule, show_ring_replay

    if replay_path is not None and is_ring_schedule(replay_path):
        return show_ring_replay(replay_path, json_path)
    if replay_path is not None:
        return show_replay(ctx.command_path, replay_path, save_path, html_path, json_path, each_act=each_act)
    return show_question(question, save_path, html_path, json_path, each_act=each_act)


def _check_task(strategy: str | None, replay_path: Path | None, is_all: bool, given: Mapping[str, Any]) -> None:
    if replay_path is not None:
        if is_all or strategy is not None or given:
            raise UserError("a schedule says itself what it is of; give --replay without --all, a strategy or a bound")
    elif strategy is None and not is_all:
        raise UserError("nothing to explore; give --strategy NAME, --replay FILE or --all")


def _check_rings(others: Mapping[str, Any]) -> None:
    names = [name if name[0] == "-" else f"--{name.replace('_', '-')}" for name, value in others.items() if value]
    if names:
        raise UserError(
            f"{', '.join(names)}: a ring race knows no pages and no strategies; leave that out with --rings"
        )


def _check_mode(mode: str, walk: Mapping[str, int], max_states: int | None) -> None:
    if mode == "exhaustive" and walk:
        names = ", ".join(f"--{name}" for name in walk)
        raise UserError(f"{names}: every order is explored, nothing is chosen; add --mode random or --mode pct")
    if mode == "random" and "depth" in walk:
        raise UserError("--depth: random runs have no priorities; add --mode pct")
    if mode != "exhaustive" and max_states is not None:
        raise UserError(f"--max-states limits the exhaustive search; limit --mode {mode} with --runs")


def _check_sweep(is_all: bool, given: Mapping[str, Any]) -> None:
    names = [option for option, value in given.items() if value]
    if names and not is_all:
        raise UserError(f"{', '.join(names)}: that is for the whole table; add --all")


def _check_real_replay(replay_path: Path | None, are_both: bool, story: object) -> Path:
    if replay_path is None:
        raise UserError("--in-one-loop and --processes make a schedule happen; add --replay FILE")
    if are_both:
        raise UserError("a schedule happens at one place; give --in-one-loop or --processes")
    if story:
        raise UserError("what happens for real is not saved or drawn; leave out --save, --html and --each-act")
    return replay_path


def _check_files(files: Mapping[str, Path]) -> None:
    for option, path in files.items():
        if str(path) == "-" and option != "--json":
            raise click.BadParameter("needs a file name", param_hint=f"'{option}'")
        if str(path) != "-":
            check_writable(path, option)
    for (option, path), (other, same) in combinations(files.items(), 2):
        if path == same:
            raise UserError(f"{option} and {other} name the same file; give two names")
