"""Shared by all tests: the order they run in, how Hypothesis searches, and which peers took part."""

import gc
import os
import signal

import pytest
from device_setup import RINGS, Ring
from hypothesis import settings

# The same examples in every run; HYPOTHESIS_PROFILE=search looks for new ones.
settings.register_profile("repeat", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))

# A shell's background job is started with SIGINT ignored, and so would be every child of the tests that is to get one.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=RINGS)
def each_ring(request, monkeypatch):
    """The balloon's driver and device use this format of ring."""
    monkeypatch.setattr(Ring, "allowed", RINGS[request.param])


PEERS = {
    "process": "vdev's own processes",
    "kernel_dirty_log": "the kernel's dirty log",
    "peer_uml": "user-mode Linux",
    "peer_qemu": "QEMU with Linux guests",
    "peer_qemu_7_2": "QEMU 7.2",
    "peer_storage_daemon": "qemu-storage-daemon",
    "peer_libblkio": "libblkio",
    "peer_virtiofsd": "virtiofsd",
}


@pytest.fixture(scope="module")
def no_garbage_of_others():
    """Descriptors that are garbage of another file's tests are closed before this file's tests count theirs."""
    gc.collect()


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items):
    """What is quick runs first: a broken unit is named before a migration stumbles over it."""
    for item in items:
        if any(mark.name.startswith("peer_") for mark in item.iter_markers()):
            item.add_marker("peer")
        if item.path.name.startswith("test_race_"):
            item.add_marker("lab")
        if item.path.name.startswith("test_check_"):
            item.add_marker("check")
    items.sort(key=lambda item: any(item.get_closest_marker(name) for name in ("process", "peer")))


def pytest_terminal_summary(terminalreporter):
    """Say which peers really took part: a skipped one is easily taken for a passed one."""
    passed = terminalreporter.stats.get("passed", [])
    counts = {
        peer: sum(marker in report.keywords for report in passed if report.when == "call")
        for marker, peer in PEERS.items()
    }
    line = ", ".join(f"{peer} ({count} tests)" for peer, count in counts.items())
    terminalreporter.write_line(f"peers: {line}")
