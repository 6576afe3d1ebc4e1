"""A migration act by act, without I/O: what comes next, what is legal, and what hints and syncs do to the set."""

import copy

import numpy as np
import pytest
from migration_setup import Hinting, make_memory, write_pages

from host_migrator.dirty_log import CooperativeDirtyLog, DeferredClearLog
from host_migrator.hint_work import HintWork
from host_migrator.migration import STEPS, Migration, Stage, Step
from host_migrator.strategies import STRATEGIES, HintStep, make_strategy
from vdev.memory import PAGE_SIZE, PageRanges

PAGES = 4
ASKING = [name for name in STRATEGIES if name != "none"]
IN_PIECES = ["filter-on-ready", "drain-in-exit-sync-first", "drain-in-exit-filter-first", "ignore-late-unlocked"]


class Lab:
    """A migration of four pages, and the device's side of its hints."""

    def __init__(self, name="command-id", *, divided=True, deferred=False, advance="after-sync", **options):
        self.memory = make_memory(PAGES * PAGE_SIZE, marks=True)
        self.hinting = Hinting()
        marks = self.memory.page_marks
        log = DeferredClearLog(marks, chunk_pages=1) if deferred else CooperativeDirtyLog(marks)
        strategy = make_strategy(name, self.hinting, advance=advance)
        self.migration = Migration(self.memory, log, strategy, **options)
        self.work = HintWork(self.migration, divided=divided)

    def start(self):
        self.migration.start(self.work)
        return self

    def hint(self, *pages):
        """A batch comes; returns whether it goes back at once."""
        for page in pages:
            self.work.take(PageRanges.of((page, page + 1)))
        return self.work.batch_taken()

    @property
    def left(self):
        return self.migration.to_send.members_between(0, PAGES).tolist()

    def act(self, step):
        migration = self.migration
        acts = {
            Step.START: lambda: migration.start(self.work),
            Step.GO_ON: migration.go_on,
            Step.TAKE: lambda: migration.take(1),
            Step.SEND: migration.sent,
            Step.ADVANCE: migration.advance,
            Step.SYNC: migration.sync,
            Step.STOP: migration.stop,
            Step.COMPLETE: migration.complete,
        }
        return acts[step]()

    def run(self):
        """Do what comes next until nothing does; return the acts."""
        steps = []
        while (step := self.migration.next_step) is not Step.NOTHING:
            self.act(step)
            steps.append(step.value)
        return steps


SENT = ["take", "send"] * PAGES


@pytest.mark.parametrize("name", STRATEGIES)
def test_three_syncs_are_two_passes_and_one_with_the_guest_stopped(name):
    lab = Lab(name, sync_limit=3)
    waits = ["go on"] if name == "block-bulk" else []
    assert lab.run() == ["start", *waits, *SENT, "sync", "stop", "complete"]
    assert lab.migration.sync_count == 3 + len(waits)
    assert lab.hinting.calls.count("done") == (name != "none")


def test_the_id_moves_on_before_each_sync_of_a_pass_where_that_is_asked_for():
    lab = Lab(advance="before-sync", sync_limit=4)
    assert lab.run() == ["start", *SENT, "advance", "sync", "advance", "sync", "stop", "complete"]
    assert lab.hinting.calls == ["stop", "request", "request", "request", "stop", "done"]


@pytest.mark.parametrize("stage", Stage)
def test_an_act_is_legal_where_the_table_says_so(stage):
    for step in set(Step) - {Step.NOTHING}:
        lab = Lab(advance="before-sync")
        if stage is not Stage.NEW:
            lab.start()
        lab.migration.stage = stage
        if step in STEPS[stage]:
            lab.act(step)
        else:
            with pytest.raises(ValueError, match=f"that is {stage} cannot {step}"):
                lab.act(step)


def test_what_was_taken_is_sent_before_more_is_taken():
    migration = Lab().start().migration
    migration.take(2)
    with pytest.raises(ValueError, match="not sent yet"):
        migration.take(1)


def test_what_is_added_behind_the_cursor_waits_for_the_next_pass():
    lab = Lab().start()
    migration = lab.migration
    for _ in range(2):
        migration.take(1)
        migration.sent()
    write_pages(lab.memory, [0, 3], 1)
    migration.merge()
    assert lab.left == [0, 2, 3]
    assert migration.take(PAGES).tolist() == [2, 3]
    migration.sent()
    assert migration.next_page() is None
    migration.sync()
    assert migration.next_page() == 0


def test_a_handlers_merge_runs_no_hooks_and_counts_for_nothing():
    lab = Lab().start()
    before = list(lab.hinting.calls), lab.migration.sync_count, lab.migration.pass_count
    write_pages(lab.memory, [2], 1)
    assert lab.migration.merge() == 1
    assert (list(lab.hinting.calls), lab.migration.sync_count, lab.migration.pass_count) == before


def test_a_hint_of_the_rest_ends_the_pass():
    lab = Lab().start()
    assert lab.migration.apply_hint(PageRanges.of((0, PAGES), (1, 2))) == PAGES
    assert lab.migration.next_step is Step.SYNC
    assert lab.migration.take(1).tolist() == []
    assert lab.migration.tally.hinted_count == PAGES


