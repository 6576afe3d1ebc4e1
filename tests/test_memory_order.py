"""The full fence does between processes what the rings need of it: a store is seen before a later load is done."""

import os
import subprocess
import sys

import pytest

from tests import store_buffering
from vdev.memory import order

ITERATIONS = 40_000


def race(fence):
    """Run both halves on two processes; returns how many times each pair of loads came out."""
    fd = os.memfd_create("store-buffering")
    try:
        os.ftruncate(fd, store_buffering.area_size(ITERATIONS))
        command = [sys.executable, store_buffering.__file__]
        halves = [
            subprocess.Popen([*command, str(half), str(fd), str(ITERATIONS), str(int(fence))], pass_fds=[fd])
            for half in (0, 1)
        ]
        try:
            assert [half.wait(timeout=120) for half in halves] == [0, 0]
        finally:
            for half in halves:
                half.kill()
                half.wait()
        results = store_buffering.results_of(store_buffering.words_of(fd, ITERATIONS), ITERATIONS)
    finally:
        os.close(fd)
    pairs = list(zip(*results, strict=True))
    return {pair: pairs.count(pair) for pair in ((0, 0), (0, 1), (1, 0), (1, 1))}


@pytest.mark.process
def test_with_the_fence_two_processes_never_miss_each_other(record_property):
    outcomes = race(fence=True)
    record_property("outcomes", outcomes)
    assert sum(outcomes.values()) == ITERATIONS
    assert outcomes[0, 0] == 0
    assert outcomes[1, 1] or (outcomes[0, 1] and outcomes[1, 0]), f"the halves never raced: {outcomes}"


@pytest.mark.process
def test_without_the_fence_they_may(record_property):
    outcomes = race(fence=False)
    record_property(
        "outcomes", outcomes
    )  # (0, 0) is what the fence is for; how often it shows is the processor's affair
    assert sum(outcomes.values()) == ITERATIONS


def refuse(_code):
    raise PermissionError("no executable pages here")


def test_where_executable_pages_are_refused_x86_takes_a_lock(monkeypatch):
    monkeypatch.setattr(order, "_executable_page", refuse)
    fence, _ = order._make_full_fence("x86_64")
    assert fence() is None


def test_where_a_lock_is_no_fence_the_import_fails(monkeypatch):
    monkeypatch.setattr(order, "_executable_page", refuse)
    with pytest.raises(ImportError, match="refuses an executable page"):
        order._make_full_fence("aarch64")


def test_a_processor_without_a_known_fence_is_refused():
    with pytest.raises(ImportError, match="riscv64"):
        order._make_full_fence("riscv64")


def test_the_fences_return_nothing():
    assert (order.full_fence(), order.load_fence(), order.store_fence()) == (None, None, None)
