"""The guest's own verdict can fail: a migrator that loses a write, or a page, is found out at the destination."""

import time
from collections.abc import Iterator

import numpy as np
import pytest

from host_migrator.dirty_log import CooperativeDirtyLog
from host_migrator.page_set import PageSet
from host_migrator.strategies import CommandId
from vdev.events import EventStream
from vdev.memory import PageRanges
from vdev.run import one_loop, processes
from vdev.run.options import MigrateOptions
from vdev.run.report import Outcome, Report
from vdev.run.shape import guest_config

MIB = 1 << 20
OPTIONS = MigrateOptions(ram_size=16 * MIB, rate=2000.0, max_bandwidth=100 * MIB, dirty_log="cooperative")


def move_in_one_loop() -> Report:
    return one_loop.migrate(OPTIONS, events=EventStream(lambda: 0.0), on_progress=lambda _: None)


def expect_found_out(report: Report) -> None:
    assert report.outcome is Outcome.MISMATCHED
    assert report.exit_status == 1
    assert report.verified.mismatched > 0
    assert report.error


class ForgetfulLog(CooperativeDirtyLog):
    """Clears the marks and tells nobody, once the migration is under way."""

    def take(self) -> Iterator[PageRanges]:
        for _ in super().take():
            pass
        return iter(())


def test_a_dirty_log_that_forgets_is_found_out(monkeypatch):
    monkeypatch.setattr(one_loop, "CooperativeDirtyLog", ForgetfulLog)
    expect_found_out(move_in_one_loop())


@pytest.mark.process
async def test_a_dirty_log_that_forgets_is_found_out_between_processes(monkeypatch):
    monkeypatch.setattr(processes, "CooperativeDirtyLog", ForgetfulLog)
    report = await processes.migrate(OPTIONS, events=EventStream(time.monotonic), on_progress=lambda _: None)
    # What was lost may be the guest's own tables, and then it stumbles before it can give a verdict.
    if report.outcome is Outcome.GUEST_DIED:
        assert "died at the destination" in (report.error or "")
    else:
        expect_found_out(report)


def test_pages_that_are_never_sent_are_found_out(monkeypatch):
    take_window = PageSet.take_window
    lost: list[int] = []

    def lossy(self: PageSet, cursor: int, limit: int) -> tuple[np.ndarray, int]:
        pages, next_cursor = take_window(self, cursor, limit)
        if cursor > 1000 and len(pages) > 100 and not lost:
            lost.extend(pages[::8].tolist())
            pages = pages[np.arange(len(pages)) % 8 != 0]
        return pages, next_cursor

    monkeypatch.setattr(PageSet, "take_window", lossy)
    report = move_in_one_loop()
    assert lost
    expect_found_out(report)


def test_hints_that_are_applied_across_a_sync_are_found_out(monkeypatch):
    """The fault that the command id is there to prevent: what was free once is dropped after it was written to."""

    class Stubborn(CommandId):
        def set_up(self, hints):
            self._late: list[PageRanges] = []
            self._take = take = hints.take

            def keep(ranges: PageRanges) -> int:
                self._late.append(ranges)
                return take(ranges)

            hints.take = keep
            super().set_up(hints)

        def after_sync(self, running: bool) -> None:
            super().after_sync(running)
            for ranges in self._late:
                self._take(ranges)

    def short_of_memory(*arguments):
        # So the guest takes hinted blocks back, and writes to them, while the migration goes on.
        return {**guest_config(*arguments), "low_water": 0.7, "high_water": 0.9, "full_water": 0.95, "warm_up": False}

    monkeypatch.setattr(one_loop, "guest_config", short_of_memory)
    options = MigrateOptions(ram_size=32 * MIB, rate=1000.0, max_bandwidth=30 * MIB, downtime_limit=0.001)
    right = one_loop.migrate(options, events=EventStream(lambda: 0.0), on_progress=lambda _: None)
    assert right.outcome is Outcome.COMPLETED
    assert right.hints["applied_pages"] > 0
    monkeypatch.setattr(one_loop, "make_strategy", lambda name, balloon: Stubborn(balloon.hinting))
    expect_found_out(one_loop.migrate(options, events=EventStream(lambda: 0.0), on_progress=lambda _: None))
