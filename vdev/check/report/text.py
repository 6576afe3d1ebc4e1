"""A report for a person at a terminal: what is broken, and what shows it; what could not be said, and why; counts."""

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from spec.statements import catalogue
from vdev.check.coverage import chapter_of
from vdev.check.report.words import dump_bytes, event_line
from vdev.check.result import CaseResult, Report
from vdev.check.verdict import Verdict

__all__ = ["Line", "describe_counts", "report_lines"]

_BROKEN = (Verdict.FAIL, Verdict.CRASHED, Verdict.HUNG)
_LABEL_WIDTH = 10
_INDENT = 6
_SHOWN_EVENTS = 12
_SHOWN_NAMES = 3
_COLUMNS = (Verdict.PASS, Verdict.FAIL, Verdict.CRASHED, Verdict.HUNG, Verdict.INCONCLUSIVE, Verdict.NOT_APPLICABLE)


class Line(NamedTuple):
    """A line, and what it is: "title", "good", "fatal", "header", "end" or "plain"."""

    text: str
    kind: str = "plain"


def report_lines(report: Report, *, width: int = 100) -> Iterator[Line]:
    """Yield the report's lines; sentences are wrapped to `width`, bytes and commands are not."""
    yield from _verdict(report)
    yield Line("")
    for name, value in {**report.subject, "seed": str(report.seed)}.items():
        yield from _labelled(name, value, width, indent=0, gap=16)
    for case in report.cases:
        if case.verdict in _BROKEN:
            yield Line("")
            yield from _case(case, width)
    for verdict in (Verdict.INCONCLUSIVE, Verdict.NOT_APPLICABLE):
        yield from _reasons(report, verdict, width)
    yield from _chapters(report)
    yield Line("")
    yield Line(f"{len(report.cases)} cases in {report.seconds:.1f} s: {describe_counts(report.cases)}", "end")
    if report.stopped:
        yield from (Line(line, "fatal") for line in _wrap(report.stopped, width))


def describe_counts(cases: Iterable[CaseResult]) -> str:
    """Return how many cases ended how, such as "3 PASS, 1 FAIL"."""
    counts = Counter(case.verdict for case in cases)
    return ", ".join(f"{counts[verdict]} {verdict.value}" for verdict in _COLUMNS if counts[verdict]) or "none"


def _verdict(report: Report) -> Iterator[Line]:
    results = report.statements()
    failed = sum(result.verdict is Verdict.FAIL for result in results)
    kept = sum(result.verdict is Verdict.PASS for result in results)
    sick = [verdict for verdict in (Verdict.CRASHED, Verdict.HUNG) if report.count(verdict)]
    words = [f"{report.count(verdict)} {verdict.value}" for verdict in sick]
    if failed:
        words.insert(0, f"{failed} {'statement' if failed == 1 else 'statements'} broken")
    if words:
        yield Line(f"{', '.join(words)}; {kept} kept", "title")
    elif kept:
        yield Line(f"{kept} statements kept, none broken", "good")
    else:
        yield Line("nothing could be said", "title")


def _case(case: CaseResult, width: int) -> Iterator[Line]:
    yield Line(f"{case.verdict.value}  {case.name}", "fatal")
    yield from _indented(case.summary, width)
    for name in [case.statement] if case.statement else case.covers:
        statement = catalogue().get(name)
        if statement is None:
            continue
        yield from _labelled("statement", f"{name} ({statement.level}): {statement.text}", width)
    if case.verdict is not Verdict.FAIL:
        yield from _labelled("why", case.why, width)
    evidence = case.evidence
    for number, sentence in enumerate(evidence.done):
        yield from _labelled("" if number else "done", sentence, width)
    if evidence.expected:
        yield from _labelled("expected", evidence.expected, width)
    if evidence.observed:
        yield from _labelled("observed", evidence.observed, width)
    for shown in evidence.shown:
        yield Line(f"{' ' * _INDENT}{shown.name}:")
        yield from (Line(f"{' ' * (_INDENT + 2)}{row}") for row in dump_bytes(shown))
    for number, record in enumerate(evidence.events[-_SHOWN_EVENTS:]):
        yield Line(f"{' ' * _INDENT}{'' if number else 'events':<{_LABEL_WIDTH}}{event_line(record)}", "header")
    if case.repeat:
        yield Line(f"{' ' * _INDENT}{'repeat':<{_LABEL_WIDTH}}{case.repeat}")


def _reasons(report: Report, verdict: Verdict, width: int) -> Iterator[Line]:
    """Yield the reasons why nothing was said, each with the cases it goes for."""
    by_reason: dict[str, list[str]] = {}
    for case in report.cases:
        if case.verdict is verdict:
            by_reason.setdefault(case.why, []).append(case.name)
    if not by_reason:
        return
    yield Line("")
    yield Line(verdict.value, "end")
    for reason, names in by_reason.items():
        more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
        yield from _indented(reason, width, indent=2)
        yield from _indented(f"{', '.join(names[:_SHOWN_NAMES])}{more}", width, indent=4, kind="header")


def _chapters(report: Report) -> Iterator[Line]:
    """Yield a table: how many statements of each chapter ended how."""
    by_chapter: dict[str, Counter[Verdict]] = {}
    for result in report.statements():
        by_chapter.setdefault(chapter_of(result.statement), Counter())[result.verdict] += 1
    # What has nothing to do with this type of device is no news.
    rows = {name: counts for name, counts in by_chapter.items() if set(counts) != {Verdict.NOT_APPLICABLE}}
    if not rows:
        return
    columns = [verdict for verdict in _COLUMNS if any(counts[verdict] for counts in rows.values())]
    left = max(len("statements of"), *map(len, rows)) + 2
    widths = {verdict: max(len(verdict.value), 4) + 2 for verdict in columns}
    yield Line("")
    heads = "".join(verdict.value.rjust(widths[verdict]) for verdict in columns)
    yield Line("statements of".ljust(left) + heads, "header")
    for name, counts in rows.items():
        cells = "".join(str(counts[verdict] or "").rjust(widths[verdict]) for verdict in columns)
        yield Line((name.ljust(left) + cells).rstrip())


def _labelled(label: str, text: str, width: int, *, indent: int = _INDENT, gap: int = _LABEL_WIDTH) -> Iterator[Line]:
    lead = " " * indent
    wrapped = _wrap(text, width - indent - gap) or [""]
    for number, part in enumerate(wrapped):
        yield Line(f"{lead}{'' if number else label:<{gap}}{part}".rstrip())


def _indented(text: str, width: int, *, indent: int = _INDENT, kind: str = "plain") -> Iterator[Line]:
    for part in _wrap(text, width - indent):
        yield Line(f"{' ' * indent}{part}", kind)


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(40, width), break_long_words=False, break_on_hyphens=False)
