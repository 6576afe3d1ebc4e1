"""When a run is a failure for a CI is said in a few words."""

import pytest

from spec.statements import catalogue
from vdev.check.evidence import Evidence
from vdev.check.fail_on import DEFAULT_FAIL_ON, FailOn
from vdev.check.result import CaseResult, Report
from vdev.check.verdict import Verdict
from vdev.errors import UserError


def statement(level):
    return next(each.id for each in catalogue().values() if each.level == level)


def result(verdict, level="MUST", *, others=()):
    broken = statement(level)
    covers = (broken, *map(statement, others))
    failed = broken if verdict is Verdict.FAIL else None
    return CaseResult("a.check", "", "It is so.", covers, verdict, failed, "", Evidence(), 0.0)


@pytest.mark.parametrize(
    ("text", "verdict", "level", "is_wanted"),
    [
        (DEFAULT_FAIL_ON, Verdict.FAIL, "MUST", True),
        (DEFAULT_FAIL_ON, Verdict.FAIL, "MUST NOT", True),
        (DEFAULT_FAIL_ON, Verdict.FAIL, "SHOULD", False),
        (DEFAULT_FAIL_ON, Verdict.CRASHED, "SHOULD", True),
        (DEFAULT_FAIL_ON, Verdict.HUNG, "MAY", True),
        (DEFAULT_FAIL_ON, Verdict.INCONCLUSIVE, "MUST", False),
        (DEFAULT_FAIL_ON, Verdict.PASS, "MUST", False),
        ("fail", Verdict.FAIL, "SHOULD NOT", True),
        ("fail:should", Verdict.FAIL, "SHOULD NOT", True),
        ("fail:should", Verdict.FAIL, "MUST", False),
        (" FAIL:Must , crashed", Verdict.CRASHED, "MUST", True),
        ("inconclusive", Verdict.INCONCLUSIVE, "MUST", True),
        ("n/a:must", Verdict.NOT_APPLICABLE, "MUST", True),
        ("none", Verdict.FAIL, "MUST", False),
    ],
)
def test_verdicts_and_levels_are_chosen(text, verdict, level, is_wanted):
    assert FailOn.parse(text).wants(result(verdict, level)) is is_wanted


def test_a_failure_counts_by_the_statement_that_is_broken_and_not_by_its_neighbours():
    case = result(Verdict.FAIL, "SHOULD", others=("MUST",))
    assert not FailOn.parse("fail:must").wants(case)
    assert FailOn.parse("fail:should").wants(case)


def test_of_a_report_those_cases_are_given_that_count():
    bad, good = result(Verdict.FAIL), result(Verdict.PASS)
    report = Report("device", {}, 0, (good, bad), 0.0, "0")
    assert FailOn.parse(DEFAULT_FAIL_ON).of(report) == (bad,)


@pytest.mark.parametrize("text", ["", "pass", "fail:", "fail:will", "fail,,hung", "must", "none,fail"])
def test_other_words_are_refused_in_one_line(text):
    with pytest.raises(UserError, match="--fail-on") as refusal:
        FailOn.parse(text)
    assert "\n" not in str(refusal.value)
