"""Whatever breaks, and whenever: the source's guest goes on, DONE reaches it once, and the error says what happened."""

import pytest
import trio
import trio.testing
from migration_setup import Move, SourceGuest, TargetGuest, make_memory, write_pages

from host_migrator.errors import (
    DestinationLost,
    DestinationRefused,
    DirtyLogLost,
    MigrationFailed,
    MigrationInDoubt,
    MigrationRevoked,
    StreamError,
)
from host_migrator.link import LoopLink
from host_migrator.query import Fate, ask_fate, receive_query, send_fate
from host_migrator.rounds import Phase
from host_migrator.stream import Failed, Ready, Resumed, build_record
from spec.stream import RECORD_HEADER
from vdev.memory import PAGE_SIZE
from vdev.schedule import FreeSchedule

COMMIT_SIZE = RECORD_HEADER.sizeof()


def small_move(**options) -> Move:
    move = Move(
        SourceGuest(make_memory(24 * PAGE_SIZE, marks=True)), TargetGuest(make_memory(24 * PAGE_SIZE)), **options
    )
    write_pages(move.guest.memory, range(0, 24, 2), 1)
    return move


def assert_guest_goes_on(move):
    assert move.guest.running
    assert move.guest.resume_count == move.guest.pause_count
    # A guest that was never asked holds nothing, and is told nothing.
    assert move.hinting.calls.count("done") == (1 if move.hinting.calls else 0)
    assert move.hinting.sink is None
    assert "run" not in move.target.calls
    assert move.source.phase is Phase.FAILED


async def sizes() -> tuple[int, int]:
    """Bytes that a whole migration sends there and back."""
    move = small_move()
    await move.go()
    return move.here.sent_size, move.there.sent_size


async def test_a_link_cut_at_any_byte_before_the_commit_leaves_the_guest_at_the_source():
    there, _ = await sizes()
    before_commit = there - COMMIT_SIZE
    # Every byte where records are small, and every hundredth of the pages.
    places = [*range(400), *range(400, before_commit - 300, 401), *range(before_commit - 300, before_commit)]
    for size in places:
        move = small_move()
        move.here.cut_after(size)
        outcome = await move.go()
        assert isinstance(outcome.source_error, DestinationLost), (size, outcome)
        assert "cut" in str(outcome.source_error)
        assert_guest_goes_on(move)
        assert isinstance(outcome.destination_error, StreamError), (size, outcome)
        assert move.target.calls in ([], ["discard"], ["load_vcpu", "discard"])


async def test_a_link_cut_inside_the_commit_is_resolved_by_asking_and_the_guest_stays():
    there, _ = await sizes()
    for size in range(there - COMMIT_SIZE, there):
        move = small_move()
        move.here.cut_after(size)
        outcome = await move.go()
        assert isinstance(outcome.source_error, DestinationLost), (size, outcome)
        assert_guest_goes_on(move)
        assert move.target.calls == ["load_vcpu", "discard"]


async def test_a_link_cut_in_the_answer_before_resumed_never_leaves_two_guests_or_none():
    _, back = await sizes()
    for size in range(back + 1):
        move = small_move()
        move.there.cut_after(size)
        outcome = await move.go()
        running_there = "run" in move.target.calls
        assert move.guest.running != running_there, (size, outcome)
        assert move.hinting.calls.count("done") == 1
        assert (outcome.source_error is None) == running_there


async def test_a_destination_that_refuses_says_why():
    move = small_move()
    move.guest.save_devices = lambda: [("unheard-of", b"")]
    outcome = await move.go()
    assert isinstance(outcome.source_error, DestinationRefused)
    assert "a device nobody has" in str(outcome.source_error)
    assert_guest_goes_on(move)
    assert move.target.calls == ["discard"]


async def test_a_destination_whose_ram_differs_refuses_early():
    move = small_move()
    move.target.memory = make_memory(12 * PAGE_SIZE)
    outcome = await move.go()
    assert isinstance(outcome.source_error, DestinationRefused)
    assert "guest RAM" in str(outcome.source_error)
    assert_guest_goes_on(move)
    assert move.guest.pause_count == 0


