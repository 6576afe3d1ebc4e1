"""The ring lab's own correctness: its memory is x86-TSO, its views are RAM, and what it leaves out changes nothing."""

import random

import numpy as np
import pytest
from race_rings_mutants import FENCE, put

from guest_agent.virtqueue import attach_driver_queue, make_driver_queue
from guest_agent.virtqueue.packed import PackedDriverQueue
from guest_agent.virtqueue.split import SplitDriverQueue
from vdev.memory import GuestMemory
from vdev.race.rings import RingScenario, search
from vdev.race.rings.actor import Actor, Execution
from vdev.race.rings.layout import AREA, Layout
from vdev.race.rings.machine import Machine
from vdev.race.rings.watched import WatchedMemory
from vdev.virtqueue import QueueAddresses, make_device_queue

DRIVERS = {"split": SplitDriverQueue, "packed": PackedDriverQueue}

# Litmus tests: two short programs over bytes 0, 1, ... of a memory of zeros, and what their loads can see.

X, Y = 0, 1


def both(first, second):
    """Return the set of what both programs return, in every interleaving, with and without store buffers."""
    return tuple(outcomes(first, second, model) for model in ("tso", "sc"))


def outcomes(first, second, model):
    def actor(name, program):
        def execute(log):
            execution = Execution(log, bytes)
            execution.run(lambda: (program(execution), 0))
            return execution

        return Actor(name, execute)

    machine = Machine(Layout(RingScenario()), bytes(8), (actor("first", first), actor("second", second)), model)
    return {
        tuple(machine.actors[side].points[state[side]].taken for side in (0, 1))
        for state in rests(machine, settle=True)
    }


def rests(machine, *, settle):
    """Return every state in which nobody can move."""
    settled = machine.settled if settle else lambda state: state
    states = [settled(machine.start)]
    seen = set(states)
    found = set()
    while states:
        state = states.pop()
        moves = machine.moves(state)
        if not moves:
            found.add(state)
        for _, after in moves:
            after = settled(after)
            if after not in seen:
                seen.add(after)
                states.append(after)
    rests.state_count = len(seen)
    return found


def store_then_load(stored, loaded, fence=False):
    def program(memory):
        memory.store(stored, 1, 1)
        if fence:
            memory.fence()
        return memory.load(loaded, 1)

    return program


def test_a_load_may_overtake_an_earlier_store_and_a_fence_prevents_it():
    tso, sc = both(store_then_load(X, Y), store_then_load(Y, X))
    assert sc == {(0, 1), (1, 0), (1, 1)}
    assert tso == sc | {(0, 0)}
    tso, sc = both(store_then_load(X, Y, fence=True), store_then_load(Y, X, fence=True))
    assert tso == sc == {(0, 1), (1, 0), (1, 1)}
    tso, _ = both(store_then_load(X, Y, fence=True), store_then_load(Y, X))
    assert (0, 0) in tso  # one fence is not enough


def test_stores_are_seen_in_order_and_loads_done_in_order():
    def writer(memory):
        memory.store(X, 1, 1)
        memory.store(Y, 1, 1)
        return 0

    def reader(memory):
        return 10 * memory.load(Y, 1) + memory.load(X, 1)

    tso, sc = both(writer, reader)
    assert tso == sc == {(0, 0), (0, 1), (0, 11)}


def test_loads_are_not_overtaken_by_later_stores():
    def program(loaded, stored):
        def run(memory):
            seen = memory.load(loaded, 1)
            memory.store(stored, 1, 1)
            return seen

        return run

    tso, sc = both(program(X, Y), program(Y, X))
    assert tso == sc == {(0, 0), (0, 1), (1, 0)}


def test_a_side_sees_its_own_stores_before_the_other_does():
    def program(mine, yours):
        def run(memory):
            memory.store(mine, 1, 1)
            return 10 * memory.load(mine, 1) + memory.load(yours, 1)

        return run

    tso, sc = both(program(X, Y), program(Y, X))
    assert (10, 10) in tso
    assert (10, 10) not in sc


def test_a_load_that_a_waiting_store_covers_in_part_is_made_of_both():
    def first(memory):
        memory.store(1, 1, 0xAA)
        return memory.load(0, 4)

    def second(memory):
        memory.store(2, 1, 0xBB)
        return 0

    tso, _ = both(first, second)
    assert tso == {(0xAA00, 0), (0xBBAA00, 0)}


def test_a_notification_is_not_seen_before_the_stores_ahead_of_it():
    def notifies(memory):
        memory.store(X, 1, 1)
        memory.notify()
        return 0

    def sleeps(memory):
        memory.sleep(0, 0)
        return memory.load(X, 1)

    tso, sc = both(notifies, sleeps)
    assert tso == sc == {(0, 1)}


# What is left out


