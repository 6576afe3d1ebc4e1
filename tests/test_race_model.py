"""The naive model of the lab's protocol says what the thread said: which orders lose a page, and which do not."""

import random

import pytest
from race_model import STRATEGIES, lost, search, successors
from race_model_state import COMPLETE, Case, first

UNTIL_USED_IS_SAFE = [Case(strategy, holds="until-used", writes=1) for strategy in STRATEGIES]


def play(case, acts):
    """Return the state after the acts, each of which must be possible where it comes."""
    state = first(case)
    for act in acts:
        state = dict(successors(case, state))[act]
    return state


def verdict(case):
    return "safe" if search(case).loss is None else "broken"


def test_the_loss_of_the_thread_is_one_of_filter_on_ready():
    story = [
        *("migrator: start", "migrator: take 0", "migrator: send 0"),
        *("vcpu 0: look", "vcpu 0: announce", "vcpu 0: collect", "vcpu 0: queue"),
        *("vcpu 0: write 0", "migrator: sync", "handler: pop", "handler: filter"),
        *("handler: sync", "handler: return", "migrator: stop", "migrator: complete"),
    ]
    assert lost(play(Case("filter-on-ready"), story))


def test_the_same_orders_lose_nothing_when_the_write_comes_after_the_sync():
    story = [
        *("migrator: start", "migrator: take 0", "migrator: send 0"),
        *("vcpu 0: look", "vcpu 0: announce", "vcpu 0: collect", "vcpu 0: queue"),
        *("migrator: sync", "vcpu 0: write 0", "handler: pop", "handler: filter"),
        *("handler: sync", "handler: return", "migrator: take 0", "migrator: send 0"),
        *("migrator: stop", "migrator: complete"),
    ]
    assert not lost(play(Case("filter-on-ready"), story))


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (Case("none", vcpus=2), "safe"),
        (Case("block-bulk", holds="nothing", vcpus=2), "safe"),
        (Case("block-bulk", log="deferred-clear"), "broken"),
        (Case("filter-on-ready"), "broken"),
        (Case("drain-in-exit-sync-first"), "safe"),
        (Case("drain-in-exit-sync-first", vcpus=2), "broken"),
        (Case("drain-in-exit-filter-first"), "safe"),
        (Case("drain-in-exit-filter-first", vcpus=2), "broken"),
        (Case("flush-after-sync", vcpus=2), "safe"),
        (Case("flush-after-sync", holds="nothing", vcpus=2), "broken"),
        (Case("ignore-late", holds="nothing", vcpus=2), "safe"),
        (Case("ignore-late-unlocked"), "broken"),
        (Case("interval"), "broken"),
        (Case("resubmit"), "broken"),
        (Case("host-timer"), "broken"),
        (Case("command-id", holds="nothing", vcpus=2), "safe"),
        (Case("command-id", log="deferred-clear"), "broken"),
        (Case("command-id", effect="discard"), "broken"),
        (Case("command-id", start_buffer="shared"), "broken"),
        (Case("command-id", advance="before-sync"), "broken"),
        (Case("command-id", collects="before-announcing", vcpus=2), "safe"),
        (Case("command-id", holds="nothing", collects="before-announcing", vcpus=2), "broken"),
    ],
)
def test_the_verdicts_are_those_that_reasoning_gives(case, expected):
    assert verdict(case) == expected


@pytest.mark.parametrize("case", UNTIL_USED_IS_SAFE, ids=STRATEGIES)
def test_pages_that_are_held_until_their_buffer_is_used_are_never_lost(case):
    for changes in ({}, {"log": "deferred-clear"}, {"effect": "discard"}, {"start_buffer": "shared"}, {"vcpus": 2}):
        assert verdict(case._replace(**changes)) == "safe", changes


def test_a_shortest_loss_can_be_played_and_no_shorter_prefix_of_it_loses():
    case = Case("command-id", start_buffer="shared")
    loss = search(case).loss
    assert lost(play(case, loss))
    assert not any(lost(play(case, loss[:end])) for end in range(len(loss)))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_whatever_the_others_do_the_migration_comes_to_its_end(strategy):
    case = Case(strategy, pages=2, vcpus=2)
    choose = random.Random(strategy)
    for _ in range(100):
        state = first(case)
        while acts := successors(case, state):
            _, state = choose.choice(acts)
        assert state.phase == COMPLETE
