"""The plugin for pytest: checks of your own, written as tests, against a device behind a vhost-user socket.

    pytest --vdev-target /run/device.sock --vdev-type block

gives a test that asks for the fixture `vdev_bench` the driver's end of that device, once for each ring format, and
counts which statements `@covers(...)` names. docs/check-with-pytest.md has an example.
"""

import difflib
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from vdev.check.bench.bench import Bench
    from vdev.check.target import Target
    from vdev.check.target_probe import Offer

__all__ = ["covers"]

_MARK = "vdev_covers"
_FORMATS = ("split", "packed")


def covers(*statements: str) -> pytest.MarkDecorator:
    """Say which statements of `spec.statements` a test shows kept or broken: counted, and named in the summary.

    Raises ValueError for an id that the catalogue does not have.
    """
    from spec.statements import catalogue

    for statement in statements:
        if statement not in catalogue():
            near = difflib.get_close_matches(statement, catalogue(), 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"there is no statement {statement}{hint}")
    return getattr(pytest.mark, _MARK)(*statements)  # type: ignore[no-any-return]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that say who is judged."""
    group = parser.getgroup("vdev", "checks of a virtio device (vdev)")
    group.addoption("--vdev-target", metavar="SOCKET", help="where the device's vhost-user back end listens")
    group.addoption(
        "--vdev-type", metavar="TYPE", default="generic", help="block, entropy, balloon, net, fs or generic"
    )
    group.addoption("--vdev-spawn", metavar="COMMAND", help='start the back end with this: "COMMAND {socket}"')
    group.addoption("--vdev-patience", metavar="SECONDS", type=float, default=5.0, help="for each answer [5]")
    group.addoption(
        "--vdev-json", metavar="FILE", type=Path, help="write the report of the tests that cover statements"
    )
    group.addoption("--vdev-html", metavar="FILE", type=Path, help="the same as a page")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the mark that `covers` sets, and listen to reports where they meet."""
    config.addinivalue_line("markers", f"{_MARK}(*ids): the statements of virtio that the test shows (vdev)")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Collector(config), "vdev-collector")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Have a test with a bench run for each ring format."""
    if "vdev_format" in metafunc.fixturenames:
        metafunc.parametrize("vdev_format", _FORMATS, scope="function")


@pytest.fixture(scope="session")
def vdev_target(request: pytest.FixtureRequest) -> "Iterator[Target]":
    """The device that --vdev-target and --vdev-spawn name; without them what asks for it is skipped."""
    path, spawn = request.config.getoption("--vdev-target"), request.config.getoption("--vdev-spawn")
    if path is None and spawn is None:
        pytest.skip("no --vdev-target SOCKET was given")
    from vdev.check.target_socket import SocketTarget
    from vdev.errors import UserError

    try:
        target = SocketTarget(path, spawn=spawn, patience=request.config.getoption("--vdev-patience"))
    except UserError as error:
        pytest.exit(f"vdev: {error}", returncode=pytest.ExitCode.USAGE_ERROR)
    try:
        yield target
    finally:
        target.close()


@pytest.fixture(scope="session")
def vdev_offer(vdev_target: "Target") -> "Offer":
    """What the device offers: `features` and `protocol_features`, masks."""
    from vdev.check.target_probe import offer_of
    from vdev.errors import VdevError

    try:
        offer = offer_of(vdev_target)
        vdev_target.settle()
    except VdevError as error:
        pytest.exit(f"vdev: nobody can be judged: {error}", returncode=pytest.ExitCode.USAGE_ERROR)
    return offer


@pytest.fixture
def vdev_bench(
    request: pytest.FixtureRequest, vdev_format: str, vdev_target: "Target", vdev_offer: "Offer"
) -> "Iterator[Bench]":
    """The driver's end of a fresh connection to the device, a `vdev.check.bench.bench.Bench`.

    Afterwards the test fails if the device touched memory that it was not given, crashed, or hangs.
    """
    from vdev.check.own_checks import after, bench_of
    from vdev.check.verdict import NotApplicable
    from vdev.errors import UserError

    type_name = request.config.getoption("--vdev-type")
    try:
        bench = bench_of(vdev_target, type_name, vdev_format, vdev_offer, request.node.nodeid)
    except NotApplicable as reason:
        pytest.skip(str(reason))
    except UserError as error:
        pytest.exit(f"vdev: {error}", returncode=pytest.ExitCode.USAGE_ERROR)
    with bench:
        yield bench
        complaint = after(bench)
    if complaint:
        pytest.fail(complaint, pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Skip a test that found that its condition is not met, or that nothing can be said; note what it covers."""
    statements = [name for mark in item.iter_markers(_MARK) for name in mark.args]
    if statements:
        item.user_properties.append((_MARK, statements))
    try:
        return (yield)
    except Exception as error:
        # Whoever raised one of these has imported them.
        verdicts = sys.modules.get("vdev.check.verdict")
        if verdicts is not None and isinstance(error, verdicts.NotApplicable | verdicts.Inconclusive):
            item.user_properties.append(("vdev_verdict", error.verdict.value))
            pytest.skip(f"{error.verdict.value}: {error}")
        if verdicts is not None and isinstance(error, verdicts.Failed):
            item.user_properties.append(("vdev_statement", error.statement))
        raise


class _Collector:
    """Collects what came of the tests that cover statements; with xdist in the process where all reports meet."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._reports: dict[str, list[pytest.TestReport]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the reports of a test: of its set-up, itself, and what was seen after it."""
        self._reports.setdefault(report.nodeid, []).append(report)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say how many statements were covered and which were broken; write the files that were asked for."""
        covering = {
            nodeid: reports
            for nodeid, reports in self._reports.items()
            if any(name == _MARK for report in reports for name, _ in report.user_properties)
        }
        if not covering:
            return
        from vdev.check.own_checks import report_of, summary_of, write_files

        option = self._config.getoption
        subject = {"type": option("--vdev-type"), "socket": option("--vdev-target") or "", "checks": "tests of pytest"}
        report = report_of(covering, subject, _MARK)
        terminalreporter.section("statements of virtio")
        for line in summary_of(report):
            terminalreporter.write_line(line)
        for complaint in write_files(report, json_file=option("--vdev-json"), page_file=option("--vdev-html")):
            terminalreporter.write_line(complaint, red=True)
