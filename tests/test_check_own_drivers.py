"""Our drivers in a process of their own, judged over vhost-user in both ring formats: they keep the rules and live
through the games. Behind registers they are judged by test_check_driver_own.py."""

import shlex
import sys

import pytest

from vdev.check.driver.serving import judge_driver
from vdev.check.verdict import Verdict

pytestmark = pytest.mark.process

DRIVE = {"block": "--exercise 100000 --depth 8", "balloon": "", "entropy": "--bytes 64M"}
GAMES = ("plain", "late", "all-at-once", "out-of-order", "spurious-calls", "one-kept", "no-kicks", "kicks-by-flags")
BROKEN = (Verdict.FAIL, Verdict.CRASHED, Verdict.HUNG)


@pytest.mark.parametrize("ring_format", ["split", "packed"])
@pytest.mark.parametrize("kind", DRIVE)
def test_our_driver_over_vhost_user_breaks_nothing_and_lives_through_the_games(kind, ring_format, tmp_path):
    drive = f"{shlex.quote(sys.executable)} -m vdev drive {kind} {{socket}} --ring {ring_format} {DRIVE[kind]}"
    only = [f"game.{game}[{ring_format}]" for game in GAMES] + [f"*[plain/{ring_format}]"]
    report = judge_driver(kind, tmp_path / "judge", spawn=drive, only=only, patience=20, boot_patience=60)
    cases = {case.name: case for case in report.cases}
    assert [f"{case.name}: {case.why}" for case in report.cases if case.verdict in BROKEN] == []
    played = {game: cases[f"game.{game}[{ring_format}]"].verdict for game in GAMES}
    assert played == dict.fromkeys(GAMES, Verdict.PASS)
