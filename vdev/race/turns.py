"""A finding in turns: the runs of acts of one actor, which are what a story has letters for."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from vdev.race.steps import Step, letter, steps_of
from vdev.race.verdict import Finding

__all__ = ["Turn", "letters_of", "turns_of"]

_END = ("stop", "complete")


@dataclass(frozen=True)
class Turn:
    """Acts of one actor with nobody else's between them.

    `letter` is what the turn is called: a, b, ... z, aa. It is None for the end of a migration in which nothing happens
    to any page any more: the conclusion tells it.
    """

    steps: tuple[Step, ...]
    letter: str | None

    @property
    def actor(self) -> str:
        """Who acts."""
        return self.steps[0].moment.act.actor

    @property
    def is_fatal(self) -> bool:
        """Whether one of its acts is the one that loses the page, or breaks the invariant."""
        return any(step.is_fatal for step in self.steps)


def turns_of(finding: Finding, *, each_act: bool = False) -> list[Turn]:
    """Return the finding's turns; with `each_act` every act is a turn, with a letter of its own."""
    steps = steps_of(finding)
    if each_act:
        return _lettered((step,) for step in steps)
    told = len(steps) - len(_END) if finding.lost and _is_quiet(steps[-len(_END) :]) else len(steps)
    runs = groupby(steps[:told], key=lambda step: step.moment.act.actor)
    turns = _lettered(tuple(run) for _, run in runs)
    return [*turns, Turn(tuple(steps[told:]), None)] if steps[told:] else turns


def letters_of(turns: Iterable[Turn]) -> list[str | None]:
    """Return for each act the letter of its turn."""
    return [turn.letter for turn in turns for _ in turn.steps]


def _lettered(runs: Iterable[tuple[Step, ...]]) -> list[Turn]:
    return [Turn(run, letter(number)) for number, run in enumerate(runs)]


def _is_quiet(steps: list[Step]) -> bool:
    """Whether these are the guest's stop and the completion, and leave pages, M and D as they are."""
    if tuple(step.moment.act.name for step in steps) != _END or any(step.is_fatal for step in steps):
        return False
    # What stays broken is broken by the act that broke it first.
    known = steps[0].earlier.broken if steps[0].earlier else ()
    return all(step.before == step.after and set(step.moment.broken) <= set(known) for step in steps)
