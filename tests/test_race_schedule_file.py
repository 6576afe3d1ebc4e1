"""A schedule is a text file that comes back exactly, and whatever else is in its place is named in one line."""

import os
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from race_findings import loss_of_filter_on_ready

from vdev.errors import UserError
from vdev.race.acts import ACTORS, ACTS, parse_act
from vdev.race.combination import DIMENSIONS, Bound, Combination
from vdev.race.schedule_file import (
    Schedule,
    format_schedule,
    parse_schedule,
    read_schedule,
    schedule_of,
    write_schedule,
)
from vdev.race.verdict import Act
from vdev.run.options import STRATEGIES

WITH_PAGE = {"write", "free", "take", "send"}
combinations = st.builds(
    Combination, st.sampled_from(STRATEGIES), **{name: st.sampled_from(values) for name, values in DIMENSIONS.items()}
)
bounds = st.builds(
    Bound, st.integers(1, 64), st.integers(0, 64), st.integers(0, 64), st.integers(2, 16), st.integers(0, 1)
)


@st.composite
def schedules(draw):
    combination, bound = draw(combinations), draw(bounds)
    pages = st.integers(0, bound.pages - 1)
    actors = [actor for actor in ACTORS if actor != "vcpu 1" or combination.vcpus == "2"]
    acts = []
    for _ in range(draw(st.integers(1, 30))):
        actor = draw(st.sampled_from(actors))
        name = draw(st.sampled_from(ACTS[actor]))
        acts.append(Act(actor, name, draw(pages) if name in WITH_PAGE else None))
    lost = draw(st.none() | st.lists(pages, unique=True).map(tuple))
    breaks = draw(st.none() | st.sampled_from(["1 no-sync-between", "12 fresh-start"]))
    return Schedule(combination, bound, tuple(acts), lost, breaks)


@given(schedules())
def test_what_is_written_is_read_again_exactly(schedule):
    text = format_schedule(schedule)
    assert parse_schedule(text.encode(), "file") == schedule
    assert format_schedule(parse_schedule(text.encode(), "file")) == text


@given(st.binary(max_size=300))
def test_bytes_of_any_kind_are_refused_in_one_line(content):
    for head in (b"", b"vdev schedule 1\n", b"vdev schedule 1\nstrategy: none\n"):
        with pytest.raises(UserError) as caught:
            parse_schedule(head + content, "file")
        assert str(caught.value).startswith("file")
        assert "\n" not in str(caught.value)


def test_every_act_of_the_vocabulary_is_read_as_it_is_written():
    for actor, names in ACTS.items():
        for name in names:
            act = Act(actor, name, 7 if name in WITH_PAGE else None)
            assert parse_act(str(act)) == act


SCHEDULE = """\
vdev schedule 1
# lost on the way
strategy: filter-on-ready   # as in the thread
pages: 2

migrator: start
vcpu 1: write 1
"""


def test_what_is_left_out_is_usual_and_comments_say_nothing():
    schedule = parse_schedule(SCHEDULE.encode(), "file")
    acts = (Act("migrator", "start"), Act("vcpu 1", "write", 1))
    assert schedule == Schedule(Combination("filter-on-ready"), Bound(pages=2), acts)
    assert parse_schedule(SCHEDULE.replace("\n", "\r\n").encode(), "file") == schedule


