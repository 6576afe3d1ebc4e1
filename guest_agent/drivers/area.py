"""What every driver's area of guest RAM begins with: a record of the driver's state."""

from typing import ClassVar

import numpy as np
from construct import Bytes, Construct

from guest_agent.virtqueue.queue import NoQueueHere
from vdev.memory import GuestMemory

__all__ = ["REASON", "DriverArea"]

_REASON_SIZE = 256
REASON = "reason" / Bytes(_REASON_SIZE)
"""A field of every driver's record: why the device was given up, UTF-8 padded with zeros; all zeros: it was not."""


class DriverArea:
    """The area of the driver `name` at the page-aligned guest-physical `address`; it begins with the record `layout`.

    The integer fields of the record are this object's items. Each store is told to the dirty log. The layout has a
    32-bit field `magic`, and REASON.
    """

    name: ClassVar[str]
    layout: ClassVar[Construct]
    magic: ClassVar[int]

    def __init__(self, memory: GuestMemory, address: int) -> None:
        self.memory = memory
        self.address = address
        self._state = memory.view(address, self.layout)

    @classmethod
    def require(cls, memory: GuestMemory, address: int) -> None:
        """Raise NoQueueHere if no such area was made at `address`."""
        if memory.view(address, cls.layout)["magic"] != cls.magic:
            raise NoQueueHere(f"no {cls.name} driver's area at {address:#x}")

    def __getitem__(self, field: str) -> int:
        return int(self._state[field])

    def __setitem__(self, field: str, value: int) -> None:
        self._state[field] = value
        self._mark_state()

    def load_bytes(self, field: str) -> bytes:
        """Return a copy of a field of bytes."""
        return self._state[field].tobytes()

    def store_bytes(self, field: str, value: bytes) -> None:
        """Store into a field of bytes, cut or padded with zeros to its size."""
        size = self._state.dtype[field].itemsize
        self._state[field] = np.void(value[:size].ljust(size, b"\0"))
        self._mark_state()

    @property
    def reason(self) -> str | None:
        """Why the device was given up, None if it was not."""
        return self.load_bytes("reason").rstrip(b"\0").decode(errors="replace") or None

    @reason.setter
    def reason(self, why: str) -> None:
        self.store_bytes("reason", why.encode())

    def _mark_state(self) -> None:
        self.memory.mark_written(self.address, self._state.nbytes)
