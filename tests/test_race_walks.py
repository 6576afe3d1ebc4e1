from dataclasses import replace

import pytest
from race_toy import Toy

from vdev.race.combination import Bound, Combination
from vdev.race.explore import explore
from vdev.race.finding import replay
from vdev.race.shrink import shrink
from vdev.race.verdict import Act
from vdev.race.walker import PriorityChooser, RandomChooser, walk
from vdev.race.walks import pct, random_walks
from vdev.race.world import World

ADD_X = (("load", "x"), ("store", "x"))
BROKEN = Combination("filter-on-ready")
DISCARDING = Combination("command-id", effect="discard")
LARGE = Bound(pages=4, writes=6, hints=6, syncs=5)


def without_time(verdict):
    return replace(verdict, seconds=0.0)


@pytest.mark.parametrize("seed", [0, 7])
def test_a_seed_gives_the_same_verdict_each_time(seed):
    for look in (random_walks, lambda *what, **how: pct(*what, depth=3, **how)):
        verdicts = [without_time(look(BROKEN, LARGE, count=15, seed=seed)) for _ in range(2)]
        assert verdicts[0] == verdicts[1]
        assert verdicts[0].seed == seed


def test_priorities_find_a_loss_that_is_made_short():
    verdict = pct(DISCARDING, Bound(), depth=4, count=400, seed=1)
    assert verdict.is_broken
    assert verdict.mode == "pct"
    assert not verdict.complete
    assert 0 < verdict.schedule_count < 400
    assert len(verdict.loss.acts) <= 14
    assert replay(DISCARDING, verdict.loss.bound, verdict.loss.acts) == verdict.loss


@pytest.mark.parametrize("seed", [0, 4])
def test_random_runs_find_a_loss_that_replays(seed):
    verdict = random_walks(Combination("interval", dirty_log="deferred-clear"), Bound(), count=400, seed=seed)
    assert verdict.is_broken
    assert not verdict.complete
    again = replay(verdict.loss.combination, verdict.loss.bound, verdict.loss.acts)
    assert again.lost == verdict.loss.lost != ()


def test_a_safe_combination_is_not_accused():
    verdict = random_walks(Combination("command-id"), LARGE, count=30, seed=3)
    assert not verdict.is_broken
    assert verdict.schedule_count == 30
    assert verdict.transition_count > 30 * 20


def test_a_schedule_is_shrunk_to_the_acts_and_the_bound_that_it_takes():
    shortest = explore(BROKEN, Bound()).loss.acts
    sync = next(number for number, act in enumerate(shortest) if act.name == "sync")
    more = [Act("vcpu 1", "write", 1), Act("vcpu 1", "write", 1), *shortest[:sync]]
    more += [Act("migrator", "take", 1), Act("migrator", "send", 1), *shortest[sync:]]
    smaller, acts = shrink(lambda smaller: World(BROKEN, smaller), Bound(pages=3, writes=4, hints=4, syncs=3), more)
    assert smaller == Bound(pages=1, writes=1, hints=1, syncs=3)
    assert len(acts) == len(shortest)
    assert replay(BROKEN, smaller, acts).lost == (0,)


def test_without_a_change_of_priority_an_actor_goes_on_to_its_end():
    toy = Toy((ADD_X, ADD_X), wanted={"x": 2})
    assert walk(toy, PriorityChooser(0, depth=1), 200).loss is None


def test_one_change_of_priority_lets_another_actor_come_between():
    toy = Toy((ADD_X, ADD_X), wanted={"x": 2})
    walked = walk(toy, PriorityChooser(0, depth=2), 200)
    assert [act.name for act in walked.loss] == ["load", "load", "store", "store"]


def test_a_depth_below_one_is_refused():
    with pytest.raises(ValueError, match="depth of 0"):
        PriorityChooser(0, depth=0)


def test_what_is_broken_on_the_way_is_reported_with_the_shortest_schedule_seen():
    walked = walk(Toy((ADD_X, ADD_X), never_loaded=1), RandomChooser(2), 50)
    assert {name: len(acts) for name, acts in walked.broken.items()} == {"no-load-of": 3}


def test_progress_is_told_every_hundred_schedules():
    told = []
    walk(Toy((ADD_X, ADD_X)), RandomChooser(2), 250, on_progress=lambda *numbers: told.append(numbers))
    assert told == [(100, 400, 4), (200, 800, 4)]
