"""Our own drivers keep every rule, and live through every game."""

import pytest
from check_driver_setup import Disk, Entropy, Rings, breaches, judge_own

from vdev.check.verdict import Verdict


@pytest.fixture(scope="module", params=[Entropy, Rings, Disk], ids=lambda own: own.__name__)
def judged(request):
    device_type = "block" if request.param is Disk else "entropy"
    return request.param, judge_own(request.param, device_type)


def test_no_rule_is_broken_and_every_game_is_lived_through(judged):
    _, cases = judged
    assert breaches(cases) == {}
    games = {name: case.verdict for name, case in cases.items() if name.startswith("game.")}
    assert {name for name, verdict in games.items() if verdict not in (Verdict.PASS, Verdict.NOT_APPLICABLE)} == set()
    assert len(games) > 30


def test_what_is_inconclusive_is_what_a_driver_never_does(judged):
    own, cases = judged
    unseen = {name for name, case in cases.items() if case.verdict is Verdict.INCONCLUSIVE and "." in name}
    allowed = {"mmio.stop-is-read-back", "status.reset-after-failed"}
    if own is not Rings:
        allowed |= {"mmio.queue-reset-is-read-back", "mmio.queue-set-up-anew"}
    assert {name for name in unseen if not name.startswith(("block.", "split.", "packed.", "ring."))} <= allowed | {
        "mmio.field-width"
    }
    if own is Rings:
        assert unseen <= allowed | {"mmio.field-width"}


def test_games_are_played_in_both_formats(judged):
    _, cases = judged
    assert {cases[f"game.late[{each}]"].verdict for each in ("split", "packed")} == {Verdict.PASS}


def test_a_case_of_one_format_says_nothing_of_the_other(judged):
    _, cases = judged
    for case in cases.values():
        if case.variant in ("split", "packed"):
            other = {"split": "packed.", "packed": "split."}[case.variant]
            assert not [each for each in case.covers if each.startswith(other)], case.name
