"""A finding is told in lettered steps, and its JSON has all of it."""

import json

import pytest
from race_findings import Recorder, long_loss, loss_of_filter_on_ready, verdict_of

from vdev.race.combination import Bound, Combination
from vdev.race.finding_json import verdict_from_json, verdict_to_json
from vdev.race.steps import steps_of
from vdev.race.story import ending_of, story_of, tell

STORIES = [loss_of_filter_on_ready(), long_loss(), long_loss(16)]


def test_a_story_reads_like_the_mails_did():
    lines = tell(loss_of_filter_on_ready()).splitlines()
    assert lines[:3] == [
        "filter-on-ready loses page 0 in 16 steps",
        "answer list, guest holds until-queued, dirty log get-and-clear, 2 vCPUs",
        "bound: 1 page, 2 writes, 2 hints, 3 syncs",
    ]
    assert (
        "d)  vcpu 0 collects page 0: off the free list,   0    1 0  0   0   held 0 collected   id 1 REQUESTED" in lines
    )
    assert (
        "f)  vcpu 1 takes page 0 back and writes it:      0    1 1  1   0   used 0 queued      id 1 REQUESTED" in lines
    )
    assert (
        "k)  handler pops the hint for page 0             0    1 0  2   1   used 0 popped      id 1 REQUESTED" in lines
    )
    told = " ".join(lines[-3:])
    assert told == (
        "Page 0 is lost: the guest relies on version 2, which i) wrote, and the destination has version 1."
        " Step l) took it out of M, the last trace of that write, for a hint that was collected in d),"
        " before the sync in j)."
    )


@pytest.mark.parametrize("finding", STORIES, ids=lambda finding: str(len(finding.moments)))
def test_no_line_is_wider_than_a_terminal_and_no_step_is_left_out(finding):
    lines = tell(finding).splitlines()
    assert max(map(len, lines)) <= 100
    for step in steps_of(finding):
        assert sum(line.startswith(f"{step.letter}) ") for line in lines) == 1


def test_a_page_that_is_destroyed_at_the_source_is_told_as_such():
    assert ending_of(long_loss(16)) == (
        "Page 2 is lost: the guest relies on version 9, which n) wrote, and the destination never got the page."
        " Step o) destroyed it at the source."
    )


def test_the_fatal_step_is_the_one_that_erases_the_last_trace():
    (fatal,) = (step for step in steps_of(loss_of_filter_on_ready()) if step.is_fatal)
    assert str(fatal.moment.act) == "handler: filter"
    (write,) = (step for step in steps_of(loss_of_filter_on_ready()) if step.is_lost_write)
    assert write.letter == "i"
    assert {line.kind for line in story_of(loss_of_filter_on_ready())} >= {"title", "fatal", "end", "header"}


def test_of_two_hints_for_a_page_the_older_is_used_first():
    r = Recorder(Combination("resubmit", holds="nothing"), Bound())
    r.act("migrator", "start", syncs=1)
    r.act("vcpu 0", "collect", hints=[((0,), 1, "collected")])
    r.act("vcpu 0", "queue", hints=[((0,), 1, "queued")])
    r.act("vcpu 0", "collect", hints=[((0,), 1, "queued"), ((0,), 1, "collected")])
    r.act("vcpu 0", "queue", hints=[((0,), 1, "queued"), ((0,), 1, "queued")])
    r.act("handler", "handle", hints=[((0,), 1, "queued")])
    steps = steps_of(r.finding())
    assert [life.collected_at for life in steps[5].went] == [1]
    assert [life.collected_at for step in steps for life in step.came] == [1, 3]


def test_a_broken_invariant_without_a_loss_has_a_story():
    r = Recorder(Combination("command-id"), Bound())
    r.act("migrator", "start", syncs=1)
    r.act("handler", "handle", broken=("4 log-before-request",))
    text = tell(r.finding(broken="4 log-before-request"))
    assert text.startswith("command-id breaks 4 log-before-request in 2 steps\n")
    assert "Step b) breaks 4 log-before-request; no page is lost by it here." in text


def test_an_invariant_that_stays_broken_is_named_once():
    r = Recorder(Combination("block-bulk", effect="discard"), Bound())
    r.act("migrator", "start", syncs=1)
    r.act("handler", "handle", broken=("8 source-untouched",))
    r.act("migrator", "stop", broken=("8 source-untouched", "11 progress"))
    told = " ".join(tell(r.finding()).split())
    assert told.count("source-untouched") == 1
    assert "[breaks 11 progress]" in told


@pytest.mark.parametrize("finding", STORIES, ids=lambda finding: str(len(finding.moments)))
def test_json_has_the_whole_verdict(finding):
    broken = {"1 no-sync-between": finding}
    verdict = verdict_of(finding, broken_invariants=broken, seed=3)
    text = json.dumps(verdict_to_json(verdict))
    assert verdict_from_json(json.loads(text)) == verdict
    assert json.loads(text)["schema"] == 1
    assert "seconds" not in verdict_to_json(verdict, timing=False)


@pytest.mark.parametrize("damage", [{}, [], None, {"schema": 2}, {"schema": 1}, "text"])
def test_json_that_is_no_verdict_is_a_value_error(damage):
    with pytest.raises(ValueError, match=r"no verdict|schema"):
        verdict_from_json(damage)
