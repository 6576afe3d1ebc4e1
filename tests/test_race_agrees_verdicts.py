"""The lab and the naive model of its protocol agree on the verdict, and on the length of the shortest loss."""

import pytest
import race_model
from race_agreement import agree

from vdev.race.combination import DIMENSIONS, Bound, Combination
from vdev.race.combinations import default_combinations
from vdev.run.options import STRATEGIES


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
