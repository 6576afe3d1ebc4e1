"""What each strategy tells the device, hook by hook."""

import pytest
from migration_setup import Hinting

from host_migrator.strategies import CommandId, NoHints


def sink(ranges):
    return 0


def test_command_id_stops_before_each_sync_and_asks_after_it():
    hinting = Hinting()
    strategy = CommandId(hinting)
    strategy.set_up(sink)
    assert hinting.sink is sink
    for _ in range(2):
        strategy.before_sync()
        strategy.after_sync(running=True)
    assert hinting.calls == ["stop", "request", "stop", "request"]


def test_command_id_is_done_when_the_guest_is_stopped_and_takes_no_hint_after():
    hinting = Hinting()
    strategy = CommandId(hinting)
    strategy.set_up(sink)
    strategy.before_sync()
    strategy.after_sync(running=False)
    assert hinting.calls == ["stop", "done"]
    assert hinting.sink is None
    strategy.complete()
    strategy.clean_up()
    assert hinting.calls == ["stop", "done"]


@pytest.mark.parametrize("syncs", [0, 1, 2])
def test_command_id_is_done_once_when_the_migration_breaks_off(syncs):
    hinting = Hinting()
    strategy = CommandId(hinting)
    strategy.set_up(sink)
    for _ in range(syncs):
        strategy.before_sync()
        strategy.after_sync(running=True)
    strategy.clean_up()
    strategy.clean_up()
    assert hinting.calls.count("done") == 1
    assert hinting.calls[-1] == "done"
    assert hinting.sink is None


def test_a_strategy_that_was_never_set_up_tells_the_guest_nothing():
    hinting = Hinting()
    CommandId(hinting).clean_up()
    assert hinting.calls == []


def test_a_strategy_can_serve_one_migration_after_another():
    hinting = Hinting()
    strategy = CommandId(hinting)
    for _ in range(2):
        strategy.set_up(sink)
        strategy.after_sync(running=True)
        strategy.clean_up()
    assert hinting.calls == ["request", "done"] * 2


def test_no_hints_asks_nobody():
    strategy = NoHints()
    strategy.set_up(sink)
    strategy.before_sync()
    strategy.after_sync(running=True)
    strategy.complete()
    strategy.clean_up()
    assert (strategy.name, strategy.head_start) == ("none", 0.0)
