"""A report as one HTML page that needs nothing else: the matrix of statements, what was found, and every case."""

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from itertools import groupby

from spec.statements import Statement, catalogue
from vdev.check.report.page_style import SCRIPT, STYLE
from vdev.check.report.words import dump_bytes, event_line
from vdev.check.result import CaseResult, Report
from vdev.check.verdict import Verdict

__all__ = ["report_page"]

_KINDS = {
    Verdict.FAIL: ("fail", "F"),
    Verdict.CRASHED: ("crashed", "C"),
    Verdict.HUNG: ("hung", "H"),
    Verdict.INCONCLUSIVE: ("inconclusive", "?"),
    Verdict.PASS: ("pass", ""),
    Verdict.NOT_APPLICABLE: ("na", ""),
    None: ("none", ""),
}
"""Verdict, None where nothing was done -> its class, and the letter that tells it without colour."""

_FOUND = (Verdict.FAIL, Verdict.CRASHED, Verdict.HUNG)
_SIDES = {"device": ("device", "back-end", "text"), "driver": ("driver", "front-end", "text")}
_TYPE_AREAS = ("balloon", "block", "entropy")


@dataclass(frozen=True)
class _Row:
    statement: Statement
    verdict: Verdict | None
    cases: tuple[CaseResult, ...]

    @property
    def area(self) -> str:
        return self.statement.id.partition(".")[0]

    @property
    def reason(self) -> str:
        """Why there is no verdict."""
        return self.statement.unchecked or self.statement.missing or "not part of this run"


def report_page(report: Report) -> str:
    """Return the whole page."""
    rows = _rows(report)
    kind = report.subject.get("type", "")
    title = f"vdev check {report.side}{f': {kind}' if kind else ''}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        _subject(report),
        _counts(report),
        "<h2>Statements at a glance</h2>",
        _matrix(rows),
        _findings(report),
        _statements(rows),
        _others(report),
    ]
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n"
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _rows(report: Report) -> list[_Row]:
    found = {result.statement.id: result for result in report.statements()}
    sides, kind = _SIDES[report.side], report.subject.get("type")
    rows = []
    for statement in catalogue().values():
        result = found.get(statement.id)
        if statement.id.partition(".")[0] in {*_TYPE_AREAS} - {kind}:
            continue  # another type's
        if result is not None:
            rows.append(_Row(statement, result.verdict, result.cases))
        elif statement.side in sides:
            rows.append(_Row(statement, None, ()))
    return sorted(rows, key=lambda row: _area_order(row.area))


def _area_order(area: str) -> int:
    return list(dict.fromkeys(name.partition(".")[0] for name in catalogue())).index(area)


def _subject(report: Report) -> str:
    stopped = {"stopped": report.stopped} if report.stopped else {}
    facts = {
        **stopped,
        **report.subject,
        "seed": str(report.seed),
        "took": f"{report.seconds:.1f} s",
        "vdev": report.vdev_version,
    }
    return (
        "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items()) + "</dl>"
    )


def _counts(report: Report) -> str:
    items = [
        f"<li><b>{report.count(verdict)}</b>{_badge(verdict)}</li>" for verdict in Verdict if report.count(verdict)
    ]
    return f'<ul class="counts">{"".join(items)}<li><b>{len(report.cases)}</b>cases</li></ul>'


def _matrix(rows: Iterable[_Row]) -> str:
    parts = ['<div class="matrix">']
    for area, group in groupby(rows, key=lambda row: row.area):
        cells = "".join(_cell(row) for row in group)
        parts.append(f'<div>{escape(area)}</div><div class="cells">{cells}</div>')
    legend = "".join(
        f'<li><span class="cell {name}">{letter}</span>{escape(verdict.value if verdict else "no verdict")}</li>'
        for verdict, (name, letter) in _KINDS.items()
    )
    parts.append("</div>")
    parts.append(f'<ul class="legend">{legend}<li>square: MUST (NOT), round: SHOULD (NOT) or MAY</li></ul>')
    return "\n".join(parts)


def _cell(row: _Row) -> str:
    name, letter = _KINDS[row.verdict]
    shape = "" if row.statement.is_absolute else " soft"
    verdict = row.verdict.value if row.verdict else row.reason
    words = escape(f"{row.statement.id} ({row.statement.level}): {row.statement.text} - {verdict}", quote=True)
    return f'<a class="cell {name}{shape}" href="#{row.statement.id}" title="{words}" aria-label="{words}">{letter}</a>'


