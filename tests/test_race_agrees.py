"""The lab and the naive model of its protocol agree: act by act, on the verdict, on the length of the shortest loss.

The model shares no code with the lab. Where the two part, one of them is wrong about docs/race.md.
"""

import random

import pytest
import race_model
from race_model import lost, search, successors
from race_model_state import USED, Case, State, first

from vdev.race.acts import parse_act
from vdev.race.combination import DIMENSIONS, Bound, Combination
from vdev.race.combinations import default_combinations
from vdev.race.explore import explore
from vdev.race.finding import replay
from vdev.race.world import World
from vdev.run.options import STRATEGIES

KINDS = ("free", "held", "held", "used")
WALK_BOUND = Bound(pages=2, writes=2, hints=2, syncs=3)
WALKS = 2


def case_of(combination: Combination, bound: Bound) -> Case:
    """Return the model's words for a combination."""
    return Case(
        combination.strategy,
        answer=combination.answer,
        holds=combination.holds,
        log=combination.dirty_log,
        collects=combination.collects,
        start_buffer=combination.start_buffer,
        vcpus=int(combination.vcpus),
        effect=combination.effect,
        advance=combination.advance,
        pages=bound.pages,
        writes=bound.writes,
        hints=bound.hints,
        syncs=bound.syncs,
    )


def seen_in_model(state: State) -> list[tuple]:
    """Return for each page: in M, in D, who has it; whether what the guest relies on is right at both ends."""
    pages = zip(state.kinds, state.written, state.source, state.destination, strict=True)
    return [
        (
            bool(state.left >> page & 1),
            bool(state.dirty >> page & 1) and state.phase > 0,
            KINDS[kind],
            kind == USED and source == written,
            kind == USED and destination == written,
        )
        for page, (kind, written, source, destination) in enumerate(pages)
    ]


def seen_in_lab(world: World) -> list[tuple]:
    guest, has_begun = world.guest, str(world.migration.stage) != "new"
    return [
        (
            page in world.migration.to_send,
            bool(world.marks.marks[page]) and has_begun,
            guest.use(page),
            guest.use(page) == "used" and guest.version(page) == guest.wanted[page],
            guest.use(page) == "used" and world.now.destination[page] == guest.wanted[page],
        )
        for page in range(world.bound.pages)
    ]


def walk_together(world: World, case: Case, choose: random.Random) -> None:
    """Let both do the same acts to the end; the choices that there are, and all that is seen, must be the same."""
    state, made = first(case), []
    while True:
        choices = dict(successors(case, state))
        acts = {str(act): act for act in world.enabled()}
        assert sorted(acts) == sorted(choices), made
        if not acts:
            assert bool(world.lost) == lost(state), made
            return
        made.append(choose.choice(sorted(choices)))
        world.do(acts[made[-1]])
        state = choices[made[-1]]
        assert seen_in_lab(world) == seen_in_model(state), made


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_lab_and_model_offer_the_same_acts_and_show_the_same_pages_on_random_ways(strategy):
    choose = random.Random(strategy)
    for combination in default_combinations():
        if combination.strategy == strategy:
            world = World(combination, WALK_BOUND)
            beginning = world.capture()
            for _ in range(WALKS):
                world.put_back(beginning)
                walk_together(world, case_of(combination, WALK_BOUND), choose)


def agree(combination: Combination, bound: Bound) -> None:
    """Both must find a loss of the same length, which is one for the other, too; or neither finds any."""
    case = case_of(combination, bound)
    verdict, expected = explore(combination, bound), search(case)
    assert verdict.complete
    if expected.loss is None:
        assert verdict.loss is None, [str(act) for act in verdict.loss.acts]
        return
    assert verdict.loss is not None, expected.loss
    assert len(verdict.loss.acts) == len(expected.loss)
    assert replay(combination, bound, [parse_act(act) for act in expected.loss]).lost
    state = first(case)
    for act in verdict.loss.acts:
        state = dict(successors(case, state))[str(act)]
    assert lost(state)


def is_near_the_usual(combination: Combination) -> bool:
    """Whether at most one of its dimensions is unusual: what is farther off, the random ways cover."""
    return sum(value != DIMENSIONS[name][0] for name, value in combination.dimensions().items()) <= 1


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_lab_and_model_agree_on_the_combinations_of_the_sweep(strategy):
    for combination in filter(is_near_the_usual, default_combinations()):
        if combination.strategy == strategy:
            agree(combination, Bound(pages=1, writes=1, hints=1, syncs=2))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_lab_and_model_agree_when_a_sync_falls_between_two_passes(strategy):
    agree(Combination(strategy), Bound(pages=1, writes=1, hints=1, syncs=3))


@pytest.mark.parametrize("dimension", [{"start_buffer": "shared"}, {"advance": "before-sync"}], ids=str)
def test_lab_and_model_agree_on_the_ids_of_command_id(dimension):
    agree(Combination("command-id", vcpus="1", **dimension), Bound(pages=1, writes=1, hints=1, syncs=3))


def test_a_model_that_reads_the_page_otherwise_does_not_agree(monkeypatch):
    monkeypatch.setattr(race_model, "clear_log", lambda state: state)
    with pytest.raises(AssertionError):
        agree(Combination("ignore-late", dirty_log="deferred-clear"), Bound(pages=1, writes=1, hints=1, syncs=2))
