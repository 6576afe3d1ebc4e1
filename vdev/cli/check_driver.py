"""Judge a guest's driver for a person: set up, run, show."""

import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from vdev.check.driver.game import GameKind, driver_games
from vdev.check.driver.games import load_games
from vdev.check.driver.rule import RuleKind, driver_rules
from vdev.check.driver.rules import load_rules
from vdev.check.driver.serving import judge_driver
from vdev.check.fail_on import FailOn
from vdev.check.report.text import Line
from vdev.check.result import CaseResult
from vdev.check.selection import is_named, refuse_unknown
from vdev.check.target import DEFAULT_PATIENCE
from vdev.check.verdict import Verdict
from vdev.cli.check_show import Outputs, describe_broken, print_lines, show_report, terminated_as_interrupted
from vdev.cli.race_display import RaceDisplay, open_race_display
from vdev.errors import UserError

__all__ = ["check_driver", "driver_covers", "list_driver_checks"]

_BOOT_PATIENCE = 120.0


def check_driver(
    command: str,
    *,
    type_name: str | None,
    socket_path: str | None,
    spawn: str | None,
    again: bool,
    file_path: str | None,
    patience: float,
    boot_patience: float,
    only: Sequence[str],
    skip: Sequence[str],
    seed: int,
    fail_on: str,
    json_path: Path | None,
    junit_path: Path | None,
    html_path: Path | None,
) -> int:
    """Judge, show what came of it, and return the exit status.

    Raises UserError, BadParameter, or another VdevError that says in one line why nobody can be judged.
    """
    if type_name is None or socket_path is None:
        raise UserError("say what device it is with --type, and where the guest connects with --socket")
    if file_path is not None and type_name != "block":
        raise UserError("--file is for block devices; leave it out")
    wanted_status = FailOn.parse(fail_on)
    outputs = Outputs(json_path, junit_path, html_path)
    outputs.check()
    # What stands in brackets, a game and a ring format, is the plan's to know.
    for option, patterns in (("--only", only), ("--skip", skip)):
        refuse_unknown(option, [pattern.partition("[")[0] or "*" for pattern in patterns], _names(type_name))
    words = [*command.split(), "--type", type_name, "--socket", socket_path]
    words += ["--spawn", spawn] if spawn is not None else []
    words += ["--again"] if again else []
    words += ["--file", file_path] if file_path is not None else []
    words += ["--patience", f"{patience:g}s"] if patience != DEFAULT_PATIENCE else []
    words += ["--boot-patience", f"{boot_patience:g}s"] if boot_patience != _BOOT_PATIENCE else []
    words += ["--seed", str(seed)] if seed else []
    with terminated_as_interrupted(), open_race_display() as display:
        progress = _Progress(display)
        report = judge_driver(
            type_name,
            Path(socket_path),
            spawn=spawn,
            again=again,
            only=_names_of_statements(type_name, only),
            options={"file": file_path} if file_path is not None else None,
            patience=patience,
            boot_patience=boot_patience,
            seed=seed,
            repeat=lambda name: shlex.join([*words, "--only", name]),
            on_start=progress.starts,
            on_result=progress.ends,
        )
    if skip:
        kept = tuple(case for case in report.cases if not _is_skipped(case, skip))
        report = replace(report, cases=kept, subject={**report.subject, "skipped": ", ".join(skip)})
    return show_report(command, report, outputs, wanted_status)


def _is_skipped(case: CaseResult, skip: Sequence[str]) -> bool:
    return is_named(skip, check=case.check, case=case.name, covers=case.covers)


class _Progress:
    """Shows how far a run is."""

    def __init__(self, display: RaceDisplay) -> None:
        self._display = display
        self._counts: Counter[Verdict] = Counter()
        self._start = (0, 0)

    def starts(self, number: int, count: int, games: str) -> None:
        """A start of the driver is begun, counted from 1."""
        self._start = number - 1, count
        self._show(games)

    def ends(self, result: CaseResult) -> None:
        """A game is over."""
        self._counts[result.verdict] += 1
        self._show(result.name)

    def _show(self, what: str) -> None:
        self._display.show("starts", "  ".join([*describe_broken(self._counts), what]), *self._start)


def driver_covers() -> dict[str, tuple[str, ...]]:
    """Return the statements of each rule and game, by the name that it has in a report."""
    return {name: kind.covers for name, kind in _kinds().items()}


def _kinds() -> dict[str, RuleKind | GameKind]:
    load_rules()
    load_games()
    return {**driver_rules(), **{f"game.{name}": kind for name, kind in driver_games().items()}}


def _covers_of(type_name: str | None) -> dict[str, tuple[str, ...]]:
    """Return the same for one type of device."""
    return {
        name: kind.covers
        for name, kind in _kinds().items()
        if type_name is None or kind.types is None or type_name in kind.types
    }


def _names(type_name: str | None) -> list[str]:
    covers = _covers_of(type_name)
    return [*covers, *dict.fromkeys(statement for statements in covers.values() for statement in statements)]


def _names_of_statements(type_name: str, only: Iterable[str]) -> list[str]:
    """Return the patterns with a statement's replaced by the names of the rules and games that cover it."""
    covers = _covers_of(type_name)
    found: list[str] = []
    for pattern in only:
        by_statement = [
            name
            for name, statements in covers.items()
            if not is_named([pattern], check=name, case=name, covers=())
            and is_named([pattern], check="", case="", covers=statements)
        ]
        found += by_statement or [pattern]
    return found


def list_driver_checks(type_name: str | None, only: Sequence[str], skip: Sequence[str]) -> int:
    """Print the rules and games for a device type, of all types without one; return the exit status."""
    covers = _covers_of(type_name)
    refuse_unknown("--only", only, _names(type_name))
    refuse_unknown("--skip", skip, _names(type_name))
    kinds = _kinds()
    lines: list[Line] = []
    count = 0
    for name, statements in covers.items():
        if only and not is_named(only, check=name, case=name, covers=statements):
            continue
        if is_named(skip, check=name, case=name, covers=statements):
            continue
        count += 1
        lines.append(Line(name, "end"))
        lines.append(Line(f"    {kinds[name].summary}"))
        lines += [Line(f"    {statement}", "header") for statement in statements]
    lines.append(Line(f"{count} rules and games", "end"))
    print_lines(lines)
    return 0
