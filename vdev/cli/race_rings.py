"""Ring races for a person: every default scenario of one ring format, or one schedule again."""

from collections.abc import Mapping
from pathlib import Path

from vdev.cli.race_display import open_race_display
from vdev.cli.race_show import print_lines, write_json, write_text
from vdev.errors import UserError
from vdev.race.rings import (
    RingFinding,
    RingScenario,
    RingVerdict,
    default_scenarios,
    format_ring_schedule,
    parse_ring_schedule,
    replay,
    ring_schedule_of,
    sample,
    search,
)
from vdev.race.rings.search import STATE_LIMIT
from vdev.race.story import Line

__all__ = ["is_ring_schedule", "show_ring_replay", "show_rings"]

BROKEN_STATUS = 1
UNFINISHED_STATUS = 3
OTHERWISE_STATUS = 4

_RUNS = 100
_MAGIC = b"vdev ring schedule"


def show_rings(
    ring: str,
    mode: str,
    walk: Mapping[str, int],
    max_states: int | None,
    save_path: Path | None,
    json_path: Path | None,
) -> int:
    """Look at the default scenarios up to the first that breaks, show what was found, and return the exit status.

    `walk` may have runs, depth and seed, for the modes random and pct. Raises UserError for a file that cannot be
    written.
    """
    scenarios = default_scenarios(ring, large=mode != "exhaustive")
    verdicts: list[RingVerdict] = []
    with open_race_display() as display:
        for scenario in scenarios:
            display.show("racing", scenario.label, len(verdicts), len(scenarios))
            verdicts.append(_look(scenario, mode, walk, max_states))
            if verdicts[-1].is_broken:
                break
    finding = verdicts[-1].finding
    if save_path is not None and finding is not None:
        write_text(save_path, format_ring_schedule(ring_schedule_of(finding)))
    if json_path is not None:
        write_json(json_path, [verdict.to_json() for verdict in verdicts])
    print_lines([*map(_line, verdicts), *_end(verdicts)], json_path)
    if finding is not None:
        return BROKEN_STATUS
    return 0 if mode != "exhaustive" or all(verdict.complete for verdict in verdicts) else UNFINISHED_STATUS


def _look(scenario: RingScenario, mode: str, walk: Mapping[str, int], max_states: int | None) -> RingVerdict:
    if mode == "exhaustive":
        return search(scenario, limit=STATE_LIMIT if max_states is None else max_states)
    runs, seed, depth = walk.get("runs", _RUNS), walk.get("seed", 0), walk.get("depth", 3)
    return sample(scenario, mode=mode, runs=runs, seed=seed, depth=depth)


def _line(verdict: RingVerdict) -> Line:
    found = f"{verdict.finding.property}, in {len(verdict.finding.steps)} steps" if verdict.finding else "nothing found"
    seen = f"{verdict.state_count:,} states, {verdict.transition_count:,} moves"
    return Line(f"{found}: {verdict.bound}; {seen}", "plain")


def _end(verdicts: list[RingVerdict]) -> list[Line]:
    finding = verdicts[-1].finding
    if finding is not None:
        return _told(finding)
    states = sum(verdict.state_count for verdict in verdicts)
    return [Line(f"nothing is lost, torn or taken twice in {len(verdicts)} scenarios, {states:,} states", "good")]


def _told(finding: RingFinding) -> list[Line]:
    *steps, end = finding.lettered()
    return [Line(str(finding.scenario), "title"), *(Line(step, "plain") for step in steps), Line(end, "fatal")]


def is_ring_schedule(path: Path) -> bool:
    """Say whether a regular file begins as the schedule of a ring race does."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def show_ring_replay(path: Path, json_path: Path | None) -> int:
    """Replay the schedule of a ring race, tell it, and return the exit status.

    Raises UserError for a file that is none, or a step that is not possible at its place.
    """
    try:
        schedule = parse_ring_schedule(path.read_bytes(), str(path))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    finding = replay(schedule)
    if json_path is not None:
        write_json(json_path, finding.to_json() if finding else {"property": None})
    lines = _told(finding) if finding else [Line(f"nothing is broken after {len(schedule.steps)} steps", "good")]
    print_lines(lines, json_path)
    if schedule.breaks is not None and schedule.breaks != (finding.property if finding else None):
        return OTHERWISE_STATUS
    return BROKEN_STATUS if finding else 0
