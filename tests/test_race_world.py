import itertools
import random

import pytest

from vdev.errors import UserError
from vdev.race.combination import Bound, Combination
from vdev.race.explore import explore
from vdev.race.explorer import Explorer
from vdev.race.finding import replay
from vdev.race.verdict import Act
from vdev.race.world import World

SMALL = Bound(pages=1, writes=1, hints=1, syncs=2)
COMBINATIONS = [
    Combination("none"),
    Combination("block-bulk"),
    Combination("filter-on-ready", answer="bitmap", holds="nothing"),
    Combination("filter-on-ready", dirty_log="deferred-clear"),
    Combination("drain-in-exit-sync-first", vcpus="1"),
    Combination("drain-in-exit-filter-first", holds="nothing"),
    Combination("flush-after-sync", holds="until-used"),
    Combination("ignore-late", effect="discard"),
    Combination("ignore-late-unlocked"),
    Combination("interval", holds="until-used"),
    Combination("resubmit", holds="nothing"),
    Combination("host-timer"),
    Combination("command-id", start_buffer="shared"),
    Combination("command-id", collects="before-announcing", vcpus="1"),
    Combination("command-id", answer="bitmap", holds="until-used"),
    Combination("command-id", advance="before-sync"),
]
EVERY = pytest.mark.parametrize("combination", COMBINATIONS, ids=lambda combination: combination.label)


def walk(world, seed):
    """Random acts to the end; yields each with the copy from before it."""
    chooser = random.Random(seed)
    while acts := world.enabled():
        act = chooser.choice(acts)
        yield act, world.capture()
        world.do(act)


# -- copies


@EVERY
def test_a_state_that_was_put_back_has_the_same_future(combination):
    world = World(combination, Bound(pages=2))
    root = world.capture()
    for seed in range(2):
        world.put_back(root)
        steps, keys = [], []
        for act, copy in walk(world, seed):
            steps.append((act, copy))
            keys.append(world.exact_key())
        keys.append(world.exact_key())
        for start in random.Random(seed).sample(range(len(steps)), min(3, len(steps))):
            world.put_back(steps[start][1])
            again = [world.exact_key()]
            for act, _ in steps[start:]:
                world.do(act)
                again.append(world.exact_key())
            assert again == keys[start:]


@EVERY
@pytest.mark.parametrize("packed", [False, True], ids=["split", "packed"])
def test_a_new_world_comes_to_the_same_keys_by_the_same_acts(combination, packed):
    used = World(combination, Bound(pages=2, cancels=1), packed=packed)
    root = used.capture()
    for seed in range(3):
        used.put_back(root)
        new = World(combination, Bound(pages=2, cancels=1), packed=packed)
        for act, _ in walk(used, seed):
            assert new.key() == used.key()
            assert act in new.enabled()
            new.do(act)
            assert new.moment(act).pages == new.moment(act).pages
        assert new.key() == used.key()
        assert new.memory.read(0, new.memory.regions[0].size) == used.memory.read(0, new.memory.regions[0].size)


def test_all_that_changes_in_guest_ram_is_copied():
    for combination in COMBINATIONS:
        world = World(combination, Bound(pages=2))
        root, before = world.capture(), [bytes(region.backing.data) for region in world.memory.regions]
        for seed in range(5):
            for _ in walk(world, seed):
                pass
            world.put_back(root)
            assert [bytes(region.backing.data) for region in world.memory.regions] == before


# -- reduction, and what the key leaves out


@EVERY
def test_acts_that_are_called_independent_can_change_places(combination):
    world = World(combination, Bound(pages=2, cancels=1))
    root, pair_count = world.capture(), 0
    for seed in range(4):
        world.put_back(root)
        for _, copy in walk(world, seed):
            for pair in itertools.combinations(world.enabled(), 2):
                world.put_back(copy)
                if world.independent(*pair):
                    pair_count += 1
                    assert after(world, copy, *pair) == after(world, copy, *reversed(pair)), pair
            world.put_back(copy)
    assert pair_count > 10 or combination.strategy == "none"


def after(world, copy, first, second):
    world.put_back(copy)
    world.do(first)
    broken = {first: world.broken}
    if second not in world.enabled():
        return f"{first} stops {second}"
    world.do(second)
    broken[second] = world.broken
    return world.key(), broken


