import itertools

import pytest
from race_toy import Toy

from vdev.race.explorer import Explorer, Limits

ADD_X = (("load", "x"), ("store", "x"))
ADD_Y = (("load", "y"), ("store", "y"))
PROGRAMS = [
    (ADD_X, ADD_X),
    (ADD_X, ADD_Y, ADD_Y),
    (ADD_X + ADD_Y, ADD_Y + ADD_X, (("load", "x"),)),
    (ADD_X, ADD_X, ADD_X, ADD_Y),
    (ADD_X + ADD_X, (("load", "y"), ("store", "z")), ADD_Y),
]


def explored(programs, *, reduction=True, **options):
    limits = options.pop("limits", None)
    return Explorer(Toy(programs, **options), reduction=reduction, limits=limits).run()


def test_the_first_loss_found_is_a_shortest_schedule():
    found = explored((ADD_X, ADD_X), wanted={"x": 2})
    assert found.loss is not None
    assert len(found.loss) == 4
    assert [act.name for act in found.loss] == ["load", "load", "store", "store"]


def test_no_loss_in_a_complete_search_means_that_there_is_none():
    found = explored((ADD_X, ADD_Y), wanted={"x": 1, "y": 1})
    assert found.loss is None
    assert found.complete


def test_an_invariant_broken_on_the_way_is_reported_with_a_shortest_schedule_and_the_search_goes_on():
    found = explored((ADD_X, ADD_X, ADD_Y), never_loaded=1)
    assert {name: len(acts) for name, acts in found.broken.items()} == {"no-load-of": 3}
    assert found.complete
    assert found.loss is None


@pytest.mark.parametrize("programs", PROGRAMS)
def test_with_and_without_reduction_the_same_states_and_ends_are_seen(programs):
    whole, reduced = explored(programs, reduction=False), explored(programs)
    assert whole.final_keys == reduced.final_keys
    assert whole.state_count == reduced.state_count
    assert reduced.transition_count < whole.transition_count or not reduced.skipped_count
    assert reduced.transition_count + reduced.skipped_count == whole.transition_count
    assert whole.skipped_count == 0


@pytest.mark.parametrize(("programs", "never_loaded"), list(itertools.product(PROGRAMS, (1, 2))))
def test_with_and_without_reduction_what_is_broken_is_broken_in_as_few_acts(programs, never_loaded):
    def lengths(reduction):
        found = explored(programs, reduction=reduction, never_loaded=never_loaded)
        return {name: len(acts) for name, acts in found.broken.items()}

    assert lengths(reduction=False) == lengths(reduction=True)


def test_reduction_leaves_out_most_orders_of_actors_that_share_nothing():
    programs = tuple((("store", name),) * 3 for name in "abcd")
    whole, reduced = explored(programs, reduction=False), explored(programs)
    assert reduced.state_count == whole.state_count == 4**4
    assert reduced.transition_count == 4**4 - 1


def test_a_limit_of_states_makes_the_search_incomplete():
    found = explored(PROGRAMS[3], limits=Limits(max_states=10))
    assert not found.complete
    assert 10 <= found.state_count < 20


def test_a_limit_that_the_search_does_not_reach_changes_nothing():
    assert explored(PROGRAMS[0], limits=Limits(max_states=10_000, max_seconds=3600)).complete


def test_a_limit_of_seconds_ends_the_search():
    ticks = itertools.count()
    found = Explorer(Toy(PROGRAMS[3]), limits=Limits(max_seconds=5), clock=lambda: float(next(ticks))).run()
    assert not found.complete
    assert found.seconds > 5


def test_progress_is_told_every_thousand_states():
    told = []
    programs = tuple((("store", name),) * 5 for name in "abcde")
    Explorer(Toy(programs), on_progress=lambda *numbers: told.append(numbers)).run()
    assert [states for states, _, _ in told] == list(range(1000, 7001, 1000))
    assert all(depth > 0 for _, _, depth in told)
