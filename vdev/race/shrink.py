"""Making a schedule that loses a page short: by leaving acts out, and by a smaller bound (delta debugging)."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from vdev.race.combination import Bound
from vdev.race.explorer import Situation
from vdev.race.verdict import Act

__all__ = ["shrink"]

_FINISHERS = ("migrator", "handler", "vcpu 0", "vcpu 1")
"""Who goes on when a schedule is at its end and the migration is not: the first that can."""

_SMALLEST = {"cancels": 0, "pages": 1, "writes": 0, "hints": 0, "syncs": 2}


def shrink(make: Callable[[Bound], Situation], bound: Bound, acts: Sequence[Act]) -> tuple[Bound, tuple[Act, ...]]:
    """Return a bound and a schedule within it that still loses a page, and of which no single act can be left out.

    `make` makes the situation for a bound; within `bound`, `acts` lose a page.
    """
    situation = make(bound)
    best = _without_acts(situation, situation.capture(), tuple(acts))
    for name, smallest in _SMALLEST.items():
        for value in range(smallest, getattr(bound, name)):
            smaller = replace(bound, **{name: value})
            situation = make(smaller)
            root = situation.capture()
            if (found := _follow(situation, root, best)) is not None:
                bound, best = smaller, _without_acts(situation, root, found)
                break
    return bound, best


def _follow(situation: Situation, root: Any, acts: Sequence[Act]) -> tuple[Act, ...] | None:
    """Do those of `acts` that are possible, and what it takes to end; return what was done if it loses a page."""
    situation.put_back(root)
    done: list[Act] = []
    for act in acts:
        if act in situation.enabled():
            situation.do(act)
            done.append(act)
    while enabled := situation.enabled():
        act = min(enabled, key=lambda one: (one.name == "cancel", _FINISHERS.index(one.actor)))
        situation.do(act)
        done.append(act)
    return tuple(done) if situation.lost else None


def _without_acts(situation: Situation, root: Any, acts: tuple[Act, ...]) -> tuple[Act, ...]:
    """Leave out as many acts as possible, in ever smaller pieces."""
    size = max(len(acts) // 2, 1)
    while True:
        start, is_shorter = 0, False
        while start < len(acts):
            found = _follow(situation, root, (*acts[:start], *acts[start + size :]))
            if found is not None and len(found) < len(acts):
                acts, is_shorter = found, True
            else:
                start += size
        if size == 1 and not is_shorter:
            return acts
        size = max(size // 2, 1)
