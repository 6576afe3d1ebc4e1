"""Each safe strategy is safe for a reason: take that away, and the lab says so, with the name of what broke.

What is taken away is patched in here; the same combination as shipped is held against it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from host_migrator.hint_work import HintWork
from host_migrator.migration import Migration, Stage, Step
from host_migrator.page_set import PageSet
from host_migrator.strategies import STRATEGIES, HintStep
from host_migrator.strategies.asking import Asking
from vdev.memory import PageRanges
from vdev.race import world
from vdev.race.combination import Bound, Combination
from vdev.race.explore import explore
from vdev.race.handler import Handler
from vdev.race.world import World

LOST = "lost"
SHORT = Bound(pages=1, writes=1, hints=1, syncs=2)
LONG = Bound(pages=1, writes=1, hints=1, syncs=3)


@dataclass(frozen=True)
class Mutation:
    """What is taken away by `weaken`, from what, and what the lab then calls broken."""

    combination: Combination
    weaken: Callable[[pytest.MonkeyPatch], None]
    breaks: str
    bound: Bound = LONG


def without_lock(name, *steps):
    """The strategy's handler runs in pieces."""

    def weaken(monkeypatch):
        monkeypatch.setattr(STRATEGIES[name], "locked", False)
        monkeypatch.setattr(STRATEGIES[name], "handler_steps", steps)

    return weaken


def advances_before_the_sync(monkeypatch):
    monkeypatch.setattr(STRATEGIES["command-id"], "advance_due", property(lambda self: not self._advanced))


def takes_hints_of_any_id(monkeypatch):
    monkeypatch.setattr(STRATEGIES["command-id"], "checks_id", False)


def does_not_flush(monkeypatch):
    monkeypatch.setattr(STRATEGIES["flush-after-sync"], "after_sync", Asking.after_sync)


def takes_late_answers(monkeypatch):
    monkeypatch.setattr(STRATEGIES["ignore-late"], "accepts", lambda self: True)


def skips_done(monkeypatch):
    monkeypatch.setattr(Asking, "_finish", lambda self: None)


def serves_the_queue_after_the_last_sync(monkeypatch):
    next_act = Handler.next_act
    monkeypatch.setattr(Handler, "next_act", lambda self, *, is_served: next_act(self, is_served=True))


def asks_before_the_log_is_on(monkeypatch):
    start = Migration.start

    def mutated(self, hints):
        self.strategy.set_up(hints)
        self.strategy._ask()
        return start(self, hints)

    monkeypatch.setattr(Migration, "start", mutated)


def gives_back_before_the_filter(monkeypatch):
    batch_taken = HintWork.batch_taken

    def mutated(self):
        is_through = batch_taken(self)
        if self.steps:
            self.steps.insert(0, self.steps.pop())
        return is_through

    def do_next(self):
        step = self.steps.pop(0)
        if step is HintStep.RETURN:
            self.migration.strategy.give_back()
            return
        self._do(step)
        if not self.steps:
            self._forget_oldest()

    monkeypatch.setattr(HintWork, "batch_taken", mutated)
    monkeypatch.setattr(HintWork, "do_next", do_next)


def a_hint_clears_the_log(monkeypatch):
    apply_hint = Migration.apply_hint

    def mutated(self, ranges):
        self.watch.marks.marks[ranges.to_pages()] = 0
        return apply_hint(self, ranges)

    monkeypatch.setattr(Migration, "apply_hint", mutated)


def begins_with_an_empty_set(monkeypatch):
    monkeypatch.setattr(PageSet, "fill", lambda self: None)


def waits_for_the_guest(monkeypatch):
    next_step = Migration.next_step.fget

    def mutated(self):
        waits = self.stage is Stage.WAITING and self.strategy.answer_outstanding
        return Step.NOTHING if waits else next_step(self)

    monkeypatch.setattr(Migration, "next_step", property(mutated))


def reads_a_page_before_its_log_is_cleared(monkeypatch):
    do_migrator = World._do_migrator

    def mutated(self, name):
        log = self.migration.dirty_log
        if name == "take":
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(log, "clear", lambda ranges: None)
                do_migrator(self, name)
            page = int(self.migration.in_flight[0])
            self.now.destination[page] = self.guest.version(page)
        elif name == "send":
            log.clear(PageRanges.of_pages(self.migration.in_flight))
            self.migration.sent()
        else:
            do_migrator(self, name)

    monkeypatch.setattr(World, "_do_migrator", mutated)


