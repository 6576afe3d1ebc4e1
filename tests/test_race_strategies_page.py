"""docs/strategies.md has the rows of the code, and every combination that the sweep explores."""

import re
from pathlib import Path

import pytest
from race_findings import loss_of_filter_on_ready, verdict_of

from vdev.race.combination import DIMENSIONS, Bound, Combination
from vdev.race.combinations import default_combinations
from vdev.race.explore import explore
from vdev.race.lessons import LESSONS
from vdev.race.story import tell
from vdev.race.strategies_page import cell, page_of_sweep, row_name
from vdev.run.options import STRATEGIES

PAGE = Path(__file__).parent.parent / "docs" / "strategies.md"


def sections(page: str) -> dict[str, str]:
    """Strategy -> what stands below its heading."""
    parts = re.split(r"^## (.+)$", page, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def cells(section: str) -> dict[tuple[str, str], str]:
    """Name of the row and of the column -> the cell."""
    rows = [[word.strip() for word in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    head, _, *body = rows
    return {(row[0], log): value for row in body for log, value in zip(head[1:], row[1:], strict=True)}


def test_there_is_a_lesson_for_each_strategy_that_there_is():
    assert tuple(LESSONS) == STRATEGIES
    assert all(20 < len(lesson) < 600 for lesson in LESSONS.values())


def test_every_combination_of_the_sweep_has_its_cell():
    page = sections(PAGE.read_text())
    for strategy, lesson in LESSONS.items():
        assert lesson in " ".join(page[strategy].split())
        wanted = {(row_name(each), each.dirty_log) for each in default_combinations() if each.strategy == strategy}
        filled = {place for place, value in cells(page[strategy]).items() if value}
        assert filled == wanted


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_usual_column_is_what_the_lab_says_now(strategy):
    combination = Combination(strategy)
    verdict = explore(combination, Bound())
    section = sections(PAGE.read_text())[strategy]
    assert cells(section)[row_name(combination), combination.dirty_log] == cell(verdict)
    if verdict.loss is not None:
        assert tell(verdict.loss) in section


def test_a_page_is_made_of_verdicts_alone():
    loss = loss_of_filter_on_ready()
    safe = verdict_of(loss, loss=None, state_count=12345)
    page = page_of_sweep([verdict_of(loss)], Bound())
    assert "| [filter-on-ready](#filter-on-ready) | **BROKEN in 16** |  | 1 of 1 |" in page
    assert f"```text\n{tell(loss)}```" in page
    assert "| list, until-queued | safe in 12,345 |  |" in page_of_sweep([safe], Bound())
    assert all(values[0] in page for values in DIMENSIONS.values())