@pytest.mark.parametrize("ring", ["split", "packed"])
@pytest.mark.parametrize("fault", [False, True])
def test_moves_that_nobody_can_tell_apart_may_be_left_out(ring, fault, monkeypatch, record_property):
    if fault:
        put(monkeypatch, DRIVERS[ring], "should_kick", (FENCE, "pass"))
    for way in ({}, {"driver": "armed", "device": "until-empty"}):
        machine = Machine.of(RingScenario(ring, event_idx=False, **way))
        some = rests(machine, settle=True)
        with_settling = rests.state_count
        assert some == rests(machine, settle=False)
        record_property("states", (with_settling, rests.state_count))
        assert with_settling < rests.state_count


@pytest.mark.parametrize("ring", ["split", "packed"])
@pytest.mark.parametrize("fault", [False, True])
@pytest.mark.parametrize("event_idx", [False, True])
def test_points_that_are_marked_as_equal_are(ring, fault, event_idx, monkeypatch):
    # Without marks a point is all that was read before it, and nothing else.
    if fault:
        put(monkeypatch, DRIVERS[ring], "should_kick", (FENCE, "pass"))
    scenarios = [
        RingScenario(ring, event_idx, segments=segments, buffers=buffers, **way)
        for way in ({}, {"driver": "armed", "device": "until-empty"})
        for segments, buffers in ((1, 2), (2, 2))
    ]
    merged = [search(scenario) for scenario in scenarios]
    assert any(verdict.is_broken for verdict in merged) is fault
    monkeypatch.setattr(Execution, "mark", lambda *_: None)
    for scenario, verdict in zip(scenarios, merged, strict=True):
        alone = search(scenario)
        assert (alone.finding and alone.finding.property) == (verdict.finding and verdict.finding.property)
        assert alone.state_count >= verdict.state_count
        if verdict.finding:
            assert len(alone.finding.steps) == len(verdict.finding.steps)


# The views are RAM


class Straight:
    """Accesses that are done at once, on one copy of the shared bytes."""

    def __init__(self, image):
        self.image = bytearray(image)
        self.load_sizes = set()

    def load(self, offset, size):
        self.load_sizes.add(size)
        return int.from_bytes(self.image[offset : offset + size], "little")

    def store(self, offset, size, value):
        self.image[offset : offset + size] = value.to_bytes(size, "little")

    def fence(self):
        pass


@pytest.mark.parametrize("small_batch", [None, 1])
@pytest.mark.parametrize("indirect", [False, True])
@pytest.mark.parametrize("event_idx", [False, True])
@pytest.mark.parametrize("ring", ["split", "packed"])
def test_watched_memory_does_to_the_rings_what_ram_does(ring, event_idx, indirect, small_batch):
    scenario = RingScenario(ring, event_idx, size=8, segments=2, indirect=indirect)
    layout = Layout(scenario)
    plain = GuestMemory.private(layout.ram_size)
    make_driver_queue(plain, 0, 8, AREA, scenario.features, indirect_capacity=layout.indirect_capacity)
    straight = Straight(layout.image(plain.read(0, layout.ram_size)))
    watched = [WatchedMemory(layout), WatchedMemory(layout)]
    for memory in watched:
        memory.own_bytes[:] = plain.bytes_view(0, layout.ram_size)
        memory.accesses = straight
    logs = [run_both_sides(memories, scenario, small_batch) for memories in ((plain, plain), watched)]
    assert logs[0] == logs[1]
    assert layout.image(plain.read(0, layout.ram_size)) == straight.image
    assert max(straight.load_sizes) <= 8


def run_both_sides(memories, scenario, small_batch):
    """Do the same 200 calls by chance; returns what they returned."""
    chance = random.Random(5)
    driver = attach_driver_queue(memories[0], 0, AREA)
    device = make_device_queue(memories[1], 0, QueueAddresses(*driver.addresses), scenario.features)
    driver.small_batch = device.small_batch = small_batch
    log, held = [], []
    for token in range(200):
        match chance.randrange(7):
            case 0 if driver.free_count >= 2:
                log.append(driver.add([(64, 8)], [(128, token)], token, indirect=scenario.indirect))
            case 1 if driver.free_count:
                addresses, tokens = np.array([256, 320], np.uint64), np.array([token, token + 1000], np.uint64)
                log.append(driver.add_batch(addresses, addresses, writable=True, tokens=tokens))
            case 2:
                driver.publish()
                log.append((driver.should_kick(), driver.has_used(), device.has_available()))
            case 3:
                batch = device.pop_batch()
                held += batch.heads.tolist()
                log.append((held.copy(), batch.addresses.tolist(), batch.sizes.tolist(), batch.writable.tolist()))
            case 4:
                chain = device.pop()
                held += [] if chain is None else [chain.head]
                log.append(chain)
            case 5 if held:
                chance.shuffle(held)
                device.push(held.pop(), 0)
                device.push_batch(np.array(held, np.int64), np.zeros(len(held), np.int64))
                held.clear()
                log.append(device.should_call())
            case 6:
                log.append((driver.collect(), *(each.tolist() for each in driver.collect_batch())))
                log.append((driver.enable_calls(), device.enable_kicks()))
    return log