@EVERY
def test_with_and_without_reduction_the_lab_judges_the_same(combination):
    whole = Explorer(World(combination, SMALL), reduction=False).run()
    reduced = Explorer(World(combination, SMALL)).run()
    assert (whole.loss is None) == (reduced.loss is None)
    if whole.loss is not None:
        assert len(whole.loss) == len(reduced.loss)
        return
    assert whole.final_keys == reduced.final_keys
    assert whole.state_count == reduced.state_count
    assert reduced.transition_count + reduced.skipped_count == whole.transition_count
    assert lengths(whole.broken) == lengths(reduced.broken)


class ExactWorld(World):
    """Tells states apart that differ in anything at all."""

    def key(self):
        return self.exact_key()


@pytest.mark.parametrize("combination", COMBINATIONS[2::6], ids=lambda combination: combination.label)
def test_what_the_key_leaves_out_changes_no_verdict(combination):
    exact = Explorer(ExactWorld(combination, SMALL), reduction=False).run()
    short = Explorer(World(combination, SMALL), reduction=False).run()
    assert short.state_count <= exact.state_count
    assert (exact.loss is None) == (short.loss is None)
    if exact.loss is None:
        assert lengths(exact.broken) == lengths(short.broken)
    else:
        assert len(exact.loss) == len(short.loss)


def lengths(broken):
    return {name: len(acts) for name, acts in broken.items()}


def test_both_ring_formats_are_judged_the_same():
    for combination in COMBINATIONS[1::7]:
        split, packed = (Explorer(World(combination, SMALL, packed=packed)).run() for packed in (False, True))
        assert (split.loss is None) == (packed.loss is None)
        assert lengths(split.broken) == lengths(packed.broken)


# -- verdicts


@pytest.mark.parametrize(
    ("combination", "length"),
    [
        (Combination("filter-on-ready"), 13),
        (Combination("command-id", dirty_log="deferred-clear"), 10),
        (Combination("command-id", collects="before-announcing", holds="nothing"), 13),
        (Combination("command-id", start_buffer="shared"), 15),
        (Combination("command-id", advance="before-sync"), 13),
        (Combination("command-id", effect="discard"), 12),
        (Combination("ignore-late-unlocked"), 14),
        (Combination("flush-after-sync", holds="nothing"), 14),
    ],
    ids=lambda value: value.label if isinstance(value, Combination) else str(value),
)
def test_a_broken_combination_loses_a_page_in_so_many_acts(combination, length):
    verdict = explore(combination, Bound())
    assert verdict.is_broken
    assert len(verdict.loss.acts) == length
    assert verdict.loss.lost == (0,)
    again = replay(combination, Bound(), verdict.loss.acts)
    assert again == verdict.loss


@pytest.mark.parametrize(
    "combination",
    [
        Combination("command-id"),
        Combination("command-id", dirty_log="deferred-clear", holds="until-used"),
        Combination("command-id", effect="discard", holds="until-used"),
        Combination("ignore-late"),
        Combination("block-bulk"),
        Combination("flush-after-sync"),
    ],
    ids=lambda combination: combination.label,
)
def test_a_safe_combination_loses_nothing_within_a_bound(combination):
    verdict = explore(combination, Bound(writes=1))
    assert not verdict.is_broken
    assert verdict.complete
    assert verdict.state_count > 500


@pytest.mark.parametrize(
    ("combination", "bound"),
    [
        (Combination("command-id"), Bound()),
        (Combination("command-id", answer="bitmap"), Bound(writes=1)),
        (Combination("command-id", holds="until-used"), Bound(writes=1)),
    ],
    ids=lambda value: value.label if isinstance(value, Combination) else None,
)
def test_a_check_of_the_id_keeps_every_invariant(combination, bound):
    verdict = explore(combination, bound)
    assert verdict.complete
    assert not verdict.is_broken
    assert {name: str(finding.acts) for name, finding in verdict.broken_invariants.items()} == {}


TWO_ANSWERS = """
    migrator start, vcpu 0 look, vcpu 0 announce, vcpu 0 collect, vcpu 0 queue, vcpu 1 write 0, vcpu 1 free 0,
    migrator take 0, migrator send 0, migrator sync, vcpu 0 look, vcpu 0 end, vcpu 0 announce, vcpu 0 collect,
    vcpu 0 queue
"""


