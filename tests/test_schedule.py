"""Who acts next is decided by the seed, and time moves only when nobody can act."""

import pytest
import trio
import trio.testing

from vdev.schedule import NobodyCanAct, SeededSchedule


def run_actors(seed: int, act_count: int = 20) -> list[tuple[float, str]]:
    log: list[tuple[float, str]] = []
    clock = trio.testing.MockClock()

    async def main() -> None:
        schedule = SeededSchedule(seed, clock)

        async def actor(name: str, pause: float) -> None:
            for act in range(act_count):
                await schedule.turn(name)
                log.append((schedule.now() - start, name))
                if act % 5 == 4:
                    await schedule.sleep(name, pause)

        async with trio.open_nursery() as nursery:
            start = schedule.now()
            nursery.start_soon(schedule.run)
            async with trio.open_nursery() as actors:
                actors.start_soon(actor, "guest", 0.5)
                actors.start_soon(actor, "host", 0.25)
                actors.start_soon(actor, "migrator", 1.0)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=clock)
    return log


def test_the_same_seed_gives_the_same_order_and_times():
    assert run_actors(7) == run_actors(7)


def test_different_seeds_give_different_orders():
    assert len({tuple(run_actors(seed)) for seed in range(8)}) == 8


def test_time_is_the_sum_of_the_longest_sleeper():
    assert run_actors(3)[-1][0] == pytest.approx(3.0)


def test_a_deadlock_is_named_instead_of_hanging():
    clock = trio.testing.MockClock()

    async def main() -> None:
        schedule = SeededSchedule(0, clock)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(schedule.run)
            await trio.Event().wait()

    with pytest.RaisesGroup(NobodyCanAct):
        trio.run(main, clock=clock, strict_exception_groups=True)


def test_a_cancelled_sleeper_does_not_hold_the_clock():
    clock = trio.testing.MockClock()

    async def main() -> float:
        schedule = SeededSchedule(0, clock)
        async with trio.open_nursery() as nursery:
            start = schedule.now()
            nursery.start_soon(schedule.run)
            async with trio.open_nursery() as sleepers:
                sleepers.start_soon(schedule.sleep, "guest", 100.0)
                await schedule.sleep("host", 1.0)
                sleepers.cancel_scope.cancel()
            await schedule.sleep("host", 1.0)
            nursery.cancel_scope.cancel()
        return schedule.now() - start

    assert trio.run(main, clock=clock) == pytest.approx(2.0)
