"""Tests that somebody wrote for pytest as checks: their bench, what is seen after it, and a report of them all."""

import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from spec.device import Feature
from vdev import __version__
from vdev.check.bench.bench import Bench
from vdev.check.bench.traffic import traffic
from vdev.check.evidence import Evidence
from vdev.check.finding import Finding, of_ending, of_judgement, of_touched
from vdev.check.registry import RingFormat
from vdev.check.report.json_report import report_to_json
from vdev.check.report.page import report_page
from vdev.check.report.words import dump_bytes
from vdev.check.result import CaseResult, Report
from vdev.check.target import Target
from vdev.check.target_probe import Offer
from vdev.check.verdict import Judgement, NotApplicable, Verdict

__all__ = ["after", "bench_of", "report_of", "summary_of", "write_files"]


def bench_of(target: Target, type_name: str, format_name: str, offer: Offer, seed: str) -> Bench:
    """Return a bench for one test. `seed` names what its luck comes from.

    Raises NotApplicable if the device does not offer that format, UserError for a type that nobody knows.
    """
    ring_format = RingFormat(format_name)
    if ring_format is RingFormat.PACKED and not offer.has(Feature.RING_PACKED):
        raise NotApplicable("the device does not offer RING_PACKED")
    return Bench(target, traffic(type_name), ring_format, random=random.Random(seed))


def after(bench: Bench) -> str:
    """Look what a test left: memory that was touched, a device that crashed or hangs. Returns "" if all is well."""
    finding = Finding()
    try:
        bench.quiesce()
        finding = finding.worsen(of_touched(bench.memory.touched(), bench.format))
        bench.close()
        ending = bench.target.settle()
        if ending is not None:
            finding = finding.worsen(of_ending(ending))
    except Judgement as judgement:
        finding = finding.worsen(of_judgement(judgement))
    if finding.verdict is Verdict.PASS:
        return ""
    shown = [line for each in finding.shown for line in (f"{each.name}:", *dump_bytes(each))]
    statement = f" [{finding.statement}]" if finding.statement else ""
    return "\n".join([f"{finding.verdict.value}: {finding.why}{statement}", *shown])


class PhaseReport(Protocol):
    """What is needed of pytest's report of one phase of a test."""

    @property
    def outcome(self) -> str:
        """How it ended: passed, failed or skipped."""
        ...

    @property
    def duration(self) -> float:
        """Seconds."""
        ...

    @property
    def user_properties(self) -> list[tuple[str, object]]:
        """What the test noted."""
        ...

    @property
    def longreprtext(self) -> str:
        """Why it failed, in full."""
        ...


def report_of(tests: Mapping[str, Sequence[PhaseReport]], subject: Mapping[str, str], mark: str) -> Report:
    """Return a report with one case for each test; `mark` names the property that holds a test's statements."""
    cases = tuple(_case(name, reports, mark) for name, reports in tests.items())
    return Report(
        side="device",
        subject=subject,
        seed=0,
        cases=cases,
        seconds=sum(case.seconds for case in cases),
        vdev_version=__version__,
    )


def _case(name: str, reports: Sequence[PhaseReport], mark: str) -> CaseResult:
    noted = {key: value for report in reports for key, value in report.user_properties}
    covers = tuple(str(statement) for statement in _listed(noted[mark]))
    failed = next((report for report in reports if report.outcome == "failed"), None)
    skipped = any(report.outcome == "skipped" for report in reports)
    statement: str | None = None
    if failed is not None:
        verdict, statement = Verdict.FAIL, str(noted.get("vdev_statement") or covers[0])
    elif skipped:
        verdict = Verdict(noted.get("vdev_verdict", Verdict.NOT_APPLICABLE.value))
    else:
        verdict = Verdict.PASS
    path, _, test = name.partition("::")
    check, _, variant = test.partition("[")
    return CaseResult(
        check=f"{Path(path).stem}.{check}",
        variant=variant.removesuffix("]"),
        summary=check.replace("_", " "),
        covers=covers if statement is None or statement in covers else (*covers, statement),
        verdict=verdict,
        statement=statement,
        why=_last_line(failed.longreprtext) if failed is not None else "",
        evidence=Evidence(done=(failed.longreprtext,) if failed is not None else ()),
        seconds=sum(report.duration for report in reports),
        repeat=f"pytest '{name}'",
    )


def _listed(value: object) -> Iterable[object]:
    return value if isinstance(value, list | tuple) else ()


def _last_line(text: str) -> str:
    return next((line.removeprefix("E").strip() for line in reversed(text.splitlines()) if line.startswith("E ")), text)


def summary_of(report: Report) -> list[str]:
    """Return lines for a person: how many statements the tests cover, and each that was not kept."""
    statements = report.statements()
    counts = {verdict: sum(result.verdict is verdict for result in statements) for verdict in Verdict}
    told = ", ".join(f"{count} {verdict.value}" for verdict, count in counts.items() if count)
    lines = [f"{len(report.cases)} tests cover {len(statements)} statements: {told}"]
    lines += [
        f"{result.verdict.value:<12} {result.statement.id}: {result.statement.text}"
        for result in statements
        if result.verdict is not Verdict.PASS
    ]
    return lines


def write_files(report: Report, *, json_file: Path | None, page_file: Path | None) -> list[str]:
    """Write the report where it is wanted; returns a line for each file that cannot be written."""
    complaints = []
    forms: list[tuple[Path | None, Callable[[Report], str]]] = [(json_file, _as_json), (page_file, report_page)]
    for file, form in forms:
        if file is None:
            continue
        try:
            file.write_text(form(report), encoding="utf-8")
        except OSError as error:
            complaints.append(f"cannot write {file}: {error.strerror or error}")
    return complaints


def _as_json(report: Report) -> str:
    return json.dumps(report_to_json(report), indent=1) + "\n"
