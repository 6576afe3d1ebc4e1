"""A finding is told in lettered steps, and its JSON has all of it."""

import json
from itertools import pairwise

import pytest
from race_findings import FIRST_ID, Recorder, long_loss, loss_of_filter_on_ready, verdict_of

from vdev.race.combination import Bound, Combination
from vdev.race.finding_json import verdict_from_json, verdict_to_json
from vdev.race.steps import steps_of
from vdev.race.story import ending_of, story_of, tell
from vdev.race.turn_sentences import describe_turn
from vdev.race.turns import turns_of

STORIES = [loss_of_filter_on_ready(), long_loss(), long_loss(16)]


def test_a_story_reads_like_the_mails_did():
    lines = tell(loss_of_filter_on_ready()).splitlines()
    assert lines[:3] == [
        "filter-on-ready loses page 0 in 16 acts",
        "answer list, guest holds until-queued, dirty log get-and-clear, 2 vCPUs",
        "bound: 1 page, 2 writes, 2 hints, 3 syncs",
    ]
    assert lines[8:11] == [
        "b)  vcpu 0 reads id 1 and answers: page 0 is     0    1 0  0   0   held 0 queued      id 1 REQUESTED",
        "    free, held from now on (look, announce,",
        "    collect, queue)",
    ]
    assert (
        "c)  vcpu 1 takes page 0 back and writes it:      0    1 1  1   0   used 0 queued      id 1 REQUESTED" in lines
    )
    told = " ".join(" ".join(lines).split())
    assert "sends page 0: the destination has version 1 (take 0, send 0)" in " ".join(
        line[4:47].strip() for line in lines
    )
    assert told.endswith(
        " The migrator halts the vCPUs and is done, as M is empty (stop, complete)."
        " Page 0 is lost: the guest relies on version 2, which e) wrote, and the destination has version 1."
        " Step g) took it out of M, the last trace of that write, for a hint that was collected in b),"
        " before the sync in f)."
    )


def test_a_story_of_each_act_has_a_letter_for_each():
    text = tell(loss_of_filter_on_ready(), each_act=True)
    assert (
        "\nd)  vcpu 0 collects page 0: off the free list,   0    1 0  0   0   held 0 collected   id 1 REQUESTED\n"
        in text
    )
    assert "\np)  migrator finds M empty" in text
    told = " ".join(text.split())
    assert "M empty (stop" not in told
    assert told.endswith(
        "version 1. Step l) took it out of M, the last trace of that write,"
        " for a hint that was collected in d), before the sync in j)."
    )


@pytest.mark.parametrize("each_act", [False, True])
@pytest.mark.parametrize("finding", STORIES, ids=lambda finding: str(len(finding.moments)))
def test_no_line_is_wider_than_a_terminal_and_no_step_is_left_out(finding, each_act):
    lines = tell(finding, each_act=each_act).splitlines()
    assert max(map(len, lines)) <= 100
    turns = turns_of(finding, each_act=each_act)
    assert [step.number for turn in turns for step in turn.steps] == list(range(len(finding.moments)))
    for turn in turns:
        assert turn.letter is None or sum(line.startswith(f"{turn.letter}) ") for line in lines) == 1
    assert all(one.actor != other.actor for one, other in pairwise(turns) if other.letter) or each_act


def test_a_hint_that_is_made_available_in_a_later_turn_is_told_as_old():
    r = Recorder(Combination("command-id", holds="nothing", collects="before-announcing"), Bound())
    r.act("migrator", "start", shown_id=FIRST_ID, syncs=1)
    r.act("vcpu 0", "look")
    r.act("vcpu 0", "collect", hints=[((0,), 1, "collected")])
    r.act("migrator", "sync", shown_id=FIRST_ID + 1, syncs=1)
    r.act("vcpu 0", "look")
    r.act("vcpu 0", "announce")
    r.act("vcpu 0", "queue", hints=[((0,), 1, "queued")])
    _, early, _, late = (describe_turn(turn, r.combination) for turn in turns_of(r.finding()))
    assert early == "vcpu 0 reads id 1 and collects page 0 (not held) (look, collect)"
    assert late == ("vcpu 0 reads id 2 and answers: page 0 was free when it was collected (look, announce, queue)")


def test_an_end_in_which_something_happens_has_its_letter():
    r = Recorder(Combination("filter-on-ready"), Bound())
    r.act("migrator", "start", pages={0: {"to_send": True}}, syncs=1)
    r.act("vcpu 1", "write", 0, pages={0: {"use": "used", "dirty": True, "source": 1, "wanted": 1}})
    r.act("migrator", "stop", pages={0: {"to_send": False, "dirty": False}}, syncs=1)
    r.act("migrator", "complete")
    assert [turn.letter for turn in turns_of(r.finding((0,)))] == ["a", "b", "c"]


def test_a_page_that_is_destroyed_at_the_source_is_told_as_such():
    assert ending_of(long_loss(16)) == (
        "Page 2 is lost: the guest relies on version 9, which j) wrote, and the destination never got the page."
        " Step k) destroyed it at the source."
    )


def test_the_fatal_step_is_the_one_that_erases_the_last_trace():
    (fatal,) = (step for step in steps_of(loss_of_filter_on_ready()) if step.is_fatal)
    assert str(fatal.moment.act) == "handler: filter"
    (write,) = (step for step in steps_of(loss_of_filter_on_ready()) if step.is_lost_write)
    assert write.number == 8
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
    assert text.startswith("command-id breaks 4 log-before-request in 2 acts\n")
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
    letters = [moment["letter"] for moment in json.loads(text)["loss"]["moments"]]
    assert letters == [turn.letter for turn in turns_of(finding) for _ in turn.steps]
    assert "seconds" not in verdict_to_json(verdict, timing=False)


@pytest.mark.parametrize("damage", [{}, [], None, {"schema": 2}, {"schema": 1}, "text"])
def test_json_that_is_no_verdict_is_a_value_error(damage):
    with pytest.raises(ValueError, match=r"no verdict|schema"):
        verdict_from_json(damage)
