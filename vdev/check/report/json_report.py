"""A report as a JSON-ready mapping, and back."""

from collections.abc import Mapping
from typing import Any

from vdev.check.evidence import Evidence, Shown
from vdev.check.result import CaseResult, Report
from vdev.check.verdict import Verdict
from vdev.events import record_from_json, record_to_json

__all__ = ["SCHEMA", "report_from_json", "report_to_json"]

SCHEMA = 1
"""Goes up when a key changes its meaning or goes away."""


def report_to_json(report: Report) -> dict[str, Any]:
    """Return the whole report: `statements` with a verdict each, and `cases` with their evidence."""
    return {
        "schema": SCHEMA,
        "vdev": report.vdev_version,
        "side": report.side,
        "subject": dict(report.subject),
        "seed": report.seed,
        "seconds": report.seconds,
        "stopped": report.stopped,
        "interrupted": report.interrupted,
        "counts": {verdict.value: report.count(verdict) for verdict in Verdict},
        "statements": [
            {
                "id": result.statement.id,
                "section": result.statement.section,
                "side": result.statement.side,
                "level": result.statement.level,
                "when": result.statement.when,
                "text": result.statement.text,
                "verdict": result.verdict.value,
                "cases": [case.name for case in result.cases],
            }
            for result in report.statements()
        ],
        "cases": [_case(case) for case in report.cases],
    }


def _case(case: CaseResult) -> dict[str, Any]:
    return {
        "name": case.name,
        "check": case.check,
        "variant": case.variant,
        "summary": case.summary,
        "covers": list(case.covers),
        "verdict": case.verdict.value,
        "statement": case.statement,
        "why": case.why,
        "seconds": case.seconds,
        "repeat": case.repeat,
        "evidence": {
            "done": list(case.evidence.done),
            "expected": case.evidence.expected,
            "observed": case.evidence.observed,
            "shown": [
                {"name": shown.name, "address": shown.address, "hex": shown.data.hex()} for shown in case.evidence.shown
            ],
            "events": [record_to_json(record) for record in case.evidence.events],
        },
    }


def report_from_json(mapping: Mapping[str, Any]) -> Report:
    """Return the report that `report_to_json` wrote. Raises ValueError for a mapping that is none."""
    try:
        if mapping["schema"] != SCHEMA:
            raise ValueError(f"a report of version {mapping['schema']!r}; this vdev reads version {SCHEMA}")
        return Report(
            side=mapping["side"],
            subject=dict(mapping["subject"]),
            seed=mapping["seed"],
            cases=tuple(_case_from_json(case) for case in mapping["cases"]),
            seconds=mapping["seconds"],
            vdev_version=mapping["vdev"],
            stopped=mapping["stopped"],
            interrupted=mapping["interrupted"],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no report: {error}") from error


def _case_from_json(mapping: Mapping[str, Any]) -> CaseResult:
    evidence = mapping["evidence"]
    return CaseResult(
        check=mapping["check"],
        variant=mapping["variant"],
        summary=mapping["summary"],
        covers=tuple(mapping["covers"]),
        verdict=Verdict(mapping["verdict"]),
        statement=mapping["statement"],
        why=mapping["why"],
        evidence=Evidence(
            done=tuple(evidence["done"]),
            expected=evidence["expected"],
            observed=evidence["observed"],
            shown=tuple(
                Shown(shown["name"], bytes.fromhex(shown["hex"]), shown["address"]) for shown in evidence["shown"]
            ),
            events=tuple(record_from_json(record) for record in evidence["events"]),
        ),
        seconds=mapping["seconds"],
        repeat=mapping["repeat"],
    )
