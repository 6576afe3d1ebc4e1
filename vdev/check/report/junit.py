"""A report as JUnit XML, which CI services show: one test case for each case.

FAIL is a failure; CRASHED and HUNG are errors; N/A and INCONCLUSIVE are skipped, with the reason.
"""

import re
import xml.etree.ElementTree as ET

from vdev.check.report.words import dump_bytes, event_line
from vdev.check.result import CaseResult, Report
from vdev.check.verdict import Verdict

__all__ = ["report_to_junit"]

_ELEMENTS = {
    Verdict.FAIL: "failure",
    Verdict.CRASHED: "error",
    Verdict.HUNG: "error",
    Verdict.INCONCLUSIVE: "skipped",
    Verdict.NOT_APPLICABLE: "skipped",
}


def report_to_junit(report: Report) -> str:
    """Return the whole file's text."""
    cases = [(case, _ELEMENTS.get(case.verdict)) for case in report.cases]
    counts = {
        "tests": len(cases),
        "failures": sum(element == "failure" for _, element in cases),
        "errors": sum(element == "error" for _, element in cases),
        "skipped": sum(element == "skipped" for _, element in cases),
    }
    attributes = {name: str(count) for name, count in counts.items()} | {"time": f"{report.seconds:.3f}"}
    root = ET.Element("testsuites", attributes)
    suite = ET.SubElement(root, "testsuite", {"name": f"vdev check {report.side}", **attributes})
    properties = ET.SubElement(suite, "properties")
    facts = {**report.subject, "seed": str(report.seed), "vdev": report.vdev_version}
    if report.stopped:
        facts["stopped"] = report.stopped
    for name, value in facts.items():
        ET.SubElement(properties, "property", {"name": name, "value": _legal(value)})
    for case, element in cases:
        _add(suite, report, case, element)
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _add(suite: ET.Element, report: Report, case: CaseResult, element: str | None) -> None:
    subject = case.check.partition(".")[0]
    where = {"classname": f"vdev.{report.side}.{subject}", "name": case.name, "time": f"{case.seconds:.3f}"}
    test = ET.SubElement(suite, "testcase", where)
    properties = ET.SubElement(test, "properties")
    for statement in case.covers:
        ET.SubElement(properties, "property", {"name": "statement", "value": statement})
    if element is None:
        return
    kind = case.statement or case.verdict.value
    outcome = ET.SubElement(test, element, {"message": _legal(f"{case.verdict.value}: {case.why}"), "type": kind})
    if element != "skipped":
        outcome.text = _legal("\n" + "\n".join(_evidence(case)) + "\n")


def _evidence(case: CaseResult) -> list[str]:
    evidence = case.evidence
    lines = [f"done: {sentence}" for sentence in evidence.done]
    lines += [f"expected: {evidence.expected}"] if evidence.expected else []
    lines += [f"observed: {evidence.observed}"] if evidence.observed else []
    for shown in evidence.shown:
        lines += [f"{shown.name}:", *(f"  {row}" for row in dump_bytes(shown))]
    lines += [event_line(record) for record in evidence.events]
    return [*lines, f"repeat: {case.repeat}"] if case.repeat else lines


def _legal(text: str) -> str:
    """Return `text` without what XML 1.0 cannot hold."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\N{REPLACEMENT CHARACTER}", text)
