"""A finding as a picture: time goes down, a lane for each actor, hints as bars, M, D and versions as strips.

One SVG without script, to be put into a page (timeline_page.py) that has its style sheet.
"""

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from vdev.race.acts import ACTORS
from vdev.race.sentences import describe_step
from vdev.race.steps import HintLife, Step
from vdev.race.svg import line, rect, text
from vdev.race.turns import Turn, turns_of
from vdev.race.verdict import Finding, PageView

__all__ = ["WIDTH", "draw_timeline"]

WIDTH = 1152
"""Pixels from left to right."""

_HEADER_HEIGHT = 66
_ROW_HEIGHT = 34
_LINE_HEIGHT = 17
_LETTER_WIDTH = 46
_LANE_WIDTH = 92
_PILL_WIDTH = 72
_HINT_WIDTH = 20
_CELL_WIDTH = 20
_VERSION_WIDTH = 26
_PAGE_GAP = 18
_CHARACTER_WIDTH = 6.9
_BOLD_WIDTH = 7.8
_SHADE_COUNT = 6
_LANES = ("vcpu 1", "vcpu 0", "handler", "migrator")
"""What talks to each other stands side by side."""

_MERGES = ("start", "sync", "go on", "stop")


@dataclass(frozen=True)
class _Row:
    """A step with its place: the y of its upper edge, its height, and its sentence in lines.

    `turn` is the one that the row begins, None within one.
    """

    step: Step
    turn: Turn | None
    top: float
    height: float
    lines: list[str]

    @property
    def middle(self) -> float:
        return self.top + self.height / 2

    @property
    def bottom(self) -> float:
        return self.top + self.height


def draw_timeline(finding: Finding) -> str:
    """Return the SVG element for `finding`."""
    return _Drawing(finding).svg()


