"""The lab and the naive model of its protocol agree act by act on random ways.

The model shares no code with the lab. Where the two part, one of them is wrong about docs/race.md.
"""

import random

import pytest
from race_agreement import case_of
from race_model import lost, successors
from race_model_state import USED, Case, State, first

from vdev.race.combination import Bound
from vdev.race.combinations import default_combinations
from vdev.race.world import World
from vdev.run.options import STRATEGIES

KINDS = ("free", "held", "held", "used")
WALK_BOUND = Bound(pages=2, writes=2, hints=2, syncs=3)
WALKS = 2


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
