"""docs/strategies.md: the whole table of a sweep, and what each row teaches."""

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from vdev.race.combination import DIMENSIONS, Bound, Combination
from vdev.race.lessons import LESSONS
from vdev.race.story import describe_combination, tell
from vdev.race.verdict import Verdict

__all__ = ["cell", "page_of_sweep", "row_name"]

_WIDTH = 120
_HEAD = """\
# Which strategy loses a page, and when

<!-- Made by a command: make strategies. -->

A strategy is a way to skip the pages that the guest says are free. Each was put into the lab ([race.md](race.md) says
what an act, a dimension and a bound are) with every value of the dimensions that may matter, and the lab looked at
every order of acts within the bound: {bound}. **BROKEN in n** means that a page is lost, and that the shortest order
that loses one has n acts. **safe in n** means that none is lost in any of the n states that there are within the
bound; a larger bound may know more.
{invariants}

Every verdict can be had alone, and every loss be replayed and drawn:

```console
$ vdev race --strategy filter-on-ready --save loss.schedule
$ vdev race --replay loss.schedule --html loss.html
$ vdev race --all
```

The usual values are: {usual}. A row names what is not usual.
"""
_INVARIANTS = """\
Below a table stand the invariants that some order breaks although no page is lost by it: they are ways to be safe,
and not the only ones."""


def page_of_sweep(verdicts: Sequence[Verdict], bound: Bound) -> str:
    """Return the document for the verdicts of a sweep."""
    usual = ", ".join(f"{name.replace('_', ' ')} {values[0]}" for name, values in DIMENSIONS.items())
    parts = [_filled(_HEAD.format(bound=bound, usual=usual, invariants=_INVARIANTS))]
    parts.append(f"## In short\n\n{_overview(verdicts)}")
    for strategy, lesson in LESSONS.items():
        rows = [verdict for verdict in verdicts if verdict.combination.strategy == strategy]
        if rows:
            parts.append("\n".join(_section(strategy, lesson, rows)))
    return "\n".join(parts)


def cell(verdict: Verdict) -> str:
    """Return the verdict in a few words."""
    if verdict.loss is not None:
        return f"**BROKEN in {len(verdict.loss.moments)}**"
    limit = "" if verdict.complete else ", not all"
    return f"safe in {verdict.state_count:,}{limit}"


def row_name(combination: Combination) -> str:
    """Return what a row is called: answer and holding, and whatever else is not usual but the dirty log."""
    shown = ("strategy", "answer", "holds", "dirty_log")
    unusual = [
        f"{name.replace('_', ' ')} {value}"
        for name, value in combination.dimensions().items()
        if name not in shown and value != DIMENSIONS[name][0]
    ]
    return f"{combination.answer}, {', '.join([combination.holds, *unusual])}"


def _filled(text: str) -> str:
    """Break the long lines of paragraphs; code stays as it is."""
    blocks = text.split("\n\n")
    return "\n\n".join(_fill(block) if block[:3] not in ("```", "<!-") else block for block in blocks)


def _fill(block: str) -> str:
    end = "\n" if block.endswith("\n") else ""
    return textwrap.fill(block, _WIDTH, break_on_hyphens=False, break_long_words=False) + end


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _overview(verdicts: Sequence[Verdict]) -> str:
    def rows() -> Iterator[Sequence[str]]:
        for strategy in LESSONS:
            of_it = [verdict for verdict in verdicts if verdict.combination.strategy == strategy]
            if not of_it:
                continue
            broken_count = sum(verdict.is_broken for verdict in of_it)
            usual = next((cell(verdict) for verdict in of_it if verdict.combination == Combination(strategy)), "")
            deferred = Combination(strategy, dirty_log="deferred-clear")
            late = next((cell(verdict) for verdict in of_it if verdict.combination == deferred), "")
            yield f"[{strategy}](#{strategy})", usual, late, f"{broken_count} of {len(of_it)}"

    head = ("strategy", "get-and-clear", "deferred-clear", "combinations that lose a page")
    return "\n".join(_table(head, rows())) + "\n"


def _section(strategy: str, lesson: str, verdicts: Sequence[Verdict]) -> Iterator[str]:
    yield _filled(f"## {strategy}\n\n{lesson}\n")
    yield from _table(("combination", *DIMENSIONS["dirty_log"]), _rows(verdicts))
    yield ""
    invariants = sorted({name for verdict in verdicts if not verdict.is_broken for name in verdict.broken_invariants})
    if invariants:
        yield f"Broken without a loss: {', '.join(f'`{name}`' for name in invariants)}.\n"
    losses = [verdict for verdict in verdicts if verdict.loss is not None]
    if losses:
        yield from _shortest(strategy, losses)


def _rows(verdicts: Sequence[Verdict]) -> Iterator[Sequence[str]]:
    names = dict.fromkeys(row_name(verdict.combination) for verdict in verdicts)
    for name in names:
        by_log = {
            verdict.combination.dirty_log: cell(verdict)
            for verdict in verdicts
            if row_name(verdict.combination) == name
        }
        yield name, *(by_log.get(log, "") for log in DIMENSIONS["dirty_log"])


def _shortest(strategy: str, losses: Sequence[Verdict]) -> Iterator[str]:
    usual = next((verdict for verdict in losses if verdict.combination == Combination(strategy)), None)
    shown = usual or min(losses, key=lambda verdict: len(verdict.loss.moments) if verdict.loss else 0)
    if shown.loss is None:
        return
    if usual:
        yield "The shortest loss with everything usual:\n"
    else:
        dimensions = describe_combination(shown.combination)
        yield _filled(f"With everything usual nothing is lost. The shortest loss is with {dimensions}:\n")
    yield f"```text\n{tell(shown.loss)}```\n"