REFUSALS = {
    "another version": ("schedule 1", "schedule 2", "file is a schedule of version 2; this vdev reads version 1"),
    "no version": ("schedule 1", "schedule", "file is no schedule of vdev's: its first line is not 'vdev schedule 1'"),
    "another program's": ("vdev schedule 1", "#!/bin/sh", "file is no schedule of vdev's"),
    "no strategy": ("strategy: filter-on-ready   ", "", "file:1: no line names the strategy"),
    "unknown strategy": ("filter-on-ready  ", "hope  ", "file:3: nobody knows the strategy 'hope'"),
    "unknown name": ("pages: 2", "colour: red", "file:4: nobody knows 'colour'"),
    "unknown value": ("pages: 2", "holds: tight", "file:4: holds cannot be 'tight'; it is one of until-queued"),
    "a name twice": ("pages: 2", "pages: 2\npages: 2", "file:5: pages is given a second time"),
    "a bound that cannot be": ("pages: 2", "pages: 0", "file:4: a bound of 0 pages; give 1 to 64"),
    "a bound that is no number": ("pages: 2", "pages: two", "file:4: 'two' is no number"),
    "a number of other digits": ("pages: 2", "pages: \u0662", "is no number"),
    "an endless number": ("pages: 2", f"pages: {'9' * 5000}", "is no number"),
    "a page that is not there": ("write 1", "write 2", "file:7: 'vcpu 1: write 2': the pages are 0 to 1"),
    "a vCPU that is not there": ("pages: 2", "vcpus: 1", "file:7: 'vcpu 1: write 1': "),
    "an unknown act": ("write 1", "read 1", "file:7: 'vcpu 1: read 1': vcpu 1 has no such act; it has write, free"),
    "an act of another actor": ("vcpu 1: write 1", "vcpu 1: take 1", "vcpu 1 has no such act"),
    "an act without its page": ("write 1", "write", "file:7: 'vcpu 1: write': write needs the number of a page"),
    "an act with a page too many": ("start", "start 1", "file:6: 'migrator: start 1': start stands alone"),
    "an unknown actor": ("vcpu 1", "vcpu 2", "file:7: nobody knows 'vcpu 2'; there are the actors vcpu 0"),
    "no colon": ("migrator: start", "migrator start", "file:6: 'migrator start' is neither"),
    "a name after an act": ("vcpu 1: write 1", "writes: 1", "file:7: writes stands after the first act"),
    "pages lost that are not there": (
        "pages: 2",
        "pages: 2\nlost: 2",
        "file:5: lost: give pages of 0 to 1, or nothing",
    ),
    "nothing known of what is lost": ("pages: 2", "pages: 2\nlost:", "file:5: lost: give pages of 0 to 1, or nothing"),
    "an unknown invariant": ("pages: 2", "pages: 2\nbreaks: glass", "file:5: nobody knows the invariant 'glass'"),
    "no acts": ("migrator: start\nvcpu 1: write 1\n", "", "there are no acts"),
}


@pytest.mark.parametrize("why", REFUSALS)
def test_is_refused_with_the_line_and_what_is_wrong(why):
    old, new, message = REFUSALS[why]
    assert old in SCHEDULE
    with pytest.raises(UserError) as caught:
        parse_schedule(SCHEDULE.replace(old, new).encode(), "file")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_line_that_is_no_text_is_named():
    content = SCHEDULE.encode().replace(b"pages", b"p\xffges")
    with pytest.raises(UserError, match=r"^file:4: this is no text$"):
        parse_schedule(content, "file")


def test_a_schedule_of_a_finding_says_how_it_ended(tmp_path):
    finding = loss_of_filter_on_ready()
    path = tmp_path / "loss.schedule"
    write_schedule(path, schedule_of(finding))
    assert read_schedule(path) == Schedule(finding.combination, finding.bound, finding.acts, (0,))
    assert "\nlost: 0\n" in path.read_text()
    assert asdict(read_schedule(path).bound) == asdict(finding.bound)


def test_a_path_that_cannot_be_read_is_named(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    (tmp_path / "huge").write_bytes(b"vdev schedule 1\n" + b"#" * (2 << 20))
    (tmp_path / "empty").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    names = {
        "nowhere": "No such file or directory",
        ".": "Is a directory",
        "pipe": "it is no regular file",
        "binary": "is no schedule of vdev's",
        "empty": "is no schedule of vdev's",
        "huge": "larger than any schedule",
        "loop": "symbolic links",
        "a\0b": "null byte",
        "n" * 300: "File name too long",
    }
    for name, why in names.items():
        with pytest.raises(UserError, match=why):
            read_schedule(tmp_path / name)
    with pytest.raises(UserError, match="no regular file"):
        read_schedule(type(tmp_path)("/dev/zero"))


@pytest.fixture
def not_root():
    """Root may read everything, so for one test this is somebody else."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    yield
    os.seteuid(before)


def test_a_file_without_permission_is_named(tmp_path, not_root):
    path = tmp_path / "secret"
    if os.getuid() != 0:  # where it is root's, the directory is closed already
        path.write_text(SCHEDULE)
        path.chmod(0)
    with pytest.raises(UserError, match="Permission denied"):
        read_schedule(path)


def test_a_schedule_is_not_written_where_it_cannot_be(tmp_path):
    with pytest.raises(UserError, match="cannot write"):
        write_schedule(tmp_path, schedule_of(loss_of_filter_on_ready()))
