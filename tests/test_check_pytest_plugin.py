"""Checks of one's own as tests of pytest: a bench from a fixture, statements counted, each verdict an outcome."""

import json
import shlex
import sys

import pytest

from vdev.pytest_plugin import covers

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.process

SERVE = f"{shlex.quote(sys.executable)} -m vdev serve entropy --socket {{socket}}"

OWN_CHECKS = """
from vdev.pytest_plugin import covers
from vdev.check.verdict import Inconclusive, NotApplicable

@covers("entropy.device.operation.1")
def test_there_is_something_in_the_buffer(vdev_bench):
    vdev_bench.start()
    ring = vdev_bench.ring()
    used = vdev_bench.exchange(ring)
    vdev_bench.expect(used.length > 0, "entropy.device.operation.1", expected="some bytes", observed="none")

@covers("split.device.used-ring.1")
def test_what_cannot_hold(vdev_bench):
    vdev_bench.fail("split.device.used-ring.1", expected="the sun", observed="rain")

@covers("split.device.used-ring.2")
def test_nothing_to_say(vdev_bench):
    vdev_bench.inconclusive("it is too dark")

@covers("split.device.used-ring.3")
def test_not_meant(vdev_bench):
    vdev_bench.not_applicable("there is no moon")

def test_without_statements(vdev_bench):
    assert vdev_bench.offered >> 32 & 1
"""


def run(pytester, *options, source=OWN_CHECKS):
    pytester.makepyfile(test_own=source)
    # A process of its own: another pytest in this one would share its modules' state.
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *options)


def test_own_checks_of_our_entropy_device_end_as_they_should(pytester, tmp_path):
    report = tmp_path / "report.json"
    result = run(
        pytester, "--vdev-spawn", SERVE, "--vdev-type", "entropy", "--vdev-json", str(report), "--vdev-html", "r.html"
    )
    result.assert_outcomes(passed=4, failed=2, skipped=4)
    result.stdout.fnmatch_lines(
        [
            "*Failed: expected the sun; observed rain*",
            "8 tests cover 4 statements: 1 FAIL, 1 INCONCLUSIVE, 1 PASS, 1 N/A",
            "FAIL * split.device.used-ring.1: *",
        ]
    )
    cases = {case["name"]: case["verdict"] for case in json.loads(report.read_text())["cases"]}
    assert cases["test_own.test_there_is_something_in_the_buffer[packed]"] == "PASS"
    assert cases["test_own.test_what_cannot_hold[split]"] == "FAIL"
    assert cases["test_own.test_nothing_to_say[split]"] == "INCONCLUSIVE"
    assert cases["test_own.test_not_meant[split]"] == "N/A"
    assert "test_what_cannot_hold" in (pytester.path / "r.html").read_text()


def test_the_packed_half_is_skipped_where_it_is_not_offered(pytester):
    result = run(
        pytester, "--vdev-spawn", f"{SERVE} --without RING_PACKED", "--vdev-type", "entropy", "-k", "something"
    )
    result.assert_outcomes(passed=1, skipped=1)


def test_workers_of_xdist_count_into_one_summary(pytester):
    result = run(pytester, "--vdev-spawn", SERVE, "--vdev-type", "entropy", "-n", "2", "-p", "xdist")
    result.assert_outcomes(passed=4, failed=2, skipped=4)
    result.stdout.fnmatch_lines(["8 tests cover 4 statements: *"])


def test_without_a_target_the_tests_are_skipped_with_the_reason(pytester):
    result = run(pytester, "-rs")
    result.assert_outcomes(skipped=10)
    result.stdout.fnmatch_lines(["*no --vdev-target SOCKET was given*"])


def test_a_device_that_dies_of_a_test_fails_it(pytester):
    source = """
import os

def test_murder(vdev_bench, vdev_target):
    vdev_bench.start()
    os.kill(vdev_target.pid, 11)
"""
    result = run(pytester, "--vdev-spawn", SERVE, "--vdev-type", "entropy", "-k", "split", source=source)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*CRASHED: *"])


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--vdev-target", "/nowhere/x.sock"], "*nobody accepts at /nowhere/x.sock*"),
        (["--vdev-spawn", "no-such-command-anywhere {socket}"], "*no-such-command-anywhere*"),
        (["--vdev-spawn", SERVE, "--vdev-type", "toaster"], "*toaster*"),
    ],
)
def test_what_was_typed_wrong_is_one_line(pytester, options, line):
    result = run(pytester, *options, "-k", "something and split")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stdout.fnmatch_lines([f"!* vdev: {line} !*"])
    assert "Traceback" not in result.stdout.str() + result.stderr.str()


def test_covers_refuses_what_the_catalogue_does_not_have():
    with pytest.raises(
        ValueError, match=r"no statement split.device.used-ring.99; did you mean split.device.used-ring"
    ):
        covers("split.device.used-ring.99")


def test_a_pytest_that_judges_nothing_does_not_import_the_checks(pytester):
    source = (
        "import sys\n\ndef test_it():\n    assert not [name for name in sys.modules if name.startswith('vdev.check')]"
    )
    run(pytester, source=source).assert_outcomes(passed=1)
