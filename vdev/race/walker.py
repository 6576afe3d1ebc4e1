"""Some orders of acts, where there are too many to look at them all: at random, or by random priorities."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from vdev.race.explorer import Progress, Situation
from vdev.race.verdict import Act

__all__ = ["Chooser", "PriorityChooser", "RandomChooser", "Walked", "walk"]

_PROGRESS_EVERY = 100


class Chooser(Protocol):
    """Says which act is next."""

    def begin(self, length: int) -> None:
        """A new schedule begins; those before had up to `length` acts, 0 for the first."""
        ...

    def choose(self, enabled: Sequence[Act]) -> Act:
        """Return one of the acts that are possible."""
        ...


class RandomChooser:
    """Each possible act is as likely as any other."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def begin(self, length: int) -> None:
        """Nothing to prepare."""

    def choose(self, enabled: Sequence[Act]) -> Act:
        """Return one of the acts that are possible."""
        return enabled[self._random.randrange(len(enabled))]


class PriorityChooser:
    """The actor of the highest priority acts, as long as it can. At `depth` - 1 places it falls back behind all others.

    Raises ValueError for a depth below 1.
    """

    def __init__(self, seed: int, depth: int) -> None:
        if depth < 1:
            raise ValueError(f"a depth of {depth}; give 1 or more")
        self._random = random.Random(seed)
        self._depth = depth
        self._priorities: dict[str, float] = {}
        self._changes: dict[int, int] = {}
        self._at = 0

    def begin(self, length: int) -> None:
        """Draw priorities as actors come, and where they change."""
        self._priorities = {}
        places = range(1, max(length, self._depth))
        chosen = self._random.sample(places, min(self._depth - 1, len(places)))
        # Later changes fall less deep than earlier ones, and all below what any actor begins with.
        self._changes = {place: -1 - number for number, place in enumerate(chosen)}
        self._at = 0

    def choose(self, enabled: Sequence[Act]) -> Act:
        """Return an act of the first actor; which, if it has several, is drawn."""
        for act in enabled:
            if act.actor not in self._priorities:
                self._priorities[act.actor] = self._random.random()
        actor = self._first(enabled)
        if self._at in self._changes:
            self._priorities[actor] = self._changes[self._at]
            actor = self._first(enabled)
        self._at += 1
        own = [act for act in enabled if act.actor == actor]
        return own[self._random.randrange(len(own))]

    def _first(self, enabled: Sequence[Act]) -> str:
        return max((act.actor for act in enabled), key=lambda actor: self._priorities[actor])


@dataclass
class Walked:
    """What was seen. `loss` and the values of `broken` are schedules; `keys` are those of the situations."""

    schedule_count: int = 0
    transition_count: int = 0
    seconds: float = 0.0
    loss: tuple[Act, ...] | None = None
    broken: dict[str, tuple[Act, ...]] = field(default_factory=dict)
    keys: set[bytes] = field(default_factory=set)


def walk(
    situation: Situation,
    chooser: Chooser,
    count: int,
    *,
    on_progress: Progress | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Walked:
    """Do `count` schedules from where `situation` stands, or until one loses a page.

    `on_progress` is told the schedules and acts so far, and how long the longest schedule was.
    """
    walked, longest = Walked(), 0
    began, root = clock(), situation.capture()
    while walked.loss is None and walked.schedule_count < count:
        situation.put_back(root)
        chooser.begin(longest)
        acts = _one_schedule(situation, chooser, walked)
        walked.schedule_count += 1
        walked.transition_count += len(acts)
        longest = max(longest, len(acts))
        if situation.lost:
            walked.loss = tuple(acts)
        if on_progress is not None and walked.schedule_count % _PROGRESS_EVERY == 0:
            on_progress(walked.schedule_count, walked.transition_count, longest)
    walked.seconds = clock() - began
    return walked


def _one_schedule(situation: Situation, chooser: Chooser, walked: Walked) -> list[Act]:
    acts: list[Act] = []
    while enabled := situation.enabled():
        act = chooser.choose(enabled)
        situation.do(act)
        acts.append(act)
        walked.keys.add(situation.key())
        for name in situation.broken:
            if name not in walked.broken or len(acts) < len(walked.broken[name]):
                walked.broken[name] = tuple(acts)
    return acts
