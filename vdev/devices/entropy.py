"""The entropy device: it fills the driver's buffers with random bytes (virtio 1.4, "Entropy Device")."""

import os
from collections.abc import Callable
from typing import ClassVar

from spec.device import DeviceId
from vdev.device import Device
from vdev.errors import DriverViolation
from vdev.events import SILENT, Emitter
from vdev.memory import GuestMemory

__all__ = ["EntropyDevice"]

_CLAUSE = "Entropy Device / Device Operation"
_MOST_AT_ONCE = 4096
"""Bytes that one buffer gets; the text allows less than it has room for, and nobody stalls the host with 4 GiB."""


class EntropyDevice(Device):
    """`source` returns between 1 and as many random bytes as it is asked for; a seeded one makes runs repeatable."""

    device_id: ClassVar[int] = DeviceId.ENTROPY
    name = "entropy"
    queue_sizes = (256,)

    def __init__(
        self, memory: GuestMemory, *, source: Callable[[int], bytes] = os.urandom, events: Emitter = SILENT
    ) -> None:
        super().__init__(memory, events=events)
        self._source = source
        self.given_size = 0
        """Random bytes that drivers got since this object was made."""

    def handle_queue(self, number: int) -> None:
        """Fill every buffer that is available.

        Raises DriverViolation for one that is device-readable, or has no room for a byte.
        """
        for chain in self.chains(number):
            if chain.readable or not chain.writable_size:
                message = "a device-readable buffer" if chain.readable else "a buffer without room for a byte"
                raise DriverViolation(_CLAUSE, message, queue=number, descriptor=chain.head)
            data = self._source(min(chain.writable_size, _MOST_AT_ONCE))
            self.given_size += len(data)
            self.queues[number].push(chain.head, chain.write(self.memory, data))
