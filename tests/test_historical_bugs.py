"""Bugs that real implementations of free page hinting had: the shipped code has none, and each would be found."""

import re
from pathlib import Path

import historical_bugs_holding
import historical_bugs_ids
import historical_bugs_pages
import pytest

BUGS = [*historical_bugs_ids.BUGS, *historical_bugs_holding.BUGS, *historical_bugs_pages.BUGS]
TESTS = Path(__file__).parent
DOCUMENT = (TESTS.parent / "docs" / "historical-bugs.md").read_text()

each_bug = pytest.mark.parametrize("bug", BUGS, ids=str)


@each_bug
def test_the_shipped_code_is_free_of(bug):
    bug.check()


@each_bug
def test_the_suite_finds(bug, monkeypatch):
    bug.put_back(monkeypatch)
    with pytest.raises(bug.raises, match=re.escape(bug.symptom)):
        bug.check()


def rows(heading):
    """Return the cells of each row of the document's table that begins with `heading`."""
    table = DOCUMENT.partition(f"\n| {heading} |")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_the_document_and_the_tests_name_the_same_20_bugs():
    told = {name: set(re.findall(r"`(\S+)`", where)) for name, _, where, _ in rows("bug")}
    tested = {}
    for bug in BUGS:
        tested.setdefault(bug.name, set()).add(f"{type(bug).__module__}.{type(bug).__name__}")
    assert told == tested
    assert len(told) == 20


def test_each_bug_is_a_breach_of_an_invariant_that_the_document_has():
    known = [invariant.partition(":")[0] for invariant, _ in rows("invariant")]
    assert known == [str(number) for number in range(1, 13)]
    assert {breached.partition(":")[0] for *_, breached in rows("bug")} <= {*known, "none"}


@pytest.mark.parametrize(("invariant", "where"), rows("invariant"))
def test_the_tests_that_show_an_invariant_exist(invariant, where):
    shown_by = re.findall(r"`(\S+\.py)::(\w+)`", where)
    assert shown_by
    for file, name in shown_by:
        assert re.search(rf"^(async )?def {name}\(", (TESTS / file).read_text(), re.MULTILINE), f"{file}::{name}"
