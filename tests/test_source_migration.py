"""A migration from end to end in one loop: what arrives, what is counted, what is decided."""

import random

import numpy as np
import pytest
import trio
import trio.testing
from migration_setup import MIB, Hinting, Move, SourceGuest, TargetGuest, contents, make_memory, write_pages

from host_migrator.figures import RoundFigures
from host_migrator.rounds import Limits, Phase
from vdev.events import DirtyLogSynced, EventStream, PhaseChanged, RunSent
from vdev.memory import PAGE_SIZE
from vdev.schedule import FreeSchedule, SeededSchedule

PAGES = MIB // PAGE_SIZE


def assert_counts_add_up(figures):
    assert figures.sent_count + figures.zero_count - figures.resent_count + figures.skipped_count == figures.page_count
    assert sum(entry.pages for entry in figures.rounds) == figures.sent_count + figures.zero_count


async def test_memory_devices_and_vcpu_arrive_and_the_guest_runs_once():
    move = Move()
    write_pages(move.guest.memory, range(0, PAGES, 3), 200)
    outcome = await move.go()
    assert outcome.source_error is None
    assert outcome.destination_error is None
    assert np.array_equal(contents(move.guest.memory), contents(move.target.memory))
    assert move.target.calls == ["load_vcpu", "run", "verify"]
    assert move.target.devices == [("balloon", b"balloon state"), ("block", b"")]
    assert move.target.vcpu_state == b'{"program_counter": 42}'
    assert move.guest.pause_count == 1
    assert move.guest.resume_count == 0
    assert outcome.source_figures.verdict == {"pages": PAGES, "mismatched": 0}
    assert outcome.destination_figures.verdict == {"pages": PAGES, "mismatched": 0}


async def test_pages_are_counted_as_sent_zero_resent_or_skipped():
    def hint(hinting):
        if hinting.calls.count("request") == 1:
            assert hinting.hint((0, 10), (5, 30), (200, 256)) == 30 + 56

    move = Move(hinting=Hinting(hint))
    write_pages(move.guest.memory, range(100), 1)
    move.guest.at_pause = lambda: write_pages(move.guest.memory, [3, 50, 60], 2)
    figures = (await move.go()).source_figures
    assert figures.hinted_count == 86
    assert figures.skipped_count == 85, "page 3 was hinted, then written"
    assert figures.sent_count == 70 + 3
    assert figures.zero_count == 100
    assert figures.resent_count == 2
    assert_counts_add_up(figures)
    assert figures.wire_bytes == move.here.sent_size
    for page in (3, 50, 60):
        assert move.target.memory.read(move.target.memory.address_of(page) + 7, 1) == b"\x02"


async def test_a_hint_that_was_written_to_since_is_sent_after_the_next_sync():
    def hint(hinting):
        if hinting.calls.count("request") == 1:
            hinting.hint((0, PAGES))

    move = Move(hinting=Hinting(hint))
    done = []

    class Events:
        listening = True

        def emit(self, event):
            if isinstance(event, PhaseChanged) and event.after == Phase.BULK and not done:
                done.append(write_pages(move.guest.memory, [9], 77))

    move.options["events"] = Events()
    outcome = await move.go()
    assert outcome.source_figures.sent_count == 1
    assert move.target.memory.read(move.target.memory.address_of(9) + 7, 1) == b"M"


async def test_no_hint_is_taken_after_the_last_sync():
    move = Move()
    move.guest.at_pause = lambda: write_pages(move.guest.memory, [9], 77)
    finished = []

    class Late(Hinting):
        def done(self):
            super().done()
            finished.append(self.sink)

    move.hinting = Late()
    await move.go()
    assert finished == [None]
    assert move.hinting.calls[-2:] == ["stop", "done"]
    assert move.target.memory.read(move.target.memory.address_of(9) + 7, 1) == b"M"


async def test_every_sync_stops_the_hints_and_asks_again_and_the_last_is_done():
    move = Move()
    await move.go()
    assert move.hinting.calls == ["stop", "request", "stop", "request", "stop", "done"]


async def test_the_log_is_on_before_the_guest_is_asked():
    move = Move()
    order = []
    move.hinting = Hinting(lambda hinting: order.append("request"))
    source, destination = move.build()
    log = source.migration.dirty_log
    start = log.start

    def noted_start():
        order.append("start")
        start()

    log.start = noted_start
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.run)
        nursery.start_soon(destination.run)
    assert order[:2] == ["start", "request"]


class Writing:
    """Events that have the guest write pages whenever the migrator has sent something."""

    listening = True

    def __init__(self, memory, pages):
        self.memory, self.pages = memory, pages
        self.events = []

    def emit(self, event):
        self.events.append(event)
        if isinstance(event, RunSent):
            write_pages(self.memory, self.pages, 3)


def slow_move(autojump_clock, page_count, **limits):
    move = Move(bandwidth=1_000_000.0, options={"limits": Limits(**limits)})
    write_pages(move.guest.memory, range(PAGES), 1)
    move.options["events"] = Writing(move.guest.memory, range(page_count))
    return move


