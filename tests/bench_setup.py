"""Benches over this project's own entropy device, for the tests of the bench itself."""

import os

from vdev.check.bench.bench import Bench
from vdev.check.bench.traffic import traffic
from vdev.check.target_registers import RegistersTarget
from vdev.check.target_thread import ThreadTarget
from vdev.devices.entropy import EntropyDevice

TARGETS = {"registers": RegistersTarget, "vhost-user": ThreadTarget}


def never_fill(size):
    """Return bytes that a buffer is never filled with beforehand."""
    return b"\x11" * size


def entropy(memory):
    return EntropyDevice(memory, source=never_fill)


def entropy_bench(target, ring_format):
    return Bench(target, traffic("entropy"), ring_format)


def open_descriptors():
    """Return what each open file descriptor of this process is."""
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            found[int(fd)] = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            continue  # the directory's own
    return found
