"""Each check can fail: a device with a small fault is failed by just the check that is for it, and ours by none."""

import fnmatch

import pytest
from check_mutants import LIST, UNBROKEN, assert_kills, broken, list_text, mutants_of_devices

from spec.statements import catalogue
from vdev.check.checks import load_device_checks
from vdev.check.coverage import coverage, covered_statements, is_of_the_text, read_mutants
from vdev.check.run import judge
from vdev.check.target_registers import RegistersTarget
from vdev.check.target_thread import ThreadTarget
from vdev.check.verdict import Verdict
from vdev.cli.check_driver import driver_covers

MUTANTS = mutants_of_devices()
GOOD = (Verdict.PASS, Verdict.NOT_APPLICABLE)


@pytest.mark.parametrize("mutant", [pytest.param(mutant, id=f"{subject}:{mutant.name}") for subject, mutant in MUTANTS])
def test_a_mutant_is_failed_by_just_its_checks(mutant):
    assert_kills(mutant)


@pytest.mark.parametrize("target", [RegistersTarget, ThreadTarget])
@pytest.mark.parametrize("kind", UNBROKEN)
def test_our_own_device_passes_every_check(kind, target):
    report = judge(target(UNBROKEN[kind]()), kind)
    others = [f"{case.verdict.value} {case.name}: {case.why}" for case in report.cases if case.verdict not in GOOD]
    assert not others
    assert not broken(report.cases)
    assert report.count(Verdict.PASS) > 50


def test_each_check_has_a_mutant_that_fails_it():
    killed = {name for _, mutant in MUTANTS for name in mutant.kills}
    assert set(load_device_checks()) - killed == set()


def test_no_mutant_names_a_check_that_is_not_there():
    named = {name for _, mutant in MUTANTS for name in mutant.kills | mutant.also}
    assert [name for name in named if not fnmatch.filter(load_device_checks(), name)] == []


def test_mutants_have_names_of_their_own():
    names = [f"{subject}:{mutant.name}" for subject, mutant in MUTANTS]
    assert len(names) == len(set(names))


def test_the_list_that_is_shipped_is_that_of_the_tests():
    assert LIST.read_text(encoding="utf-8") == list_text(), "run: python tests/check_mutants.py"


def test_at_least_nine_in_ten_testable_absolute_statements_are_proven():
    of_devices = {name: check.covers for name, check in load_device_checks().items()}
    covered_by = covered_statements({**of_devices, **driver_covers()})
    statements = [statement for statement in catalogue().values() if is_of_the_text(statement)]
    assert coverage(statements, covered_by, read_mutants()).share >= 0.9
