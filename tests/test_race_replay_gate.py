"""Acts are made in the order of their list, whoever could go first; a list that does not fit is named, nobody hangs."""

import pytest
import trio
import trio.testing

from vdev.race.replay_gate import ActGate, Next, ScheduleMisfit, Turn
from vdev.race.verdict import Act


class Walker:
    """Makes acts of its own, one a turn, as a real task does: it does not know of the order."""

    def __init__(self, actor, names):
        self.acts = [Act(actor, name) for name in names]
        self.done_count = 0

    def look(self):
        if self.done_count == len(self.acts):
            return Turn.HELD
        return Next(self.acts[self.done_count], self.done_count)

    async def walk(self, gate, log, *, wasted_turns=0):
        for act in self.acts:
            for _ in range(wasted_turns):
                await gate.turn(act.actor)
            await gate.turn(act.actor)
            log.append(str(act))
            self.done_count += 1


def replay(order, *walkers, slow=frozenset(), wasted_turns=0, real_time=False, patience=0.2):
    log = []
    clock = None if real_time else trio.testing.MockClock()
    gate = ActGate(
        order,
        {walker.acts[0].actor: walker.look for walker in walkers if walker.acts},
        clock=clock,
        patience=patience,
        slow=slow,
        on_made=lambda act: log.append(f"made {act}"),
    )

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gate.run)
            async with trio.open_nursery() as actors:
                for walker in walkers:
                    actors.start_soon(lambda walker=walker: walker.walk(gate, log, wasted_turns=wasted_turns))
            nursery.cancel_scope.cancel()

    trio.run(main, clock=clock, strict_exception_groups=True)
    return log


def acts_of(text):
    return [Act(*each.split(": ")) for each in text.split(", ")]


@pytest.mark.parametrize("order", ["a: 1, a: 2, b: 1, b: 2", "b: 1, a: 1, b: 2, a: 2", "b: 1, b: 2, a: 1, a: 2"])
@pytest.mark.parametrize("real_time", [False, True])
def test_acts_are_made_in_the_order_of_the_list(order, real_time):
    log = replay(acts_of(order), Walker("a", "12"), Walker("b", "12"), real_time=real_time)
    assert [each for each in log if not each.startswith("made")] == order.split(", ")


def test_an_act_is_over_before_the_next_one_begins():
    log = replay(acts_of("b: 1, a: 1, b: 2"), Walker("a", "1"), Walker("b", "12"))
    assert log[:5] == ["b: 1", "made b: 1", "a: 1", "made a: 1", "b: 2"]


def test_a_turn_that_was_spent_on_something_else_is_granted_again():
    log = replay(acts_of("b: 1, a: 1, b: 2"), Walker("a", "1"), Walker("b", "12"), wasted_turns=3)
    assert [each for each in log if not each.startswith("made")] == ["b: 1", "a: 1", "b: 2"]


def test_an_actor_that_never_comes_to_its_act_is_named():
    with pytest.RaisesGroup(
        pytest.RaisesExc(ScheduleMisfit, match=r"act 2 of 3, 'c: 1': nobody is at it, but at 'b: 1'")
    ):
        replay(acts_of("a: 1, c: 1, b: 1"), Walker("a", "1"), Walker("b", "1"))


def test_an_actor_that_never_comes_is_not_waited_for_without_end_in_real_time():
    with pytest.RaisesGroup(
        pytest.RaisesExc(ScheduleMisfit, match=r"act 1 of 1, 'c: 1': nobody is at any act within 0.2 s")
    ):
        replay(acts_of("c: 1"), Sleeper(), real_time=True)


class Sleeper:
    """Never asks for a turn."""

    acts = ()

    async def walk(self, gate, log, *, wasted_turns):
        await trio.sleep_forever()


def test_an_actor_that_is_at_another_act_is_told_so():
    with pytest.RaisesGroup(
        pytest.RaisesExc(ScheduleMisfit, match=r"act 1 of 2, 'a: 2': nobody is at it, but at 'a: 1', 'b: 1'")
    ):
        replay(acts_of("a: 2, b: 1"), Walker("a", "1"), Walker("b", "1"))


def test_an_act_that_is_never_made_ends_the_run():
    class Stubborn(Walker):
        async def walk(self, gate, log, *, wasted_turns):
            while True:
                await gate.turn("a")

    with pytest.RaisesGroup(pytest.RaisesExc(ScheduleMisfit, match=r"'a: 1': it had 100 turns and was not made")):
        replay(acts_of("a: 1"), Stubborn("a", "1"))


def test_a_slow_act_is_waited_for_until_it_is_reported():
    log = []
    first = Walker("a", "1")
    second = Walker("b", "1")
    gate = ActGate(acts_of("a: 1, b: 1"), {"a": first.look, "b": second.look}, slow=frozenset("a"))

    async def act_slowly():
        await gate.turn("a")
        await trio.sleep(0.05)
        log.append("a: 1")
        first.done_count = 1
        gate.report("a")

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gate.run)
            async with trio.open_nursery() as actors:
                actors.start_soon(act_slowly)
                actors.start_soon(second.walk, gate, log)
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert log == ["a: 1", "b: 1"]


def test_a_slow_act_that_is_never_over_is_named():
    walker = Walker("a", "1")
    gate = ActGate(acts_of("a: 1"), {"a": walker.look}, slow=frozenset("a"), patience=0.05)

    async def act_for_ever():
        await gate.turn("a")
        await trio.sleep_forever()

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gate.run)
            nursery.start_soon(act_for_ever)

    with pytest.RaisesGroup(pytest.RaisesExc(ScheduleMisfit, match=r"'a: 1' was begun and not finished within 0.05 s")):
        trio.run(main, strict_exception_groups=True)


def test_time_moves_only_when_nobody_can_act():
    times = []
    walker = Walker("a", "12")
    clock = trio.testing.MockClock()
    gate = ActGate(acts_of("a: 1, a: 2"), {"a": walker.look}, clock=clock)

    async def act():
        for _ in range(2):
            await gate.turn("a")
            walker.done_count += 1
            times.append(gate.now() - start)
            await gate.sleep("elsewhere", 1.0)

    async def main():
        nonlocal start
        start = gate.now()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gate.run)
            async with trio.open_nursery() as actors:
                actors.start_soon(act)
            nursery.cancel_scope.cancel()

    start = 0.0
    trio.run(main, clock=clock)
    assert times == [0.0, 1.0]
