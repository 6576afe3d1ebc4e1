"""Our own drivers keep every rule, and live through every game."""

import pytest
from check_driver_setup import failed, judge_own

from vdev.check.verdict import Verdict


@pytest.fixture(scope="module")
def entropy():
    return judge_own()


def test_the_entropy_driver_breaks_no_rule(entropy):
    assert failed(entropy) == {}


def test_games_are_played_in_both_formats(entropy):
    assert {entropy[f"game.late[{each}]"].verdict for each in ("split", "packed")} == {Verdict.PASS}
