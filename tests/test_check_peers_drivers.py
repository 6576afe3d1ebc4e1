"""Drivers of real Linux guests before the judging device: what is seen of them, and what is not as the text says."""

import shlex
import sys

import pytest
from peers import judged_guest
from peers.have import have

from vdev.check.driver.serving import judge_driver
from vdev.check.verdict import Verdict

pytestmark = pytest.mark.process

BAD = (Verdict.FAIL, Verdict.HUNG, Verdict.CRASHED)

# What these guests do otherwise than the text, each seen many times: by rule, how it is told.
# Its front end asks for an answer to SET_PROTOCOL_FEATURES, with which it agrees to answers.
EARLY = {
    "front-end.no-early-acknowledgement": "expected no NEED_REPLY before REPLY_ACK is agreed; "
    "observed SET_PROTOCOL_FEATURES with it",
}
ALWAYS = {
    ("uml", "balloon"): EARLY,
    ("uml", "block"): {
        **EARLY,
        "block.direction": "expected no device-writable data in SECURE_ERASE; observed 16 bytes",
    },
}
# This hangs on a moment: the field changes between two looks of the driver at it.
SOMETIMES = {
    "balloon.hints-stop": (
        "expected no hints while free_page_hint_cmd_id is STOP or DONE; "
        "observed the driver sent DONE in place of a command id, and then hints",
        "expected no hints while free_page_hint_cmd_id is STOP or DONE; "
        "observed the driver sent STOP in place of a command id, and then hints",
    ),
}

BALLOON_GAMES = ("plain", "late", "balloon-sizes", "balloon-slow", "balloon-statistics", "balloon-scribbles")
HINT_GAMES = ("balloon-ids", "balloon-hints-again", "config-storm")
BLOCK_GAMES = ("plain", "late", "out-of-order", "block-errors", "block-resizes", "config-storm")


def judged(name, kind, tmp_path, *only):
    have(lambda: judged_guest.command(name, kind, "SOCKET"))
    spawn = f"{shlex.quote(sys.executable)} {shlex.quote(judged_guest.__file__)} {name} {kind} {{socket}}"
    report = judge_driver(kind, tmp_path / "s", spawn=spawn, only=[f"*[{each}]" for each in only], patience=10)
    found = {case.check: case.why for case in report.cases if case.verdict in BAD}
    always = ALWAYS.get((name, kind), {})
    assert {check: why for check, why in found.items() if why not in SOMETIMES.get(check, ())} == always
    games = {case.name: case for case in report.cases if case.check.startswith("game.")}
    assert games
    assert {case.name: case.why for case in games.values() if case.verdict is not Verdict.PASS} == {}
    return {case.check for case in report.cases if case.verdict is Verdict.PASS}


def of_type(passed, kind):
    return {name.removeprefix(f"{kind}.") for name in passed if name.startswith(f"{kind}.")}


ABOUT_BALLOONS = {
    "must-tell-host",
    "page-numbers",
    "no-deflate-before-inflate",
    "gives-pages",
    "actual",
    "inflating-pages",
    "deflating-pages",
    "told-of-use",
    "statistics-buffer",
    "one-statistics-buffer",
    "first-statistics",
    "next-statistics",
    "statistics-are-filled",
    "statistics-size",
    "same-statistics",
    "hinted-pages",
    "id-size",
    "hints-begin-with-the-id",
    "id-once",
    "hints",
    "hints-end",
}

ABOUT_DISKS = {
    "framing",
    "direction",
    "types",
    "flush-sector",
    "flush-data",
    "whole-sectors",
    "whole-ranges",
    "id-size",
    "discard-without-unmap",
    "discard-ranges",
    "zeroes-ranges",
    "range-sectors",
    "ranges-inside",
    "inside-capacity",
    "looks-at-capacity",
    "seg-max",
    "size-max",
}


@pytest.mark.peer_uml
def test_the_balloon_of_user_mode_linux(tmp_path):
    passed = judged(
        "uml",
        "balloon",
        tmp_path,
        *(f"{game}/packed" for game in (*BALLOON_GAMES, *HINT_GAMES)),
        "plain/split",
        "balloon-keeps/split",
    )
    assert of_type(passed, "balloon") >= {*ABOUT_BALLOONS, "deflation-is-wanted"}


@pytest.mark.peer_uml
def test_the_disk_of_user_mode_linux(tmp_path):
    passed = judged(
        "uml",
        "block",
        tmp_path,
        *(f"{game}/split" for game in BLOCK_GAMES),
        "block-small-limits/packed",
        "block-read-only/split",
    )
    assert of_type(passed, "block") >= ABOUT_DISKS - {"direction"} | {"takes-read-only", "read-only", "erase-ranges"}


@pytest.mark.peer_qemu
def test_the_balloon_of_a_new_linux_under_qemu(tmp_path):
    games = ("plain", "late", "balloon-sizes", "balloon-statistics", *HINT_GAMES)
    passed = judged("linux-7.3", "balloon", tmp_path, *(f"{game}/packed" for game in games))
    assert of_type(passed, "balloon") >= ABOUT_BALLOONS


@pytest.mark.peer_qemu
def test_the_disk_of_an_older_linux_under_qemu(tmp_path):
    passed = judged("linux-6.12", "block", tmp_path, *(f"{game}/packed" for game in BLOCK_GAMES))
    assert of_type(passed, "block") >= ABOUT_DISKS


@pytest.mark.peer_uml
def test_what_the_scoreboard_judges_are_commands_for_each_guest_and_type():
    have(lambda: judged_guest.command("uml", "block", "SOCKET"))
    guests = list(judged_guest.judged_guests())
    assert ("Linux 6.1 (user-mode)", "block") in {(peer, kind) for peer, kind, _ in guests}
    assert all("{socket}" in command for _, _, command in guests)
