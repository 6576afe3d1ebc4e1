"""What the lab finds happens to the real tasks, too: the same acts, the same states, the same page lost."""

import random

import pytest
from race_losses import PATH, find_losses, read_losses

from vdev.errors import UserError, VdevError
from vdev.race.acts import parse_act
from vdev.race.combination import Bound, Combination
from vdev.race.combinations import default_combinations
from vdev.race.finding import replay
from vdev.race.replay_gate import ScheduleMisfit
from vdev.race.replay_loop import replay_in_one_loop
from vdev.race.world import World

LOSSES = read_losses()


def seen(moment):
    """What both worlds show: M and D, the versions, the id and the device's state, the merges so far."""
    return moment.act, moment.pages, moment.shown_id, moment.hint_state, moment.sync_count


def replay_in_both(combination, bound, acts):
    moments = []
    outcome = replay_in_one_loop(combination, bound, acts, moments.append)
    finding = replay(combination, bound, acts)
    assert [seen(moment) for moment in moments] == [seen(moment) for moment in finding.moments]
    assert outcome.made == finding.acts
    return outcome, finding


@pytest.mark.parametrize("label", LOSSES)
def test_a_loss_of_the_lab_happens_to_the_real_tasks_act_by_act(label):
    combination, acts = LOSSES[label]
    outcome, finding = replay_in_both(combination, Bound(), acts)
    assert outcome.lost == finding.lost != ()
    assert outcome.status == 7
    assert outcome.verdict["mismatched"] == len(finding.lost)


def test_the_file_of_losses_is_what_the_naive_model_finds():
    some = default_combinations()[::20]
    labels = {combination.label for combination in some}
    lines = PATH.read_text().splitlines(keepends=True)
    assert find_losses(some) == [line for line in lines if line.partition(" | ")[0] in labels]


def random_schedule(combination, bound, seed):
    world, chooser = World(combination, bound), random.Random(seed)
    acts = []
    while not world.is_over:
        act = chooser.choice(world.enabled())
        world.do(act)
        acts.append(act)
    return acts


SAFE = [
    Combination("none"),
    Combination("block-bulk"),
    Combination("flush-after-sync", holds="until-used"),
    Combination("ignore-late"),
    Combination("command-id"),
    Combination("command-id", holds="until-used", dirty_log="deferred-clear"),
    Combination("command-id", answer="bitmap"),
    Combination("command-id", vcpus="1"),
    Combination("drain-in-exit-sync-first", vcpus="1", holds="until-used"),
]


@pytest.mark.parametrize("combination", SAFE, ids=lambda combination: combination.label)
def test_what_loses_nothing_in_the_lab_loses_nothing_among_the_real_tasks(combination):
    bound = Bound(pages=2, writes=3, hints=3)
    for seed in range(5):
        outcome, finding = replay_in_both(combination, bound, random_schedule(combination, bound, seed))
        assert outcome.lost == finding.lost == ()
        assert outcome.verdict["pages"] == sum(page.use == "used" for page in finding.moments[-1].pages)


@pytest.mark.parametrize(
    "strategy", ["filter-on-ready", "interval", "resubmit", "host-timer", "drain-in-exit-filter-first"]
)
def test_random_schedules_end_among_the_real_tasks_as_they_end_in_the_lab(strategy):
    bound = Bound(pages=2, writes=3, hints=3)
    for seed in range(10):
        combination = Combination(strategy, holds=("nothing", "until-queued")[seed % 2])
        outcome, finding = replay_in_both(combination, bound, random_schedule(combination, bound, seed))
        assert outcome.lost == finding.lost


def acts_of(*texts):
    return [parse_act(text) for text in texts]


def test_an_act_that_the_migrator_is_not_at_is_named():
    acts = acts_of("migrator: start", "migrator: sync")
    with pytest.raises(
        ScheduleMisfit, match=r"act 2 of 2, 'migrator: sync': nobody is at it, but at 'migrator: take 0'"
    ):
        replay_in_one_loop(Combination("none"), Bound(), acts)


def test_an_act_that_nobody_comes_to_is_named():
    acts = acts_of("migrator: start", "handler: handle")
    with pytest.raises(
        ScheduleMisfit, match=r"act 2 of 2, 'handler: handle': nobody is at it, but at 'migrator: take 0'"
    ):
        replay_in_one_loop(Combination("none"), Bound(), acts)


@pytest.mark.parametrize("actor", ["vcpu 0", "vcpu 1"])
def test_an_act_that_the_guest_cannot_do_is_named_with_what_it_could_do(actor):
    with pytest.raises(VdevError, match=r"the guest cannot free 0 now; it can write 0"):
        replay_in_one_loop(Combination("none"), Bound(), acts_of("migrator: start", f"{actor}: free 0"))


def test_a_migration_that_is_called_off_is_left_to_the_lab():
    with pytest.raises(UserError, match="called off"):
        replay_in_one_loop(Combination("none"), Bound(cancels=1), acts_of("migrator: start", "migrator: cancel"))


def test_acts_that_end_before_the_migration_does_leave_the_rest_to_the_tasks():
    outcome = replay_in_one_loop(Combination("command-id"), Bound(), acts_of("migrator: start", "vcpu 1: write 0"))
    assert outcome.lost == ()
    assert outcome.verdict["pages"] == 1