def test_a_hint_is_judged_by_its_own_buffer_and_not_by_an_older_one_that_was_refused():
    world = World(Combination("command-id"), Bound())
    for act in schedule(TWO_ANSWERS):
        world.do(act)
    assert [hint.written for hint in world.watch.hints] == [{0}, set()]
    assert 0 in world.migration.to_send
    world.do(Act("handler", "handle"))
    assert 0 not in world.migration.to_send
    assert world.broken == ()


def test_a_hint_that_counts_though_a_sync_came_since_is_judged_by_what_was_written_since():
    world = World(Combination("resubmit"), Bound())
    for act in schedule(TWO_ANSWERS)[:10]:
        world.do(act)
    world.do(Act("handler", "handle"))
    assert world.broken == ("1 no-sync-between", "2 no-write-erased")


def test_an_empty_bitmap_that_is_not_queued_yet_keeps_the_one_vcpu_busy():
    world = World(Combination("command-id", answer="bitmap", vcpus="1"), Bound())
    for act in schedule(
        """migrator start, vcpu 0 write 0, vcpu 0 reap, vcpu 0 look, vcpu 0 announce, vcpu 0 collect, migrator take 0,
        migrator send 0, migrator sync, vcpu 0 look"""
    ):
        world.do(act)
    assert [hint.where for hint in world.watch.hints] == ["collected"]
    assert [act.name for act in world.enabled() if act.actor == "vcpu 0"] == ["queue"]


def schedule(text):
    lines = [line.strip().replace("vcpu ", "vcpu_").split() for line in text.split(",")]
    return [Act(actor.replace("_", " "), name, *map(int, pages)) for actor, name, *pages in lines]


def test_the_loss_of_the_thread_is_found_as_it_was_told():
    verdict = explore(Combination("filter-on-ready"), Bound())
    names = [act.name for act in verdict.loss.acts]
    order = ("collect", "write", "sync", "filter", "stop", "complete")
    assert [name for name in names if name in order] == list(order)


def test_a_discard_before_the_hint_is_used_destroys_what_the_guest_wrote():
    verdict = explore(Combination("command-id", effect="discard"), Bound())
    assert len(verdict.broken_invariants["8 source-untouched"].acts) == 7
    assert verdict.broken_invariants["8 source-untouched"].broken == "8 source-untouched"


def test_ids_in_one_shared_field_are_not_read_as_they_were_queued():
    shared = explore(Combination("command-id", start_buffer="shared"), Bound())
    assert "5 id-as-queued" in shared.broken_invariants
    assert "5 id-as-queued" not in explore(Combination("command-id"), SMALL).broken_invariants


@pytest.mark.parametrize("strategy", ["command-id", "filter-on-ready", "host-timer", "drain-in-exit-sync-first"])
def test_a_migration_that_is_called_off_leaves_the_guest_its_pages(strategy):
    verdict = explore(Combination(strategy), Bound(writes=1, hints=1, syncs=2, cancels=1))
    assert not {"8 source-untouched", "11 progress", "12 fresh-start"} & set(verdict.broken_invariants)
    world = World(Combination(strategy), Bound(writes=1, hints=1, syncs=2, cancels=1))
    root, cancelled = world.capture(), 0
    for seed in range(40):
        world.put_back(root)
        for _ in walk(world, seed):
            pass
        if world.now.was_cancelled:
            cancelled += 1
            assert world.guest.use(0) != "held"
            assert world.guest.verify() == []
            assert world.watch.done_count == world.watch.was_asked
    assert cancelled > 5


def test_a_limit_leaves_the_verdict_open():
    verdict = explore(Combination("command-id"), Bound(), max_states=200)
    assert not verdict.complete
    assert not verdict.is_broken


# -- schedules


def test_an_act_that_is_not_possible_is_named():
    acts = [Act("migrator", "start"), Act("vcpu 0", "look"), Act("vcpu 0", "queue")]
    with pytest.raises(UserError, match=r'act 3, "vcpu 0: queue", is not possible there; possible is vcpu 0: announce'):
        replay(Combination("command-id"), Bound(), acts)


def test_a_schedule_may_not_go_on_after_the_end():
    loss = explore(Combination("filter-on-ready"), Bound()).loss
    with pytest.raises(UserError, match="the migration is over"):
        replay(Combination("filter-on-ready"), Bound(), [*loss.acts, Act("migrator", "sync")])


def test_a_strategy_that_there_is_not_is_refused():
    with pytest.raises(UserError, match="no-such"):
        World(Combination("no-such"), Bound())
