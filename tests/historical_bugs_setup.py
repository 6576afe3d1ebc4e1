"""What a test that puts a historical bug back is made of: a check that passes, and the fault with which it fails."""

from abc import ABC, abstractmethod

import numpy as np
import pytest

from host_migrator.dirty_log import CooperativeDirtyLog
from host_migrator.page_set import PageSet
from vdev.memory import PageMarks

PAGE = 4096
MIB = 1 << 20


class Bug(ABC):
    """One bug that a real implementation had.

    `check` joins real parts and passes. After `put_back` it raises `raises`, and the message holds `symptom`.
    """

    name: str
    """As docs/historical-bugs.md has it; several bugs may be forms of one."""
    form = ""
    symptom: str
    raises: type[Exception] = AssertionError

    @abstractmethod
    def check(self):
        """Join real parts; see that what should happen does."""

    @abstractmethod
    def put_back(self, monkeypatch: pytest.MonkeyPatch):
        """Have the parts that `check` joins be as they were in the implementation that had the bug."""

    def __str__(self):
        return f"{self.name} ({self.form})" if self.form else self.name


class Tracking:
    """A migrator's two sets, merged by hand: `to_send`, which hints take pages out of, and the dirty log."""

    def __init__(self, memory, hinting):
        if memory.page_marks is None:
            memory.page_marks = PageMarks(memory.page_count)
        self._log = CooperativeDirtyLog(memory.page_marks)
        self.to_send = PageSet(memory.page_count)
        self._hinting = hinting
        self._log.start()
        self.to_send.fill()
        hand_hints_to(hinting, self)

    def take(self, ranges):
        return self.to_send.remove_ranges(ranges)

    __call__ = take

    def answer_ended(self):
        """Nobody waits for an answer's end."""

    def batch_taken(self):
        return True

    def merge(self):
        """Stop the hints and merge the log."""
        self._hinting.stop()
        self.to_send.merge(self._log.take())

    def sync(self):
        """Stop the hints, merge the log, and ask again; return the new id."""
        self.merge()
        return self._hinting.request()

    def count_is_exact(self):
        return self.to_send.count == int(np.bitwise_count(self.to_send.words).sum())


def hand_hints_to(hinting, taker):
    setattr(hinting, "taker" if hasattr(hinting, "taker") else "sink", taker)


def takes_hints(hinting):
    return (hinting.taker if hasattr(hinting, "taker") else hinting.sink) is not None


class Altered:
    """A queue of which some methods are others."""

    def __init__(self, queue, **methods):
        self._queue = queue
        self.__dict__.update(methods)

    def __getattr__(self, name):
        return getattr(self._queue, name)
