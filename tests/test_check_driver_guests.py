"""Our own guest keeps every rule about balloons and disks, whatever the judging device plays with it."""

import pytest
from check_driver_setup import breaches
from check_guest_setup import BalloonGuest, DiskGuest, judge_guest

from spec.balloon import BalloonFeature
from spec.device import feature_mask

POISONING = type("Poisoning", (BalloonGuest,), {"options": {"poison_value": 0x5A5A_5A5A}})


@pytest.mark.parametrize("own", [BalloonGuest, DiskGuest], ids=["balloon", "disk"])
def test_our_guest_lives_through_all_games_and_breaks_nothing(own):
    cases = judge_guest(own.device_type, own)
    assert breaches(cases) == {}
    played = [name for name, case in cases.items() if name.startswith("game.") and case.verdict.value == "PASS"]
    assert len(played) >= 20


def test_a_guest_that_poisons_its_pages_keeps_the_rules_about_that():
    games = ("late", "balloon-scribbles", "balloon-keeps", "balloon-scribbles-reported")
    cases = judge_guest("balloon", POISONING, only=[f"*[{game}/packed]" for game in games])
    assert breaches(cases) == {}
    about = ("balloon.poison", "balloon.deflated", "balloon.reported-pages-hold")
    verdicts = {name: case.verdict.value for name, case in cases.items() if name.startswith(about)}
    assert set(verdicts.values()) == {"PASS"}


@pytest.mark.parametrize(
    ("own", "unseen"),
    [
        # What our driver never does, or never has: a pattern, a secure erase, a look at the cache mode.
        (BalloonGuest, {"poison", "pattern", "filled"}),
        (DiskGuest, {"erase", "writeback"}),
    ],
    ids=["balloon", "disk"],
)
def test_every_rule_of_the_type_is_exercised(own, unseen):
    cases = judge_guest(own.device_type, own)
    quiet = {
        name
        for name, case in cases.items()
        if name.startswith(f"{own.device_type}.") and case.verdict.value not in ("PASS", "FAIL")
    }
    assert {name for name in quiet if not any(word in name for word in unseen)} == set()


def test_a_guest_without_a_feature_is_not_judged_by_its_rules():
    offered = ~feature_mask(BalloonFeature.STATS_VQ)
    cases = judge_guest("balloon", only=["*[plain/split]"], offered=offered)
    assert cases["balloon.same-statistics"].verdict.value == "N/A"
    assert breaches(cases) == {}