async def test_rounds_go_on_until_the_rest_fits_the_downtime_limit(autojump_clock):
    move = slow_move(autojump_clock, 200, downtime=0.1, max_rounds=10)
    writing = move.options["events"]
    # The guest calms down: fewer pages after each sync.
    emit = writing.emit

    def calming(event):
        if isinstance(event, DirtyLogSynced):
            writing.pages = range(len(writing.pages) // 2)
        emit(event)

    writing.emit = calming
    outcome = await move.go()
    figures = outcome.source_figures
    assert figures.converged
    assert 2 < len(figures.rounds) < 10
    assert figures.bytes_per_second == pytest.approx(1_000_000, rel=0.05)
    assert figures.downtime_seconds <= 0.1 + 0.01
    assert np.array_equal(contents(move.guest.memory), contents(move.target.memory))
    assert_counts_add_up(figures)


async def test_a_guest_that_writes_faster_than_the_link_is_moved_after_the_last_round(autojump_clock):
    move = slow_move(autojump_clock, 200, downtime=0.3, max_rounds=4)
    figures = (await move.go()).source_figures
    assert not figures.converged
    assert len(figures.rounds) == 4 + 1
    assert figures.downtime_seconds > 0.3
    assert np.array_equal(contents(move.guest.memory), contents(move.target.memory))


async def test_a_bandwidth_limit_holds_while_the_guest_runs(autojump_clock):
    move = Move(options={"limits": Limits(bandwidth=500_000.0)})
    write_pages(move.guest.memory, range(PAGES), 1)
    figures = (await move.go()).source_figures
    bulk = figures.rounds[0]
    assert isinstance(bulk, RoundFigures)
    assert bulk.bytes / bulk.seconds == pytest.approx(500_000, rel=0.01)
    assert figures.bytes_per_second == pytest.approx(500_000, rel=0.01)


async def test_a_guest_that_says_nothing_costs_at_most_the_head_start(autojump_clock):
    move = Move(head_start=0.1)
    move.build()
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(move.source.run)
        nursery.start_soon(move.destination.run)
    assert trio.current_time() - began == pytest.approx(0.1)


async def test_a_guest_that_cannot_be_asked_costs_no_head_start(autojump_clock):
    class Unable(Hinting):
        def request(self):
            super().request()

    move = Move(hinting=Unable(), head_start=0.1)
    began = trio.current_time()
    await move.go()
    assert trio.current_time() == began


async def test_the_wait_for_hints_ends_when_they_dry_up(autojump_clock):
    move = Move(hinting=Hinting(lambda hinting: hinting.hint((0, 5))), head_start=1.0)
    move.build()
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(move.source.run)
        nursery.start_soon(move.destination.run)
    assert trio.current_time() - began == pytest.approx(0.1)


async def test_phases_and_syncs_are_events():
    stream = EventStream(lambda: 0.0)
    records = []
    stream.subscribe(records.append)
    move = Move(options={"events": stream.emitter("migrator")})
    await move.go()
    phases = [record.event.after for record in records if isinstance(record.event, PhaseChanged)]
    assert phases == ["set-up", "bulk", "stop-and-copy", "hand-over", "completed"]
    syncs = [record.event.number for record in records if isinstance(record.event, DirtyLogSynced)]
    assert syncs == [1, 2, 3]
    assert sum(record.event.page_count for record in records if isinstance(record.event, RunSent)) == PAGES


async def test_a_migration_runs_once():
    move = Move()
    await move.go()
    with pytest.raises(ValueError, match="completed"):
        await move.source.run()


def seeded_run(seed: int):
    """A guest task writes and hints while the migration runs; everybody takes turns as the seed says."""
    clock = trio.testing.MockClock()

    async def main():
        schedule = SeededSchedule(seed, clock)
        move = Move(
            SourceGuest(make_memory(128 * PAGE_SIZE, marks=True)),
            TargetGuest(make_memory(128 * PAGE_SIZE)),
            schedule=schedule,
            bandwidth=2_000_000.0,
            options={"limits": Limits(downtime=0.05, max_rounds=6)},
        )
        memory, dice = move.guest.memory, random.Random(seed)
        write_pages(memory, range(128), 1)
        relied_on = set(range(128))

        async def guest():
            while move.guest.running:
                await schedule.turn("guest")
                if not move.guest.running:
                    return
                page = dice.randrange(128)
                if dice.random() < 0.6:
                    write_pages(memory, [page], dice.randrange(1, 256))
                    relied_on.add(page)
                elif move.hinting.sink is not None:
                    relied_on.discard(page)
                    move.hinting.hint((page, page + 1))
                await schedule.sleep("guest", dice.random() * 0.002)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(schedule.run)
            async with trio.open_nursery() as actors:
                actors.start_soon(guest)
                outcome = await move.go()
            nursery.cancel_scope.cancel()
        assert outcome.source_error is None, outcome
        assert 0 < len(relied_on) < 128
        pages = np.array(sorted(relied_on))
        assert np.array_equal(
            contents(memory).reshape(-1, PAGE_SIZE)[pages], contents(move.target.memory).reshape(-1, PAGE_SIZE)[pages]
        )
        assert_counts_add_up(outcome.source_figures)
        return schedule.turn_count, outcome.source_figures

    return trio.run(main, clock=clock)


@pytest.mark.parametrize("seed", range(8))
def test_every_page_the_guest_relies_on_arrives_whatever_the_order(seed):
    seeded_run(seed)


def test_the_same_seed_gives_the_same_migration():
    assert seeded_run(3) == seeded_run(3)


def test_a_free_schedule_is_what_tests_use_by_default():
    assert isinstance(Move().schedule, FreeSchedule)
