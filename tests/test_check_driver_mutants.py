"""Each rule and each game can fail: a driver with a small fault breaks just the one that is for it."""

import fnmatch

import pytest
from check_driver_mutants import assert_killed, mutants_of_drivers
from check_mutants_driver_front_end import judged, session

from vdev.check.driver.game import driver_games
from vdev.check.driver.games import load_games
from vdev.check.driver.rule import driver_rules
from vdev.check.driver.rules import load_rules
from vdev.check.verdict import Verdict

MUTANTS = mutants_of_drivers()


def names():
    load_rules()
    load_games()
    return {*driver_rules(), *(f"game.{name}" for name in driver_games())}


@pytest.mark.parametrize("mutant", [pytest.param(mutant, id=f"{subject}:{mutant.name}") for subject, mutant in MUTANTS])
def test_a_mutant_breaks_just_its_rules(mutant):
    assert_killed(mutant)


def test_no_mutant_names_a_rule_that_is_not_there():
    named = {name for _, mutant in MUTANTS for name in mutant.kills | mutant.also}
    assert [name for name in named if not fnmatch.filter(names(), name)] == []


def test_a_session_that_is_right_breaks_no_rule_of_front_ends():
    cases = {name: case for name, case in judged(session()).items() if name.startswith("front-end.")}
    assert {name: case.why for name, case in cases.items() if case.verdict is not Verdict.PASS} == {}


def test_each_rule_and_each_game_has_a_mutant_that_breaks_it():
    killed = {name for _, mutant in MUTANTS for name in mutant.kills}
    assert sorted(names() - killed) == []
