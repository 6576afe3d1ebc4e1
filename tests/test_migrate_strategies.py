"""Every strategy moves a guest, with either answer and however the guest holds its pages: in one loop, in processes."""

import time
from collections import Counter

import pytest
from race_losses import read_losses

from host_migrator.strategies.block_bulk import BlockBulk
from vdev.events import EventStream, HintApplied, HintStateChanged
from vdev.race.combination import Combination
from vdev.run import one_loop, processes
from vdev.run.options import STRATEGIES, MigrateOptions
from vdev.run.report import Outcome, Report

MIB = 1 << 20
ASKING = [name for name in STRATEGIES if name != "none"]
WAYS = [("list", "until-queued"), ("list", "until-used"), ("bitmap", "nothing"), ("bitmap", "until-queued")]
"""Each answer and each holding; all pairs of driver and device are in test_balloon_hint_behaviours.py."""
LOSSES = {combination for combination, _ in read_losses().values()}
"""What the lab finds a loss for."""


def move(cut_link_after: int | None = None, **options) -> tuple[Report, Counter]:
    counts: Counter = Counter()
    events = EventStream(lambda: 0.0)

    def count(record):
        counts[type(record.event)] += 1
        if isinstance(record.event, HintStateChanged):
            counts[record.event.after] += 1

    events.subscribe(count)
    options = MigrateOptions(**{"ram_size": 16 * MIB, "rate": 1000.0} | options)
    report = one_loop.migrate(options, events=events, on_progress=lambda _: None, cut_link_after=cut_link_after)
    return report, counts


def assert_moved(report: Report, *, safe: bool) -> None:
    # A strategy that can lose pages may do so here: that is a result, too.
    assert report.outcome in ((Outcome.COMPLETED,) if safe else (Outcome.COMPLETED, Outcome.MISMATCHED)), report.error
    assert report.verified.pages > 0
    assert report.verified.resumed_operations > 0
    assert report.hints["violation"] is None
    moved = report.pages.sent + report.pages.zero - report.pages.resent
    assert moved + report.pages.skipped == report.pages.total


def is_safe(strategy: str, answer: str, holds: str) -> bool:
    return Combination(strategy, answer=answer, holds=holds) not in LOSSES


SAFE_WITHOUT_WAITING = [
    (strategy, holds)
    for strategy in ASKING
    for holds in ("until-queued", "nothing")
    if is_safe(strategy, "list", holds)
]


@pytest.mark.parametrize(("answer", "holds"), WAYS)
@pytest.mark.parametrize("strategy", ASKING)
def test_every_strategy_moves_a_guest_in_one_loop(strategy, answer, holds):
    report, counts = move(strategy=strategy, answer=answer, guest_holds=holds)
    assert_moved(report, safe=is_safe(strategy, answer, holds))
    assert (report.strategy, report.answer, report.guest_holds) == (strategy, answer, holds)
    assert report.pages.skipped > 0
    assert counts[HintApplied] > 0
    assert counts["DONE"] == 1


def test_a_guest_that_is_not_asked_has_no_answer():
    report, counts = move(strategy="none")
    assert_moved(report, safe=True)
    assert (report.answer, report.guest_holds, report.pages.skipped) == (None, None, 0)
    assert not counts[HintApplied]


@pytest.mark.parametrize("strategy", ["interval", "resubmit", "host-timer", "command-id", "flush-after-sync"])
def test_a_guest_answers_again_while_a_slow_migration_goes_on(strategy):
    slow = {"max_bandwidth": 5.0 * MIB, "downtime_limit": 0.01, "guest_holds": "nothing", "workload": "idle"}
    _, again = move(strategy=strategy, **slow)
    _, once = move(strategy="ignore-late", **slow)
    assert again[HintApplied] > once[HintApplied]


@pytest.mark.parametrize("strategy", ASKING)
def test_a_migration_that_fails_gives_the_guest_its_pages_back(strategy):
    report, counts = move(cut_link_after=200_000, strategy=strategy)
    assert report.outcome is Outcome.DESTINATION_LOST
    assert report.verified_at == "source"
    assert report.verified.mismatched == 0
    assert report.verified.resumed_operations > 0
    assert counts["DONE"] == 1


@pytest.mark.parametrize("strategy", ["filter-on-ready", "ignore-late-unlocked"])
@pytest.mark.parametrize("seed", range(4))
def test_a_handler_in_pieces_loses_nothing_that_is_held_until_used_in_any_order_of_turns(strategy, seed):
    report, _ = move(strategy=strategy, seed=seed, guest_holds="until-used", max_bandwidth=50.0 * MIB)
    assert_moved(report, safe=True)


def test_block_bulk_goes_on_without_a_guest_that_never_finishes_its_answer(monkeypatch):
    monkeypatch.setattr(BlockBulk, "answer_ended", lambda self: None)
    report, _ = move(strategy="block-bulk")
    assert_moved(report, safe=True)
    assert 1.0 <= report.total_seconds < 2.0


@pytest.mark.process
@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_every_strategy_moves_a_guest_between_processes(strategy):
    options = MigrateOptions(ram_size=16 * MIB, rate=1000.0, strategy=strategy, guest_holds="until-used")
    report = await processes.migrate(options, events=EventStream(time.monotonic), on_progress=lambda _: None)
    assert_moved(report, safe=True)
    assert (report.pages.skipped > 0) == (strategy != "none")


@pytest.mark.process
@pytest.mark.parametrize(("strategy", "holds"), SAFE_WITHOUT_WAITING)
async def test_what_the_lab_calls_safe_loses_nothing_between_processes(strategy, holds):
    options = MigrateOptions(ram_size=16 * MIB, rate=1000.0, strategy=strategy, guest_holds=holds)
    report = await processes.migrate(options, events=EventStream(time.monotonic), on_progress=lambda _: None)
    assert_moved(report, safe=True)
    assert report.pages.skipped > 0


@pytest.mark.process
@pytest.mark.parametrize(("strategy", "transport"), [("command-id", "vhost-user"), ("interval", "mmio")])
async def test_a_bitmap_comes_from_a_guest_in_a_process_too(strategy, transport):
    options = MigrateOptions(
        ram_size=16 * MIB, strategy=strategy, answer="bitmap", guest_holds="until-queued", transport=transport
    )
    report = await processes.migrate(options, events=EventStream(time.monotonic), on_progress=lambda _: None)
    assert_moved(report, safe=strategy == "command-id")
    assert report.pages.skipped > 0
