"""A finding as people tell it in mail: lettered steps, beside each what is to be seen after it.

A letter stands for a turn, a run of acts of one actor; on demand for each act.
"""

import textwrap
from dataclasses import dataclass
from itertools import zip_longest

from vdev.race.combination import Combination
from vdev.race.sentences import name_id, name_pages
from vdev.race.steps import Step
from vdev.race.turn_sentences import describe_turn
from vdev.race.turns import Turn, letters_of, turns_of
from vdev.race.verdict import Finding

__all__ = ["Line", "describe_combination", "ending_of", "story_of", "tell", "title_of"]

WIDTH = 100
_LETTER_WIDTH = 4
_TEXT_WIDTH = 43
_GAP = "  "
_HEADER = f"{'page':<5}{'M':<2}{'D':<3}{'src':<4}{'dst':<4}{'use':<5}{'hints':<14}{'id':<5}state"


@dataclass(frozen=True)
class Line:
    """One line of a story; `kind` is title, plain, header, step, fatal, or end."""

    text: str
    kind: str


def title_of(finding: Finding) -> str:
    """Return what was found, in a line."""
    count = len(finding.moments)
    acts = f"{count} {'act' if count == 1 else 'acts'}"
    if finding.lost:
        return f"{finding.combination.strategy} loses {name_pages(finding.lost)} in {acts}"
    if finding.broken is not None:
        return f"{finding.combination.strategy} breaks {finding.broken} in {acts}"
    return f"{finding.combination.strategy} loses nothing in these {acts}"


def describe_combination(combination: Combination) -> str:
    """Return the dimensions' values in words."""
    c = combination
    parts = [f"answer {c.answer}", f"guest holds {c.holds}", f"dirty log {c.dirty_log}"]
    if c.collects != "after-announcing":
        parts.append(f"collects {c.collects}")
    if c.start_buffer != "fresh":
        parts.append(f"{c.start_buffer} start buffer")
    parts.append(f"{c.vcpus} {'vCPU' if c.vcpus == '1' else 'vCPUs'}")
    if c.effect != "skip":
        parts.append(f"hints {c.effect} pages")
    if c.advance != "after-sync":
        parts.append(f"id advances {c.advance}")
    return ", ".join(parts)


def tell(finding: Finding, *, each_act: bool = False) -> str:
    """Return the whole story as plain text, at most 100 columns wide."""
    return "".join(f"{line.text}\n" for line in story_of(finding, each_act=each_act))


def story_of(finding: Finding, *, each_act: bool = False) -> list[Line]:
    """Return the story, line by line: a letter for each turn, or with `each_act` for each act."""
    turns = turns_of(finding, each_act=each_act)
    lines = [Line(title_of(finding), "title")]
    lines += [Line(text, "plain") for text in textwrap.wrap(describe_combination(finding.combination), WIDTH)]
    lines += [Line(f"bound: {finding.bound}", "plain"), Line("", "plain")]
    lines.append(Line(" " * (_LETTER_WIDTH + _TEXT_WIDTH) + _GAP + _HEADER, "header"))
    for turn in turns:
        if turn.letter is not None:
            kind = "fatal" if turn.is_fatal else "step"
            lines += [Line(text, kind) for text in _block(turn, finding.combination)]
    lines.append(Line("", "plain"))
    lines += [Line(text, "end") for text in textwrap.wrap(_ending(finding, turns), WIDTH)]
    return lines


def _block(turn: Turn, combination: Combination) -> list[str]:
    said = textwrap.wrap(describe_turn(turn, combination), _TEXT_WIDTH, break_on_hyphens=False)
    seen = _view(turn.steps[-1])
    lines = []
    for number, (left, right) in enumerate(zip_longest(said, seen, fillvalue="")):
        mark = f"{turn.letter})" if number == 0 else ""
        lines.append(f"{mark:<{_LETTER_WIDTH}}{left:<{_TEXT_WIDTH}}{_GAP}{right}".rstrip())
    return lines


def _view(step: Step) -> list[str]:
    """Return a line for each page and, beside them, one for each hint; id and state stand in the first."""
    hints = [f"{_pages(hint.pages)} {hint.where}" for hint in step.moment.hints]
    lines = []
    for number in range(max(len(step.after), len(hints))):
        hint = hints[number] if number < len(hints) else "-" if not hints and number == 0 else ""
        state = f"{name_id(step.moment.shown_id):<5}{step.moment.hint_state}" if number == 0 else ""
        lines.append(f"{_page(step, number):<23}{hint:<14}{state}".rstrip())
    return lines


def _page(step: Step, number: int) -> str:
    if number >= len(step.after):
        return ""
    view = step.after[number]
    bits = f"{int(view.to_send):<2}{int(view.dirty):<3}"
    return f"{number:<5}{bits}{view.source:<4}{view.destination:<4}{view.use}"


def _pages(pages: tuple[int, ...]) -> str:
    """Return "0", "0,2", "0-3": at most five letters for the pages of a small guest."""
    if len(pages) > 2 and pages == tuple(range(pages[0], pages[0] + len(pages))):
        return f"{pages[0]}-{pages[-1]}"
    return ",".join(map(str, pages))


def ending_of(finding: Finding) -> str:
    """Return what was lost and why: which write, and what erased the last trace of it."""
    return _ending(finding, turns_of(finding))


def _ending(finding: Finding, turns: list[Turn]) -> str:
    letters = letters_of(turns)
    if finding.lost:
        steps = [step for turn in turns for step in turn.steps]
        is_quiet = letters[-1] is None
        end = ["The migrator halts the vCPUs and is done, as M is empty (stop, complete)."] if is_quiet else []
        return " ".join([*end, *(_loss(steps, letters, page) for page in finding.lost)])
    if finding.broken is not None:
        return f"Step {letters[-1]}) breaks {finding.broken}; no page is lost by it here." if letters else ""
    return "Nothing is lost."


def _loss(steps: list[Step], letters: list[str | None], page: int) -> str:
    view = steps[-1].after[page]
    has = f"has version {view.destination}" if view.destination else "never got the page"
    write = next((s for s in steps if s.is_lost_write and s.moment.act.page == page), None)
    wrote = f"which {letters[write.number]}) wrote" if write else "which it wrote"
    said = f"Page {page} is lost: the guest relies on version {view.wanted}, {wrote}, and the destination {has}."
    fatal = next((s for s in reversed(steps) if s.is_fatal), None)
    return f"{said} {_cause(steps, letters, fatal, page)}" if fatal else said


def _cause(steps: list[Step], letters: list[str | None], fatal: Step, page: int) -> str:
    before, after = fatal.before[page], fatal.after[page]
    if before.source != after.source:
        what = f"Step {letters[fatal.number]}) destroyed it at the source"
    elif before.dirty and not after.dirty:
        what = f"Step {letters[fatal.number]}) cleared its bit in the log, the last trace of that write"
    else:
        what = f"Step {letters[fatal.number]}) took it out of M, the last trace of that write"
    hint = fatal.hint_for(page)
    if hint is None:
        return f"{what}."
    between = steps[hint.collected_at + 1 : fatal.number]
    merging = (letters[step.number] for step in between if step.moment.act.name in ("sync", "stop", "go on"))
    syncs = [f"{letter})" for letter in dict.fromkeys(merging)]
    older = f", before the sync in {' and '.join(syncs)}" if syncs else ""
    return f"{what}, for a hint that was collected in {letters[hint.collected_at]}){older}."