def _findings(report: Report) -> str:
    found = sorted(
        (case for case in report.cases if case.verdict in _FOUND), key=lambda case: _FOUND.index(case.verdict)
    )
    if not found:
        return "<h2>What was found</h2>\n<p>Nothing that breaks a statement.</p>"
    return "<h2>What was found</h2>\n" + "\n".join(_case(case) for case in found)


def _statements(rows: Iterable[_Row]) -> str:
    boxes = "".join(
        f'<label><input type="checkbox" value="{name}" checked> {escape(verdict.value if verdict else "no verdict")}'
        "</label>"
        for verdict, (name, _) in _KINDS.items()
    )
    lines = "\n".join(_statement(row) for row in rows)
    return (
        '<h2>Every statement</h2>\n<div class="choose"><input type="search" placeholder="search" aria-label="search">'
        f'{boxes}</div>\n<div class="wide"><table id="statements">\n'
        "<thead><tr><th>verdict</th><th>statement</th><th></th><th>in short</th></tr></thead>\n"
        f"<tbody>\n{lines}\n</tbody>\n</table></div>"
    )


def _statement(row: _Row) -> str:
    statement = row.statement
    name, _ = _KINDS[row.verdict]
    when = f' <span class="dim">(if {escape(statement.when)})</span>' if statement.when else ""
    if row.cases:
        links = "".join(
            f'<a href="#case-{escape(case.name)}">{escape(case.name)} {case.verdict_for(statement.id).value}</a>'
            for case in row.cases
        )
        more = f'<div class="variants dim">{links}</div>'
    else:
        more = f'<div class="variants dim">{escape(row.reason)}</div>'
    verdict = _badge(row.verdict) if row.verdict else '<span class="badge none">none</span>'
    return (
        f'<tr id="{statement.id}" data-verdict="{name}"><td>{verdict}</td>'
        f'<td class="id"><code>{statement.id}</code></td>'
        f'<td class="level">{statement.level}</td><td>{escape(statement.text)}{when}'
        f'<div class="dim">{escape(statement.section)}</div>{more}</td></tr>'
    )


def _others(report: Report) -> str:
    others = [case for case in report.cases if case.verdict not in _FOUND]
    return "<h2>The other cases</h2>\n" + "\n".join(_case(case) for case in others)


def _badge(verdict: Verdict) -> str:
    return f'<span class="badge {_KINDS[verdict][0]}">{verdict.value}</span>'


def _case(case: CaseResult) -> str:
    evidence = case.evidence
    statements = ", ".join(f'<a href="#{name}"><code>{name}</code></a>' for name in case.covers)
    parts = [
        f'<div class="case" id="case-{escape(case.name)}">',
        f"<h4>{_badge(case.verdict)} <code>{escape(case.name)}</code></h4>",
        f"<p>{escape(case.summary)}</p>",
        f'<p class="dim">{statements} · {case.seconds * 1000:.0f} ms</p>',
    ]
    if case.why:
        broken = f" (<code>{escape(case.statement)}</code>)" if case.statement else ""
        parts.append(f"<p><b>{escape(case.why)}</b>{broken}</p>")
    if evidence.expected:
        parts.append(
            f"<dl><dt>expected</dt><dd>{escape(evidence.expected)}</dd>"
            f"<dt>observed</dt><dd>{escape(evidence.observed)}</dd></dl>"
        )
    details = []
    if evidence.done:
        details.append(f"<ol>{''.join(f'<li>{escape(sentence)}</li>' for sentence in evidence.done)}</ol>")
    details += [
        f"<h3>{escape(shown.name)}</h3><pre>{escape(chr(10).join(dump_bytes(shown)))}</pre>" for shown in evidence.shown
    ]
    if evidence.events:
        lines = "\n".join(event_line(record) for record in evidence.events)
        details.append(f"<h3>events before it</h3><pre>{escape(lines)}</pre>")
    if details:
        opened = " open" if case.verdict in _FOUND else ""
        parts.append(f"<details{opened}><summary>what was done, and the bytes</summary>{''.join(details)}</details>")
    if case.repeat:
        parts.append(f"<pre>{escape(case.repeat)}</pre>")
    parts.append("</div>")
    return "\n".join(parts)