def forgets_to_count(monkeypatch):
    remove_ranges = PageSet.remove_ranges

    def mutated(self, ranges):
        before = self.count
        removed = remove_ranges(self, ranges)
        self.count = before
        return removed

    monkeypatch.setattr(PageSet, "remove_ranges", mutated)


def share_the_start_buffer(monkeypatch):
    shape_of = world.shape_of

    def mutated(combination, bound, **options):
        return shape_of(combination.but(start_buffer="shared"), bound, **options)

    monkeypatch.setattr(world, "shape_of", mutated)


COMMAND_ID = Combination("command-id")
MUTATIONS = {
    "command-id without its lock": Mutation(COMMAND_ID, without_lock("command-id", HintStep.FILTER), LOST),
    "flush-after-sync without its lock": Mutation(
        Combination("flush-after-sync"), without_lock("flush-after-sync", HintStep.FILTER), LOST
    ),
    "ignore-late without its lock": Mutation(
        Combination("ignore-late"), without_lock("ignore-late", HintStep.CHECK, HintStep.FILTER), LOST
    ),
    "ignore-late, a sync between check and filter": Mutation(
        Combination("ignore-late"),
        without_lock("ignore-late", HintStep.CHECK, HintStep.FILTER),
        "3 one-at-a-time",
    ),
    "block-bulk without its lock": Mutation(
        Combination("block-bulk"), without_lock("block-bulk", HintStep.CHECK, HintStep.FILTER), LOST
    ),
    "command-id advances before the sync": Mutation(COMMAND_ID, advances_before_the_sync, LOST),
    "command-id takes hints of any id": Mutation(COMMAND_ID, takes_hints_of_any_id, LOST),
    "flush-after-sync does not flush": Mutation(Combination("flush-after-sync"), does_not_flush, LOST),
    "ignore-late takes late answers": Mutation(Combination("ignore-late"), takes_late_answers, LOST),
    "no DONE": Mutation(COMMAND_ID, skips_done, "9 done-once", SHORT),
    "the queue is served after the last sync": Mutation(
        Combination("ignore-late"), serves_the_queue_after_the_last_sync, "6 nothing-after-last-sync", SHORT
    ),
    "the guest is asked before the log is on": Mutation(
        COMMAND_ID, asks_before_the_log_is_on, "4 log-before-request", SHORT
    ),
    "until-used, but buffers go back before the filter": Mutation(
        Combination("filter-on-ready", holds="until-used"), gives_back_before_the_filter, LOST
    ),
    "a hint clears the log": Mutation(COMMAND_ID, a_hint_clears_the_log, LOST, SHORT),
    "a hint erases the record of a write": Mutation(COMMAND_ID, a_hint_clears_the_log, "2 no-write-erased", SHORT),
    "M is not filled at the start": Mutation(Combination("none"), begins_with_an_empty_set, "12 fresh-start", SHORT),
    "the wait for the answer has no end": Mutation(
        Combination("block-bulk"), waits_for_the_guest, "11 progress", SHORT
    ),
    "a page is read before its log is cleared": Mutation(
        Combination("none", dirty_log="deferred-clear"), reads_a_page_before_its_log_is_cleared, LOST, SHORT
    ),
    "the count is not kept": Mutation(COMMAND_ID, forgets_to_count, "7 count-is-popcount", SHORT),
    "an id buffer is used again while it is queued": Mutation(COMMAND_ID, share_the_start_buffer, "5 id-as-queued"),
}


def what_breaks(mutation: Mutation, *, reduction: bool) -> set[str]:
    """Return all that the lab finds broken."""
    verdict = explore(mutation.combination, mutation.bound, reduction=reduction)
    assert verdict.complete
    return set(verdict.broken_invariants) | ({LOST} if verdict.is_broken else set())


@pytest.mark.parametrize("name", MUTATIONS)
def test_what_makes_a_strategy_safe_is_seen_to_be_missing(name, monkeypatch):
    mutation = MUTATIONS[name]
    assert not {LOST, mutation.breaks} & what_breaks(mutation, reduction=True)
    mutation.weaken(monkeypatch)
    # What an act touches may be changed, too: so no order is left out.
    assert mutation.breaks in what_breaks(mutation, reduction=False)
