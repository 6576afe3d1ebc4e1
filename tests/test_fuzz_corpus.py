"""What a coverage-guided fuzzer found worth keeping runs through its targets again, without the fuzzer."""

from pathlib import Path

import pytest
from fuzz.minimise import chosen
from fuzz.seed import SEEDS
from fuzz.targets import TARGETS

import guest_agent.vhost_user.session
import guest_agent.virtqueue.packed
import guest_agent.virtqueue.split
import vdev.vhost_user.dispatch
import vdev.vhost_user.framing
import vdev.virtqueue.packed
import vdev.virtqueue.split

FUZZ = Path(__file__).parent / "fuzz"
CORPUS = FUZZ / "corpus"
HARMFUL = sorted((FUZZ / "harmful").glob("*/*"))
"""Inputs that once showed a fault, named by what it was; minimising leaves them alone."""

FUZZED = {
    "split-device": (vdev.virtqueue.split.SplitDeviceQueue, "pop_batch"),
    "packed-device": (vdev.virtqueue.packed.PackedDeviceQueue, "pop_batch"),
    "split-driver": (guest_agent.virtqueue.split.SplitDriverQueue, "collect_batch"),
    "packed-driver": (guest_agent.virtqueue.packed.PackedDriverQueue, "collect_batch"),
    "framing": (vdev.vhost_user.framing.MessageDecoder, "_check_header"),
    "back-end": (vdev.vhost_user.dispatch.Dispatch, "obey"),
    "front-end": (guest_agent.vhost_user.session.FrontEndSession, "_check"),
}
"""Target -> what it is there to run."""


def run(target, kept):
    for data in kept:
        TARGETS[target](data)


def inputs(target):
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


@pytest.mark.parametrize("target", TARGETS)
def test_what_a_fuzzer_found_does_no_harm(target):
    kept = inputs(target)
    assert len(kept) >= 5
    run(target, kept)


@pytest.mark.parametrize("path", HARMFUL, ids=lambda path: f"{path.parent.name}: {path.name}")
def test_what_once_did_harm_does_none_any_more(path):
    TARGETS[path.parent.name](path.read_bytes())


@pytest.mark.parametrize("target", TARGETS)
def test_the_first_inputs_do_no_harm(target):
    assert SEEDS[target]
    run(target, SEEDS[target])


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("data", [b"", b"\0", b"\xff" * 300, bytes(1000), bytes(range(256)) * 4])
def test_any_bytes_are_an_input(target, data):
    TARGETS[target](data)


@pytest.mark.parametrize("target", TARGETS)
def test_a_fault_in_what_is_fuzzed_shows(target, monkeypatch):
    def fail(*arguments, **options):
        raise ZeroDivisionError

    monkeypatch.setattr(*FUZZED[target], fail)
    with pytest.raises(ZeroDivisionError):
        run(target, inputs(target))


def test_the_smallest_inputs_that_reach_something_new_are_kept():
    target = TARGETS["split-device"]
    seeds = SEEDS["split-device"]
    kept = chosen(target, [*seeds, b"", *(data + b"\0" for data in seeds), b"\0\0"])
    assert kept[0] == b""
    assert b"\0\0" not in kept
    assert any(data in seeds for data in kept)
    assert not any(data.endswith(b"\0\0\0\0\0") and data[:-1] in seeds for data in kept)
    assert chosen(target, kept) == kept
