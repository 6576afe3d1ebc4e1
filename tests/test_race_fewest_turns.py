"""A finding is shown in the order of fewest turns: the same acts, the same end."""

from itertools import groupby, permutations

import pytest

from vdev.errors import UserError
from vdev.race.combination import Bound, Combination
from vdev.race.explore import explore
from vdev.race.fewest_turns import count_turns, with_fewest_turns
from vdev.race.finding import replay
from vdev.race.schedule_file import parse_schedule

ALTERNATING = b"""vdev schedule 1
strategy: filter-on-ready
lost: 0

migrator: start
vcpu 0: look
migrator: take 0
vcpu 0: announce
vcpu 0: collect
migrator: send 0
vcpu 0: queue
handler: pop
vcpu 1: write 0
migrator: sync
handler: filter
migrator: stop
migrator: complete
"""
SMALL = Bound(writes=1, hints=1)


def found(text=ALTERNATING, broken=None):
    schedule = parse_schedule(text, "it")
    return replay(schedule.combination, schedule.bound, schedule.acts, broken=broken)


def names(finding):
    runs = groupby(finding.acts, key=lambda act: act.actor)
    return [(actor, " ".join(act.name for act in acts)) for actor, acts in runs]


def test_actors_alternate_no_more_than_they_need():
    before = found()
    after = with_fewest_turns(before)
    assert names(after) == [
        ("migrator", "start take send"),
        ("vcpu 0", "look announce collect queue"),
        ("handler", "pop"),
        ("vcpu 1", "write"),
        ("migrator", "sync"),
        ("handler", "filter"),
        ("migrator", "stop complete"),
    ]
    assert sorted(after.acts) == sorted(before.acts)
    assert (after.lost, after.moments[-1].pages) == (before.lost, before.moments[-1].pages)
    assert with_fewest_turns(after) is after


def orders(acts):
    """Every order that keeps each actor's own."""
    for actors in set(permutations([act.actor for act in acts])):
        own = {actor: iter([act for act in acts if act.actor == actor]) for actor in set(actors)}
        yield tuple(next(own[actor]) for actor in actors)


def test_no_possible_order_that_breaks_the_same_has_fewer_turns():
    text = ALTERNATING[: ALTERNATING.index(b"vcpu 1")].replace(b"lost: 0\n", b"")
    before = found(
        text.replace(b"vcpu 0: collect\nmigrator: send 0\nvcpu 0: queue\nhandler: pop\n", b"migrator: send 0\n")
    )
    after = with_fewest_turns(before)
    fewest = count_turns(before.acts)
    for order in orders(before.acts):
        try:
            other = replay(before.combination, before.bound, order)
        except UserError:
            continue
        if other.acts[-1] == before.acts[-1] and other.moments[-1].pages == before.moments[-1].pages:
            fewest = min(fewest, count_turns(order))
    assert count_turns(after.acts) == fewest < count_turns(before.acts)


def test_the_act_that_breaks_an_invariant_stays_the_last():
    text = ALTERNATING[: ALTERNATING.index(b"migrator: stop")].replace(b"lost: 0\n", b"")
    after = with_fewest_turns(found(text, broken="2 no-write-erased"))
    assert str(after.acts[-1]) == "handler: filter"
    assert "2 no-write-erased" in after.moments[-1].broken
    assert after.broken == "2 no-write-erased"
    assert count_turns(after.acts) == 6


@pytest.mark.parametrize("strategy", ["filter-on-ready", "resubmit", "interval"])
def test_what_a_search_finds_has_few_turns_already(strategy):
    verdict = explore(Combination(strategy, holds="nothing"), SMALL)
    for finding in filter(None, (verdict.loss, *verdict.broken_invariants.values())):
        assert with_fewest_turns(finding) is finding
        assert replay(finding.combination, finding.bound, finding.acts, broken=finding.broken) == finding


def test_where_nothing_can_change_places_the_finding_stays():
    short = found(ALTERNATING[: ALTERNATING.index(b"migrator: take")].replace(b"lost: 0\n", b""))
    assert with_fewest_turns(short) is short
