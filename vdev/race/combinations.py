"""Which combinations the sweep explores: every strategy with what matters to all, and the rest where it matters."""

from collections.abc import Iterator
from itertools import product

from vdev.race.combination import DIMENSIONS, Combination
from vdev.run.options import STRATEGIES

__all__ = ["default_combinations"]


def default_combinations() -> list[Combination]:
    """Return the sweep's combinations in the order of the table, each once."""
    return list(dict.fromkeys(combination for strategy in STRATEGIES for combination in _of(strategy)))


def _of(strategy: str) -> Iterator[Combination]:
    usual = Combination(strategy)
    for answer, holds, log in product(DIMENSIONS["answer"], DIMENSIONS["holds"], DIMENSIONS["dirty_log"]):
        yield usual.but(answer=answer, holds=holds, dirty_log=log)
    if strategy == "none":
        return  # Nobody is asked, so there is nothing else that could matter.
    for holds, log in product(DIMENSIONS["holds"], DIMENSIONS["dirty_log"]):
        yield usual.but(holds=holds, dirty_log=log, vcpus="1")
        yield usual.but(holds=holds, dirty_log=log, effect="discard")
    for holds in DIMENSIONS["holds"]:
        yield usual.but(holds=holds, collects="before-announcing")
        yield usual.but(answer="bitmap", holds=holds, vcpus="1")
        yield usual.but(answer="bitmap", holds=holds, effect="discard")
    if strategy == "command-id":
        yield from _of_command_id(usual)


def _of_command_id(usual: Combination) -> Iterator[Combination]:
    """What only a strategy that compares ids, and moves them, can fall over."""
    for holds, log in product(DIMENSIONS["holds"], DIMENSIONS["dirty_log"]):
        yield usual.but(holds=holds, dirty_log=log, start_buffer="shared")
        yield usual.but(holds=holds, dirty_log=log, advance="before-sync")
        yield usual.but(holds=holds, dirty_log=log, collects="before-announcing")
        yield usual.but(holds=holds, dirty_log=log, start_buffer="shared", advance="before-sync")
        yield usual.but(holds=holds, dirty_log=log, start_buffer="shared", collects="before-announcing")
        yield usual.but(holds=holds, dirty_log=log, advance="before-sync", collects="before-announcing")
    for holds in DIMENSIONS["holds"]:
        yield usual.but(answer="bitmap", holds=holds, start_buffer="shared")
        yield usual.but(answer="bitmap", holds=holds, advance="before-sync")
