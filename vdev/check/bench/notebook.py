"""What is noted while a check is done, and what is said in the end."""

from collections import deque
from collections.abc import Sequence
from time import monotonic
from typing import NoReturn

from vdev.check.evidence import Evidence, Shown
from vdev.check.verdict import Failed, Inconclusive, NotApplicable
from vdev.events import EventStream, Record

__all__ = ["Notebook"]

_RECORD_COUNT = 64
"""Events that are kept as evidence."""


class Notebook:
    """One case's. `events`, if given, gets all events as well."""

    def __init__(self, events: EventStream | None = None) -> None:
        self.sentences: list[str] = []
        """What was done, a sentence each."""
        self.records: deque[Record] = deque(maxlen=_RECORD_COUNT)
        """The last events."""
        stream = EventStream(monotonic)
        stream.subscribe(self.records.append)
        if events is not None:
            stream.subscribe(events.forward)
        self._events = stream.emitter("driver")

    def done(self, sentence: str) -> None:
        """Note what is done."""
        self.sentences.append(sentence)

    def expect(self, is_so: bool, statement: str, *, expected: str, observed: str, shown: Sequence[Shown] = ()) -> None:
        """Fail if something is not as a statement has it."""
        if not is_so:
            self.fail(statement, expected=expected, observed=observed, shown=shown)

    def fail(self, statement: str, *, expected: str, observed: str, shown: Sequence[Shown] = ()) -> NoReturn:
        """End the check: the device broke the statement."""
        raise Failed(statement, expected=expected, observed=observed, shown=tuple(shown))

    def inconclusive(self, why: str) -> NoReturn:
        """End the check: nothing can be said."""
        raise Inconclusive(why)

    def not_applicable(self, why: str) -> NoReturn:
        """End the check: its condition is not met."""
        raise NotApplicable(why)

    def evidence(self, *, expected: str = "", observed: str = "", shown: Sequence[Shown] = ()) -> Evidence:
        """Return what was done and the last events, with what was expected and observed."""
        return Evidence(tuple(self.sentences), expected, observed, tuple(shown), tuple(self.records))
