"""What each strategy tells the device, hook by hook, and what it says of its handler."""

import pytest
from migration_setup import Hinting

from host_migrator.strategies import STRATEGIES, CommandId, HintStep, NoHints, Refresh, make_strategy
from vdev.race.combination import DIMENSIONS
from vdev.run import options

ASKING = [name for name in STRATEGIES if name != "none"]
HANDLED_IN_PIECES = {
    "filter-on-ready": (HintStep.FILTER, HintStep.SYNC),
    "drain-in-exit-sync-first": (HintStep.SYNC, HintStep.FILTER),
    "drain-in-exit-filter-first": (HintStep.FILTER, HintStep.SYNC),
    "ignore-late-unlocked": (HintStep.CHECK, HintStep.FILTER),
}


class Sink:
    """Takes nothing."""


def set_up(name, **options):
    hinting, sink = Hinting(), Sink()
    strategy = make_strategy(name, hinting, **options)
    strategy.set_up(sink)
    return strategy, hinting, sink


def sync(strategy, *, running=True):
    strategy.before_sync()
    strategy.after_sync(running)


def test_the_command_line_knows_the_same_names():
    assert tuple(STRATEGIES) == options.STRATEGIES
    assert DIMENSIONS["answer"] == options.ANSWERS
    assert set(options.HOLDS) == set(DIMENSIONS["holds"])
    exits = {name for name in STRATEGIES if make_strategy(name, Hinting()).needs_exits}
    assert exits == options.EXIT_STRATEGIES


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_says_what_its_handler_does(name):
    strategy = make_strategy(name, Hinting())
    assert strategy.name == name
    assert strategy.locked == (name not in HANDLED_IN_PIECES)
    assert strategy.handler_steps == HANDLED_IN_PIECES.get(name, () if name == "none" else (HintStep.FILTER,))
    assert strategy.polled == (name == "host-timer")
    assert strategy.waits_for_answer == (name == "block-bulk")
    refreshes = {"interval": Refresh.INTERVAL, "resubmit": Refresh.CONSUMED, "host-timer": Refresh.CONSUMED}
    assert strategy.refresh is refreshes.get(name, Refresh.NEVER)


@pytest.mark.parametrize("name", ASKING)
def test_every_strategy_asks_after_the_first_sync_and_says_done_once(name):
    strategy, hinting, sink = set_up(name)
    assert hinting.calls == []
    assert hinting.sink is sink
    assert hinting.checks_id == (name == "command-id")
    assert hinting.polled == (name == "host-timer")
    sync(strategy)
    assert hinting.calls[-1] == "request"
    assert strategy.head_start > 0
    sync(strategy)
    sync(strategy, running=False)
    assert hinting.calls[-1] == "done"
    assert hinting.sink is None
    assert not hinting.polled
    strategy.complete()
    strategy.clean_up()
    assert hinting.calls.count("done") == 1
    assert hinting.calls.count("request") == (2 if name in ("command-id", "flush-after-sync") else 1)


@pytest.mark.parametrize("syncs", [0, 1, 2])
@pytest.mark.parametrize("name", ASKING)
def test_every_strategy_is_done_once_when_the_migration_breaks_off(name, syncs):
    strategy, hinting, _ = set_up(name)
    for _ in range(syncs):
        sync(strategy)
    strategy.clean_up()
    strategy.clean_up()
    assert hinting.calls.count("done") == 1
    assert hinting.calls[-1] == "done"
    assert hinting.sink is None


def test_command_id_stops_before_each_sync_and_asks_after_it():
    strategy, hinting, _ = set_up("command-id")
    for _ in range(2):
        sync(strategy)
    sync(strategy, running=False)
    assert hinting.calls == ["stop", "request", "stop", "request", "stop", "done"]


def test_command_id_that_advances_early_asks_before_the_sync_and_not_after_it():
    strategy, hinting, _ = set_up("command-id", advance="before-sync")
    sync(strategy)
    for _ in range(2):
        assert strategy.advance_due
        strategy.advance()
        assert not strategy.advance_due
        sync(strategy)
    sync(strategy, running=False)
    assert hinting.calls == ["stop", "request", "request", "request", "stop", "done"]


def test_flush_after_sync_flushes_between_the_merge_and_the_request_and_not_when_the_guest_is_stopped():
    strategy, hinting, _ = set_up("flush-after-sync")
    sync(strategy)
    strategy.before_sync()
    assert hinting.calls == ["flush", "request"]
    strategy.after_sync(running=True)
    sync(strategy, running=False)
    assert hinting.calls == ["flush", "request", "flush", "request", "done"]


@pytest.mark.parametrize("name", ["ignore-late", "ignore-late-unlocked", "block-bulk"])
def test_an_answer_is_late_from_the_second_sync_on(name):
    strategy, _, _ = set_up(name)
    sync(strategy)
    assert strategy.accepts()
    strategy.before_sync()
    assert not strategy.accepts()
    strategy.clean_up()
    strategy.set_up(Sink())
    sync(strategy)
    assert strategy.accepts(), "a later migration has an answer of its own"


def test_block_bulk_waits_until_the_answer_is_whole():
    strategy, _, _ = set_up("block-bulk")
    assert not strategy.answer_outstanding
    sync(strategy)
    assert strategy.answer_outstanding
    strategy.answer_ended()
    assert not strategy.answer_outstanding


def test_interval_tells_the_guest_how_often_and_turns_it_off_before_done():
    strategy, hinting, _ = set_up("interval")
    sync(strategy)
    sync(strategy, running=False)
    assert hinting.calls == ["interval 100", "request", "interval 0", "done"]


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_that_was_never_set_up_tells_the_guest_nothing(name):
    hinting = Hinting()
    make_strategy(name, hinting).clean_up()
    assert hinting.calls == []


def test_a_strategy_can_serve_one_migration_after_another():
    hinting = Hinting()
    strategy = CommandId(hinting)
    for _ in range(2):
        strategy.set_up(Sink())
        strategy.after_sync(running=True)
        strategy.clean_up()
    assert hinting.calls == ["request", "done"] * 2


def test_no_hints_asks_nobody():
    hinting = Hinting()
    strategy = NoHints(hinting)
    strategy.set_up(Sink())
    sync(strategy)
    sync(strategy, running=False)
    strategy.complete()
    assert hinting.calls == []
    assert hinting.sink is None
    assert not strategy.accepts()
    assert (strategy.name, strategy.head_start) == ("none", 0.0)


def test_what_there_is_not_is_refused():
    with pytest.raises(ValueError, match="no strategy 'hope'"):
        make_strategy("hope", Hinting())
    with pytest.raises(ValueError, match="resubmit has no id"):
        make_strategy("resubmit", Hinting(), advance="before-sync")