async def test_a_destination_that_cannot_run_the_guest_gives_it_back():
    move = small_move()

    async def run():
        raise OSError("no such processor")

    move.target.run = run
    outcome = await move.go()
    assert isinstance(outcome.source_error, DestinationLost | DestinationRefused)
    assert "no such processor" in str(outcome.source_error)
    assert_guest_goes_on(move)
    assert move.target.calls == ["load_vcpu", "discard"]


async def test_bytes_damaged_on_the_way_are_refused_and_the_destination_stays_unused():
    there, _ = await sizes()
    for place in range(0, there - COMMIT_SIZE, 997):
        move = small_move()
        pipe = move.here._outgoing
        move.here._outgoing = Damaging(pipe, place)
        outcome = await move.go()
        assert isinstance(outcome.destination_error, StreamError), place
        assert isinstance(outcome.source_error, DestinationRefused), place
        assert_guest_goes_on(move)


class Damaging:
    """A pipe that changes one byte."""

    def __init__(self, pipe, place):
        self.__dict__.update(_pipe=pipe, _place=place)
        pipe.parts = _DamagingParts(pipe, place)

    def __getattr__(self, name):
        return getattr(self._pipe, name)

    def __setattr__(self, name, value):
        setattr(self._pipe, name, value)


class _DamagingParts(type(LoopLink.pair(FreeSchedule())[0]._outgoing.parts)):
    def __init__(self, pipe, place):
        super().__init__()
        self._pipe, self._place = pipe, place

    def append(self, part):
        place = self._place - self._pipe.sent_size
        if 0 <= place < len(part):
            damaged = bytearray(part)
            damaged[place] ^= 0x40
            part = memoryview(bytes(damaged))
        super().append(part)


async def test_a_destination_that_dies_at_any_turn_leaves_the_guest_at_the_source():
    turns = 0
    while True:
        move = small_move()
        source, destination = move.build()
        errors = []

        async def run_source(source=source, errors=errors):
            try:
                await source.run()
            except MigrationFailed as error:
                errors.append(error)

        class Countdown:
            """Kills the destination after so many turns of the source."""

            def __init__(self, count):
                self.count, self.scope = count, trio.CancelScope()

            def now(self):
                return 0.0

            async def sleep(self, actor, seconds):
                await trio.lowlevel.checkpoint()

            async def turn(self, actor):
                await trio.testing.wait_all_tasks_blocked()
                self.count -= 1
                if not self.count:
                    self.scope.cancel()

        source._schedule = countdown = Countdown(turns + 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_source)
            with countdown.scope:
                await destination.run()
        if not errors:
            assert move.target.calls == ["load_vcpu", "run", "verify"]
            assert turns > 6
            return
        assert_guest_goes_on(move)
        assert isinstance(errors[0], DestinationLost)
        turns += 1


async def test_cancelling_the_source_at_any_turn_gives_the_guest_back_unless_it_has_moved():
    turns = 0
    while True:
        move = small_move()
        source, destination = move.build()
        assert move.hinting.calls == []

        class Interrupt(FreeSchedule):
            def __init__(self, count):
                self.count, self.scope = count, trio.CancelScope()

            async def turn(self, actor):
                self.count -= 1
                if not self.count:
                    self.scope.cancel()
                await trio.lowlevel.checkpoint()

        source._schedule = interrupt = Interrupt(turns + 1)

        async def run_destination(destination=destination):
            try:
                await destination.run()
            except StreamError:
                return

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_destination)
            with interrupt.scope:
                await source.run()
        if not interrupt.scope.cancelled_caught:
            assert turns > 6
            assert source.phase is Phase.COMPLETED
            return
        assert_guest_goes_on(move)
        turns += 1


async def test_a_cancellation_after_the_commit_waits_for_the_answer():
    move = small_move()
    source, destination = move.build()
    scope = trio.CancelScope()
    run = move.target.run

    async def run_and_interrupt():
        scope.cancel()
        await run()

    move.target.run = run_and_interrupt
    async with trio.open_nursery() as nursery:
        nursery.start_soon(destination.run)
        with scope:
            await source.run()
    assert source.phase is Phase.COMPLETED
    assert not move.guest.running
    assert "run" in move.target.calls