def test_a_deferred_log_is_cleared_as_a_page_is_taken_or_hinted():
    lab = Lab(deferred=True).start()
    assert lab.migration.take(1).tolist() == [0]
    lab.migration.sent()
    lab.migration.apply_hint(PageRanges.of((2, 3)))
    assert np.flatnonzero(lab.memory.page_marks.marks).tolist() == [1, 3]
    lab.migration.sync()
    assert lab.left == [1, 3]


def test_a_discarded_page_reads_as_zero_and_is_in_no_log():
    lab = Lab(discards=True)
    write_pages(lab.memory, [1, 2], 9)
    lab.start().migration.apply_hint(PageRanges.of((1, 2)))
    assert lab.memory.read(lab.memory.address_of(1) + 7, 1) == b"\0"
    assert lab.memory.read(lab.memory.address_of(2) + 7, 1) == b"\x09"
    assert lab.migration.merge() == 0


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("name", ASKING)
def test_a_migration_is_cleaned_up_once_whatever_its_stage(name, stage):
    lab = Lab(name, sync_limit=2)
    while lab.migration.stage is not stage and (step := lab.migration.next_step) is not Step.NOTHING:
        lab.act(step)
    lab.migration.clean_up()
    lab.migration.clean_up()
    assert lab.hinting.calls.count("done") == (stage is not Stage.NEW)
    assert lab.migration.next_step is Step.NOTHING


# The handler


@pytest.mark.parametrize("divided", [False, True])
@pytest.mark.parametrize("name", sorted(set(ASKING) - set(IN_PIECES)))
def test_a_handler_with_a_lock_applies_a_hint_as_it_is_taken(name, divided):
    lab = Lab(name, divided=divided).start()
    assert lab.work.take(PageRanges.of((1, 3))) == 2
    assert lab.work.batch_taken()
    assert lab.left == [0, 3]
    assert lab.work.next_step is None


@pytest.mark.parametrize("name", IN_PIECES)
def test_a_handler_without_a_lock_does_its_steps_one_by_one_in_the_order_named(name):
    lab = Lab(name).start()
    assert not lab.hint(1, 2)
    assert lab.left == [0, 1, 2, 3]
    done = []
    while (step := lab.work.next_step) is not None:
        assert lab.hinting.give_back_count == 0
        lab.work.do_next()
        done.append(step)
    assert done == [*lab.migration.strategy.handler_steps, HintStep.RETURN]
    assert lab.left == [0, 3]
    assert lab.hinting.give_back_count == 1
    assert lab.work.batches == []


@pytest.mark.parametrize("name", IN_PIECES)
def test_a_handler_without_a_lock_that_runs_in_an_exit_is_through_when_the_kick_is(name):
    lab = Lab(name, divided=False).start()
    write_pages(lab.memory, [1], 1)
    assert lab.hint(1, 2)
    # Whether page 1 is left says which came last, the filter or the sync.
    left = {"filter-on-ready": [0, 1, 3], "drain-in-exit-filter-first": [0, 1, 3]}
    assert lab.left == left.get(name, [0, 3])


def test_a_sync_between_check_and_filter_lets_a_late_hint_through():
    lab = Lab("ignore-late-unlocked").start()
    lab.hint(1)
    lab.work.do_next()
    write_pages(lab.memory, [1], 1)
    lab.migration.sync()
    lab.work.do_next()
    assert 1 not in lab.left, "the loss that the lock prevents"
    lab.work.do_next()
    lab.hint(2)
    lab.work.do_next()
    assert lab.work.steps == [HintStep.RETURN], "what does not count is not filtered"
    lab.work.do_next()
    assert 2 in lab.left


def test_batches_in_hand_are_handled_and_returned_in_order():
    lab = Lab("filter-on-ready").start()
    assert not lab.hint(1)
    assert not lab.hint()
    assert not lab.hint(2)
    assert [step.value for step in lab.work.steps] == ["filter", "sync", "return", "return", "filter", "sync", "return"]
    for _ in range(3):
        lab.work.do_next()
    assert lab.left == [0, 2, 3]
    lab.work.do_next()
    lab.work.do_next()
    assert lab.left == [0, 3]
    assert lab.hinting.give_back_count == 2


def test_ids_alone_go_back_at_once():
    lab = Lab("filter-on-ready").start()
    assert lab.hint()
    assert lab.work.next_step is None


def test_what_is_abandoned_goes_back_unapplied():
    lab = Lab("filter-on-ready").start()
    lab.hint(1)
    lab.hint(2)
    lab.work.abandon()
    assert lab.hinting.give_back_count == 2
    assert lab.left == [0, 1, 2, 3]
    assert lab.work.next_step is None
    lab.work.abandon()
    assert lab.hinting.give_back_count == 2


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_migration_can_be_copied_between_any_two_acts_and_gone_on_with(name):
    lab = Lab(name, sync_limit=3)
    shared = {id(part): part for part in (lab.memory, lab.migration.dirty_log)}
    acts, copies = [], []
    while (step := lab.migration.next_step) is not Step.NOTHING:
        twin = Lab(name)
        twin.migration, twin.work, twin.hinting = copy.deepcopy(
            (lab.migration, lab.work, lab.hinting), memo=dict(shared)
        )
        copies.append(twin)
        acts.append(step.value)
        lab.act(step)
        if step is Step.START and name != "none":
            lab.hint(1)
    for position, twin in enumerate(copies[1:], start=1):
        assert twin.run() == acts[position:]
        assert np.array_equal(twin.migration.to_send.words, lab.migration.to_send.words)
        assert twin.hinting.calls == lab.hinting.calls
