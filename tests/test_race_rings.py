"""Driver against device on one ring, in every interleaving: the rings as they are lose nothing."""

from itertools import product

import pytest

from vdev.errors import UserError
from vdev.race.rings import RingScenario, sample, search

SHAPES = [
    {},
    {"batches": True},
    {"segments": 2},
    {"segments": 2, "indirect": True},
    {"in_order": True},
    {"in_order": True, "batches": True},
]
ARMED = {"driver": "armed", "device": "until-empty"}
WAYS = [
    {"driver": driver, "device": device, "publishing": publishing}
    for driver, device, publishing in product(("sleeping", "armed"), ("notify", "until-empty"), ("each", "together"))
]


def finds_nothing(scenario, record_property, model="tso"):
    verdict = search(scenario, model=model)
    record_property("bound", verdict.bound)
    record_property("states", verdict.state_count)
    assert verdict.finding is None, "\n".join(verdict.finding.lettered())
    assert verdict.complete
    return verdict


@pytest.mark.parametrize("event_idx", [True, False])
@pytest.mark.parametrize("ring", ["split", "packed"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("buffers", [1, 2])
def test_nothing_is_lost_torn_or_taken_twice_in_a_ring_of_two(ring, event_idx, shape, buffers, record_property):
    for way in WAYS:
        scenario = RingScenario(format=ring, event_idx=event_idx, buffers=buffers, **shape, **way)
        finds_nothing(scenario, record_property)


@pytest.mark.parametrize("event_idx", [True, False])
@pytest.mark.parametrize("ring", ["split", "packed"])
@pytest.mark.parametrize("shape", [*SHAPES, ARMED, {"batches": True, **ARMED}], ids=str)
def test_nothing_is_lost_when_a_third_buffer_goes_round(ring, event_idx, shape, record_property):
    size = 4 if "segments" in shape else 2
    verdict = finds_nothing(RingScenario(ring, event_idx, size=size, buffers=3, **shape), record_property)
    assert verdict.state_count > 1000


@pytest.mark.parametrize("event_idx", [True, False])
@pytest.mark.parametrize("ring", ["split", "packed"])
def test_nothing_is_lost_where_indices_and_laps_wrap(ring, event_idx, record_property):
    for way in ({}, ARMED):
        # A split ring's indices are 16 bits, a packed ring's second lap begins at its size.
        before_wrap = {"packed": 1, "split": 0xFFFF}[ring]
        finds_nothing(RingScenario(ring, event_idx, start=before_wrap, **way), record_property)


@pytest.mark.parametrize("size", [1, 3])
def test_nothing_is_lost_in_packed_rings_of_any_size(size, record_property):
    for event_idx in (True, False):
        finds_nothing(RingScenario("packed", event_idx, size=size, buffers=3), record_property)


@pytest.mark.parametrize("mode", ["random", "pct"])
@pytest.mark.parametrize("ring", ["split", "packed"])
def test_nothing_is_lost_in_some_schedules_of_many_buffers(ring, mode, record_property):
    scenario = RingScenario(ring, size=8, buffers=24)
    verdict = sample(scenario, mode=mode, runs=10, seed=7)
    record_property("bound", verdict.bound)
    assert verdict.finding is None
    assert verdict.schedule_count == 10
    assert not verdict.complete
    assert "10 " + mode in verdict.bound


def test_what_was_looked_at_is_always_said():
    verdict = search(RingScenario())
    assert verdict.bound == (
        "2 buffers of 1 segment through a split ring of 2, EVENT_IDX, published one by one, sleeping driver, "
        "notify device; x86-TSO, store buffers of any length; every interleaving"
    )
    few = search(RingScenario(), limit=100)
    assert not few.complete
    assert few.bound.endswith(f"only the first {few.state_count} states")
    assert "sequentially consistent" in search(RingScenario(buffers=1), model="sc").bound


def test_a_search_is_the_same_twice():
    assert search(RingScenario(buffers=3)).to_json() == search(RingScenario(buffers=3)).to_json()
    pair = [sample(RingScenario(buffers=3), mode=mode, runs=50, seed=3).to_json() for mode in ("pct", "random") * 2]
    assert pair[:2] == pair[2:]


def test_a_search_can_be_watched_and_ended():
    counts = []
    search(RingScenario(size=2, buffers=3), progress=counts.append)
    assert counts
    assert counts == sorted(counts)
    with pytest.raises(KeyboardInterrupt):
        search(RingScenario(size=2, buffers=3), progress=interrupt)
    with pytest.raises(KeyboardInterrupt):
        sample(RingScenario(), runs=200, progress=interrupt)


def interrupt(_count):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": "round"}, "format cannot be 'round'; choose one of split, packed"),
        ({"driver": "lazy"}, "driver cannot be 'lazy'; choose one of sleeping, armed"),
        ({"size": 0}, "a ring race with size 0; give 1 to 64"),
        ({"size": 3}, "a split ring of 3 descriptors; its size is a power of two"),
        ({"buffers": 65}, "a ring race with buffers 65; give 1 to 64"),
        ({"size": 1, "segments": 2}, "buffers of 2 segments in a ring of 1"),
        ({"batches": True, "segments": 2}, "batches are of buffers of one segment"),
    ],
)
def test_a_scenario_that_cannot_be_is_refused_with_one_line(values, message):
    with pytest.raises(UserError, match=message):
        RingScenario(**values)
    with pytest.raises(UserError, match="mode cannot be 'lucky'"):
        sample(RingScenario(), mode="lucky")
