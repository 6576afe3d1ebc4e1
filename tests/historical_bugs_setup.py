"""What a test that puts a historical bug back is made of: a check that passes, and the fault with which it fails."""

from abc import ABC, abstractmethod

import pytest

from host_migrator.dirty_log import CooperativeDirtyLog
from host_migrator.hint_work import HintWork
from host_migrator.migration import Migration
from host_migrator.strategies import CommandId
from vdev.memory import GuestMemory, PageMarks, PrivateBacking, Region

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


def begin_migration(memory, hinting):
    """Begin a migration of `memory` with the core and the strategy that are shipped; the guest is asked for hints."""
    if memory.page_marks is None:
        memory.page_marks = PageMarks(memory.page_count)
    migration = Migration(memory, CooperativeDirtyLog(memory.page_marks), CommandId(hinting))
    migration.start(HintWork(migration))
    return migration


def arrived(migration):
    """Send what is to be sent, stop the guest, send the rest; return the destination's RAM."""
    there = GuestMemory(
        [Region(region.guest_address, PrivateBacking(region.size)) for region in migration.memory.regions]
    )
    for following in (migration.stop, migration.complete):
        while migration.next_page() is not None:
            for address in migration.memory.addresses_of(migration.take(1 << 20)).tolist():
                there.write(address, migration.memory.read(address, PAGE))
            migration.sent()
        following()
    migration.clean_up()
    return there


class Altered:
    """A queue of which some methods are others."""

    def __init__(self, queue, **methods):
        self._queue = queue
        self.__dict__.update(methods)

    def __getattr__(self, name):
        return getattr(self._queue, name)
