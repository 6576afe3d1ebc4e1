"""Every order of acts, breadth first: the first loss is a shortest one, and so is the first break of each invariant.

Sleep sets leave out orders that differ only in acts that do not touch each other (Godefroid, "Partial-Order Methods for
the Verification of Concurrent Systems"). All states are still seen; only ways to them are saved. Where a state is met
again with an act asleep that was not asleep before, nothing is missing; where one is awake that was asleep, it is made
up for.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from vdev.race.verdict import Act

__all__ = ["Explored", "Explorer", "Limits", "Progress", "Situation"]

Progress = Callable[[int, int, int], None]
"""Called now and then with the states and transitions so far, and the length of the schedules looked at."""

_PROGRESS_EVERY = 1000


class Situation(Protocol):
    """What is explored: something that acts change, that can be copied and put back."""

    def enabled(self) -> list[Act]:
        """Return the acts that are possible now, in an order that hangs on nothing else."""
        ...

    def do(self, act: Act) -> None:
        """Do one of them."""
        ...

    def key(self) -> bytes:
        """Return a digest that is equal for situations with the same future."""
        ...

    def capture(self) -> Any:
        """Return a copy of all there is."""
        ...

    def put_back(self, state: Any) -> None:
        """Be as when the copy was taken."""
        ...

    def independent(self, one: Act, other: Act) -> bool:
        """Say whether two acts that are possible now lead to the same in either order, and neither stops the other."""
        ...

    @property
    def lost(self) -> tuple[int, ...]:
        """The pages that are lost, once that is decided."""
        ...

    @property
    def broken(self) -> tuple[str, ...]:
        """The invariants that the last act broke."""
        ...


@dataclass(frozen=True)
class Limits:
    """When to give up: after so many states or seconds; None for never."""

    max_states: int | None = None
    max_seconds: float | None = None


@dataclass
class Explored:
    """What was seen. `loss` and the values of `broken` are schedules. `skipped_count` transitions were left out."""

    state_count: int = 0
    transition_count: int = 0
    skipped_count: int = 0
    seconds: float = 0.0
    complete: bool = True
    loss: tuple[Act, ...] | None = None
    broken: dict[str, tuple[Act, ...]] = field(default_factory=dict)
    final_keys: set[bytes] = field(default_factory=set)


class _Node:
    """A state that was seen: how, which acts may be left out in it, and the copy while it is still to be gone on from.

    `done` are the acts that were gone on with so far.
    """

    __slots__ = ("act", "asleep", "copy", "depth", "done", "parent", "waits")

    def __init__(self, parent: "_Node | None", act: Act | None, asleep: frozenset[Act], copy: Any) -> None:
        self.parent = parent
        self.act = act
        self.asleep = asleep
        self.copy = copy
        self.depth: int = 0 if parent is None else parent.depth + 1
        self.done: frozenset[Act] = frozenset()
        self.waits = True

    def schedule(self, last: Act | None = None) -> tuple[Act, ...]:
        """The acts that led here, and `last`."""
        acts = [] if last is None else [last]
        node: _Node | None = self
        while node is not None:
            if node.act is not None:
                acts.append(node.act)
            node = node.parent
        return tuple(reversed(acts))


class Explorer:
    """Explores from where `situation` stands now. `reduction` leaves orders out that cannot matter."""

    def __init__(
        self,
        situation: Situation,
        *,
        reduction: bool = True,
        limits: Limits | None = None,
        on_progress: Progress | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._situation = situation
        self._reduction = reduction
        self._limits = limits or Limits()
        self._on_progress = on_progress
        self._clock = clock
        self._seen: dict[bytes, _Node] = {}
        self._waiting: deque[_Node] = deque()
        self.found = Explored()

    def run(self) -> Explored:
        """Explore to the end, to the first loss, or to a limit."""
        began = self._clock()
        found = self.found
        root = _Node(None, None, frozenset(), self._situation.capture())
        self._seen[self._situation.key()] = root
        self._waiting.append(root)
        found.state_count = 1
        while self._waiting and found.loss is None:
            self._go_on_from(self._waiting.popleft())
            if self._is_enough(self._clock() - began):
                found.complete = False
                break
        found.seconds = self._clock() - began
        return found

    def _is_enough(self, seconds: float) -> bool:
        limits = self._limits
        if limits.max_states is not None and self.found.state_count >= limits.max_states:
            return bool(self._waiting) and self.found.loss is None
        return limits.max_seconds is not None and seconds >= limits.max_seconds and self.found.loss is None

    def _go_on_from(self, node: _Node) -> None:
        situation, copy = self._situation, node.copy
        node.waits = False
        situation.put_back(copy)
        enabled = situation.enabled()
        if not enabled:
            self.found.final_keys.add(situation.key())
        for number, (act, asleep) in enumerate(self._choices(node, enabled)):
            if number:
                situation.put_back(copy)
            situation.do(act)
            self._look(node, act, asleep)
            if self.found.loss is not None:
                return
        node.copy = None

    def _choices(self, node: _Node, enabled: list[Act]) -> Iterator[tuple[Act, frozenset[Act]]]:
        """Yield each act to go on with, and which acts may be left out after it. The situation stands at the node."""
        if not self._reduction:
            yield from ((act, frozenset()) for act in enabled)
            return
        chosen = [act for act in enabled if act not in node.asleep and act not in node.done]
        # In a state that was gone on from before, these were counted as skipped.
        self.found.skipped_count += -len(chosen) if node.done else len(enabled) - len(chosen)
        node.done |= frozenset(chosen)
        choices: list[tuple[Act, frozenset[Act]]] = []
        # An act that is asleep, or was gone on with just before this one, need not follow one that it does not touch.
        # Not so what was gone on with in an earlier visit: there, an act that is awake only now was still asleep.
        earlier = [act for act in enabled if act in node.asleep]
        for act in chosen:
            choices.append((act, frozenset(other for other in earlier if self._situation.independent(other, act))))
            earlier.append(act)
        yield from choices

    def _look(self, node: _Node, act: Act, asleep: frozenset[Act]) -> None:
        situation, found = self._situation, self.found
        found.transition_count += 1
        for name in situation.broken:
            if name not in found.broken:
                found.broken[name] = node.schedule(act)
        if situation.lost:
            found.loss = node.schedule(act)
        key = situation.key()
        known = self._seen.get(key)
        if known is None:
            new = self._seen[key] = _Node(node, act, asleep, situation.capture())
            self._waiting.append(new)
            found.state_count += 1
            if self._on_progress is not None and found.state_count % _PROGRESS_EVERY == 0:
                self._on_progress(found.state_count, found.transition_count, new.depth)
            return
        if not known.asleep <= asleep:
            known.asleep &= asleep
            if not known.waits:
                known.copy, known.waits = situation.capture(), True
                self._waiting.append(known)
