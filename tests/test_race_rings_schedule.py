"""A ring race's schedule is a file that a person can read and change; what is wrong in it is said in one line."""

import json

import pytest
from race_rings_mutants import FENCE, put

from guest_agent.virtqueue.split import SplitDriverQueue
from vdev.errors import UserError
from vdev.race.rings import (
    RingScenario,
    format_ring_schedule,
    parse_ring_schedule,
    replay,
    ring_schedule_of,
    search,
)


@pytest.fixture
def finding(monkeypatch):
    put(monkeypatch, SplitDriverQueue, "should_kick", (FENCE, "pass"))
    return search(RingScenario(event_idx=False)).finding


def test_a_schedule_goes_through_its_file_and_replays(finding):
    text = format_ring_schedule(ring_schedule_of(finding))
    schedule = parse_ring_schedule(text.encode(), "lost.txt")
    assert (schedule.scenario, schedule.model, schedule.breaks) == (finding.scenario, "tso", "lost kick")
    assert replay(schedule) == finding
    assert format_ring_schedule(schedule) == text


def test_comments_and_what_is_usual_may_be_left_out_and_put_in(finding):
    lines = format_ring_schedule(ring_schedule_of(finding)).splitlines()
    kept = [line for line in lines if not line.startswith(("segments", "indirect", "model", "batches", "breaks"))]
    text = "\n".join(line + "  # said by hand" if number else line for number, line in enumerate(kept))
    text = text.replace("\n  # said by hand", "\n\n# where it begins\n")
    schedule = parse_ring_schedule(text.encode(), "lost.txt")
    assert schedule.breaks is None
    assert replay(schedule) == finding


def test_steps_that_end_before_anything_breaks_break_nothing(finding):
    text = "\n".join(format_ring_schedule(ring_schedule_of(finding)).splitlines()[:-1])
    assert replay(parse_ring_schedule(text.encode(), "short.txt")) is None


def test_a_finding_is_told_in_lettered_steps(finding):
    lines = finding.lettered()
    assert lines[0].startswith("a) driver stores avail.flags = 0x1 (in its store buffer)")
    assert lines[26].startswith("aa) ")
    assert lines[-1] == "=> lost kick: the device sleeps with 1 buffer available and not seen"
    told = json.dumps(finding.to_json())
    assert "lost kick" in told
    assert len(json.loads(told)["steps"]) == len(finding.steps) == len(lines) - 1


HEAD = b"vdev ring schedule 1\nformat: split\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "f is no ring schedule: it does not begin with 'vdev ring schedule'"),
        (b"vdev schedule 1\n", "f is no ring schedule: it does not begin"),
        (b"\xff\xfe", "f is no ring schedule: it is no text"),
        (b"vdev ring schedule 2\n", "f is a ring schedule of version 2; this vdev reads version 1"),
        (HEAD + b"format: packed\n", "f:3: format is given twice"),
        (HEAD + b"colour: red\n", "f:3: 'colour: red' is no line of a ring schedule's head"),
        (HEAD + b"packed\n", "f:3: 'packed' is no line of a ring schedule's head"),
        (HEAD + b"event-idx: perhaps\n", "f:3: event-idx is yes or no, not 'perhaps'"),
        (HEAD + b"size: -1\n", "f:3: size is a number, not '-1'"),
        (HEAD + b"size: 3\n", "f: a split ring of 3 descriptors; its size is a power of two"),
        (HEAD + b"model: arm\n", "f:3: model cannot be 'arm'; choose one of tso, sc"),
    ],
)
def test_a_file_that_is_none_is_refused_with_one_line(content, message):
    with pytest.raises(UserError) as refusal:
        parse_ring_schedule(content, "f")
    assert str(refusal.value).startswith(message)
    assert "\n" not in str(refusal.value)


def test_a_step_that_cannot_be_is_named_with_its_line():
    schedule = parse_ring_schedule(HEAD + b"\ndevice: wakes\n", "f")
    with pytest.raises(UserError, match=r"f:4: 'device: wakes' cannot be here; 'driver: stores avail\.used_event"):
        replay(schedule)
