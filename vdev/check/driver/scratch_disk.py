"""The disk that a block driver is judged with, unless somebody names one: nobody's data are on it."""

import os

from vdev.devices.block import BlockDevice, BlockFile
from vdev.events import Emitter
from vdev.memory import GuestMemory

__all__ = ["SCRATCH_SIZE", "scratch_disk"]

SCRATCH_SIZE = 64 << 20
"""Bytes; memory of this machine only where the driver writes."""


def scratch_disk(memory: GuestMemory, events: Emitter) -> BlockDevice:
    """Return a disk of zeros, which is gone when it is closed."""
    fd = os.memfd_create("judged-disk", os.MFD_CLOEXEC)
    os.ftruncate(fd, SCRATCH_SIZE)
    return BlockDevice(memory, BlockFile(fd, SCRATCH_SIZE), serial="judged", events=events)