async def test_nobody_knowing_whether_the_guest_runs_there_keeps_it_stopped_here():
    there, _ = await sizes()
    move = small_move(fate=Fate.UNKNOWN)
    move.here.cut_after(there - 1)
    outcome = await move.go()
    assert isinstance(outcome.source_error, MigrationInDoubt)
    assert not move.guest.running
    assert move.guest.resume_count == 0
    assert move.hinting.calls.count("done") == 1
    assert move.questions == [move.source.migration_id]


async def test_a_destination_that_answered_gone_never_runs_the_guest():
    move = small_move()
    _, destination = move.build()
    answers = []
    load_vcpu = move.target.load_vcpu

    async def load_and_ask(state):
        await load_vcpu(state)
        answers.append(await destination.answer(move.source.migration_id))

    move.target.load_vcpu = load_and_ask
    errors = []

    async def run(end):
        try:
            await end.run()
        except (MigrationFailed, MigrationRevoked) as error:
            errors.append(type(error))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, move.source)
        nursery.start_soon(run, destination)
    assert answers == [Fate.GONE]
    assert set(errors) == {MigrationRevoked, DestinationRefused}
    assert_guest_goes_on(move)
    assert await destination.answer(move.source.migration_id) is Fate.GONE


async def test_a_query_on_a_link_of_its_own_is_answered():
    move = small_move()
    await move.go()
    asking, answering = LoopLink.pair(FreeSchedule(), ("asking", "answering"))

    async def answer():
        migration_id = await receive_query(answering)
        await send_fate(answering, await move.destination.answer(migration_id))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        assert await ask_fate(asking, move.source.migration_id) is Fate.RUNNING


async def answer_with(link, *records):
    """A peer that reads everything and answers at once."""
    await link.send(records)
    await link.finish()


@pytest.mark.parametrize("item", [Ready({}), Resumed(), Failed("too hot here")])
async def test_an_answer_that_comes_too_early_ends_the_migration(item):
    move = small_move()
    source, _ = move.build()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer_with, move.there, build_record(item))
        with pytest.raises(MigrationFailed, match=r"too early|too hot|RESUMED"):
            await source.run()
    assert_guest_goes_on(move)


async def test_a_silent_destination_does_not_hold_the_stopped_guest_for_ever(autojump_clock):
    move = small_move(options={"patience": 5.0})
    source, _ = move.build()

    async def read_on():
        await move.there.finish()

    move.there._end_outgoing = lambda why: None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_on)
        with pytest.raises(DestinationLost, match="nothing for 5 s"):
            await source.run()
    assert_guest_goes_on(move)


async def test_a_link_that_takes_nothing_does_not_hold_the_stopped_guest_for_ever(autojump_clock):
    move = small_move(options={"patience": 5.0})
    source, _ = move.build()
    move.guest.at_pause = lambda: (write_pages(move.guest.memory, range(24), 2), stop_reading.cancel())
    stop_reading = trio.CancelScope()
    move.here._capacity = 4096

    async def read_for_a_while():
        while True:
            move.there._drop_incoming()
            await trio.sleep(0.001)

    async with trio.open_nursery() as nursery:

        async def reader():
            with stop_reading:
                await read_for_a_while()

        nursery.start_soon(reader)
        with pytest.raises(DestinationLost, match="took nothing for 5 s"):
            await source.run()
    assert_guest_goes_on(move)


async def test_a_dirty_log_that_is_lost_ends_the_migration_with_its_own_error():
    move = small_move()
    source, destination = move.build()

    def take():
        raise DirtyLogLost("the guest process died")
        yield

    async def run_destination():
        with pytest.raises(StreamError):
            await destination.run()

    source.migration.dirty_log.take = take
    source.migration.dirty_log.start = lambda: None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_destination)
        with pytest.raises(DirtyLogLost):
            await source.run()
    assert_guest_goes_on(move)


async def test_a_verdict_that_is_lost_does_not_undo_the_move():
    _, back = await sizes()
    move = small_move()
    move.there.cut_after(back - 3)
    outcome = await move.go()
    assert outcome.source_error is None
    assert outcome.source_figures.verdict is None
    assert "cut" in outcome.source_figures.verdict_missing
    assert move.source.phase is Phase.COMPLETED