class _Drawing:
    """The columns' places are decided first, the rows' heights from the room that is left for words."""

    def __init__(self, finding: Finding) -> None:
        self._finding = finding
        turns = turns_of(finding)
        steps = [step for turn in turns for step in turn.steps]
        actors = {step.moment.act.actor for step in steps}
        self._lanes = {
            actor: _LETTER_WIDTH + _LANE_WIDTH * (place + 0.5)
            for place, actor in enumerate(actor for actor in _LANES if actor in actors)
        }
        self._lives = {life.number: life for step in steps for life in step.came}
        self._hints_left = _LETTER_WIDTH + _LANE_WIDTH * len(self._lanes) + 14
        self._tracks = _tracks(self._lives.values(), len(steps))
        track_count = 1 + max(self._tracks.values(), default=0)
        self._pages_left = self._hints_left + max(_HINT_WIDTH * track_count, 44) + 20
        page_count = len(steps[0].after) if steps else 0
        self._page_width = 2 * _CELL_WIDTH + 2 * _VERSION_WIDTH + 12
        self._words_left = self._pages_left + page_count * (self._page_width + _PAGE_GAP) + 8
        self._rows = self._place_rows(turns)

    def _place_rows(self, turns: list[Turn]) -> list[_Row]:
        rows: list[_Row] = []
        room = WIDTH - self._words_left - 8
        top = float(_HEADER_HEIGHT)
        begins = {turn.steps[0].number: turn for turn in turns}
        for step in (step for turn in turns for step in turn.steps):
            columns = max(20, int(room / (_BOLD_WIDTH if step.is_fatal else _CHARACTER_WIDTH)))
            lines = textwrap.wrap(describe_step(step, self._finding.combination), columns, break_on_hyphens=False)
            height = max(_ROW_HEIGHT, len(lines) * _LINE_HEIGHT + 14)
            rows.append(_Row(step, begins.get(step.number), top, height, lines))
            top += height
        return rows

    @property
    def _bottom(self) -> float:
        return self._rows[-1].bottom if self._rows else _HEADER_HEIGHT

    def svg(self) -> str:
        """Paint from the back to the front."""
        parts = [*self._bands(), *self._lane_lines(), *self._headers(), *self._strips(), *self._bars(), *self._arrows()]
        parts += [*self._merges(), *self._acts(), *self._words(), *self._verdicts()]
        height = self._bottom + 30
        title = escape(f"Time line of {self._finding.combination.strategy}")
        inner = "\n".join(parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" role="img"'
            f' aria-label="{title}">\n{inner}\n</svg>'
        )

    def _bands(self) -> Iterator[str]:
        for row in self._rows:
            kind = "fatal" if row.step.is_fatal else "lost-write" if row.step.is_lost_write else ""
            if kind:
                yield rect(0, row.top + 1, WIDTH, row.height - 2, f"band {kind}", radius=6)
            if row.step.number and row.turn is not None:
                yield line(_LETTER_WIDTH, row.top, WIDTH, row.top, "rule")

    def _lane_lines(self) -> Iterator[str]:
        for x in self._lanes.values():
            yield line(x, _HEADER_HEIGHT - 8, x, self._bottom, "lane")

    def _headers(self) -> Iterator[str]:
        for actor, x in self._lanes.items():
            number = ACTORS.index(actor)
            yield rect(x - 38, 26, 76, 26, f"actor a{number}", radius=13)
            yield text(x, 43, actor, "actor-name", anchor="middle")
        track_count = 1 + max(self._tracks.values(), default=0)
        yield text(self._hints_left + max(_HINT_WIDTH * track_count, 44) / 2, 48, "hints", "head", anchor="middle")
        for page, left in self._page_lefts():
            yield text(left + self._page_width / 2, 28, f"page {page}", "head", anchor="middle")
            for name, x, width in self._columns(left):
                yield text(x + width / 2, 48, name, "subhead", anchor="middle")

    def _page_lefts(self) -> Iterator[tuple[int, float]]:
        for page in range(len(self._rows[0].step.after) if self._rows else 0):
            yield page, self._pages_left + page * (self._page_width + _PAGE_GAP)

    def _columns(self, left: float) -> Iterator[tuple[str, float, float]]:
        yield "M", left, _CELL_WIDTH
        yield "D", left + _CELL_WIDTH + 3, _CELL_WIDTH
        yield "src", left + 2 * _CELL_WIDTH + 9, _VERSION_WIDTH
        yield "dst", left + 2 * _CELL_WIDTH + _VERSION_WIDTH + 12, _VERSION_WIDTH

    def _strips(self) -> Iterator[str]:
        """Draw a run of equal values as one bar; a version's number stands where it begins."""
        for page, left in self._page_lefts():
            for name, x, width in self._columns(left):
                values = [_value(row.step.after[page], name) for row in self._rows]
                for first, last in _runs(values):
                    top, bottom = self._rows[first].top + 2, self._rows[last].bottom - 2
                    yield rect(x, top, width, bottom - top, _strip_kind(name, values[first]), radius=4)
                    if name in ("src", "dst") and values[first]:
                        where = self._rows[first].middle + 4.5
                        yield text(x + width / 2, where, str(values[first]), "version", anchor="middle")

    def _bars(self) -> Iterator[str]:
        """Draw each hint from its collection to its return, fuller with each stage."""
        for life in self._lives.values():
            x = self._hints_left + self._tracks[life.number] * _HINT_WIDTH + 3
            places = sorted(life.where.items())
            for first, last in _runs([where for _, where in places]):
                top = self._rows[places[first][0]].middle if first == 0 else self._rows[places[first][0]].top
                end = places[last][0]
                is_end = last == len(places) - 1
                bottom = self._rows[end].bottom
                if is_end and life.ended_at is not None:
                    bottom = self._rows[life.ended_at].middle
                yield rect(x, top, _HINT_WIDTH - 6, bottom - top, f"hint {places[first][1]}", radius=3)
            label = ",".join(map(str, life.pages))
            yield text(
                x + _HINT_WIDTH / 2 - 3, self._rows[life.collected_at].middle - 4, label, "hint-name", anchor="middle"
            )

    def _arrows(self) -> Iterator[str]:
        """Draw an arrow from where a hint was queued to where it was popped."""
        for life in self._lives.values():
            queued = life.queued_at
            popped = next((step for step, where in sorted(life.where.items()) if where == "popped"), life.ended_at)
            if queued is None or popped is None or popped <= queued:
                continue
            source, target = self._rows[queued].step.moment.act.actor, self._rows[popped].step.moment.act.actor
            if source in self._lanes and target in self._lanes:
                yield self._arrow(
                    self._lanes[source], self._rows[queued].middle, self._lanes[target], self._rows[popped].middle
                )

    def _arrow(self, x1: float, y1: float, x2: float, y2: float) -> str:
        x1, x2 = x1 + _PILL_WIDTH / 2, x2 - _PILL_WIDTH / 2
        middle = (x1 + x2) / 2
        path = f"M {x1:g} {y1:g} C {middle + 4:g} {y1:g}, {middle - 4:g} {y2:g}, {x2 - 6:g} {y2:g}"
        head = f"M {x2:g} {y2:g} l -8 -4.5 v 9 z"
        return f'<path class="arrow" d="{path}"/><path class="arrow-head" d="{head}"/>'

    def _merges(self) -> Iterator[str]:
        """Draw a line through hints and strips where D is merged into M: what a hint's bar crosses makes it old."""
        for row in self._rows:
            act = row.step.moment.act
            if act.name in _MERGES:
                yield line(
                    self._lanes[act.actor] + _PILL_WIDTH / 2, row.middle, self._words_left - 12, row.middle, "merge"
                )

    def _acts(self) -> Iterator[str]:
        for row in self._rows:
            act = row.step.moment.act
            x = self._lanes[act.actor]
            name = act.name if act.page is None else f"{act.name} {act.page}"
            kind = " fatal" if row.step.is_fatal else " merge" if act.name in _MERGES else ""
            yield rect(
                x - _PILL_WIDTH / 2,
                row.middle - 11,
                _PILL_WIDTH,
                22,
                f"act a{ACTORS.index(act.actor)}{kind}",
                radius=11,
            )
            yield text(x, row.middle + 4.5, name, "act-name", anchor="middle")
            if row.turn is not None and row.turn.letter is not None:
                mark = "letter fatal" if row.turn.is_fatal else "letter"
                yield text(_LETTER_WIDTH - 12, row.middle + 5, f"{row.turn.letter})", mark, anchor="end")

    def _words(self) -> Iterator[str]:
        for row in self._rows:
            y = row.middle - (len(row.lines) - 1) * _LINE_HEIGHT / 2 + 4.5
            kind = "words fatal" if row.step.is_fatal else "words"
            for number, words in enumerate(row.lines):
                yield text(self._words_left, y + number * _LINE_HEIGHT, words, kind)

    def _verdicts(self) -> Iterator[str]:
        """Say below each page whether both sides agree in what the guest relies on."""
        for page, left in self._page_lefts():
            view = self._rows[-1].step.after[page]
            if page in self._finding.lost:
                said = f"lost: has {view.destination}, not {view.wanted}"
                yield text(left + self._page_width / 2, self._bottom + 20, said, "verdict lost", anchor="middle")
            elif self._finding.lost:
                yield text(left + self._page_width / 2, self._bottom + 20, "kept", "verdict kept", anchor="middle")


def _tracks(lives: Iterable[HintLife], end: int) -> dict[int, int]:
    """Return hint number -> column, so that hints that live at the same time stand side by side."""
    free_from: list[int] = []
    tracks = {}
    for life in lives:
        ends = end if life.ended_at is None else life.ended_at
        track = next((track for track, free in enumerate(free_from) if free < life.collected_at), len(free_from))
        free_from[track : track + 1] = [ends]
        tracks[life.number] = track
    return tracks


def _runs(values: Sequence[object]) -> Iterator[tuple[int, int]]:
    """Yield first and last place of each run of equal values."""
    first = 0
    for place in range(1, len(values) + 1):
        if place == len(values) or values[place] != values[first]:
            yield first, place - 1
            first = place


def _value(view: PageView, column: str) -> int:
    return {"M": int(view.to_send), "D": int(view.dirty), "src": view.source, "dst": view.destination}[column]


def _strip_kind(column: str, value: int) -> str:
    if not value:
        return "strip empty"
    return f"strip {column.lower()}" if column in ("M", "D") else f"strip v{(value - 1) % _SHADE_COUNT}"
