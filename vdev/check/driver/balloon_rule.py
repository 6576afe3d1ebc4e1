"""What all rules for balloon drivers share: which queue is which, and what a buffer of page numbers names."""

from collections.abc import Sequence
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from spec.balloon import PAGE_FRAME_NUMBER, PAGE_FRAME_SIZE, BalloonQueue, QueueNumbering, queue_numbers
from spec.device import DeviceStatus
from spec.layout import dtype_of
from vdev.check.driver.observation import Rested
from vdev.check.driver.raw_chain import RawChain
from vdev.check.driver.rule import Rule
from vdev.check.evidence import Shown
from vdev.check.verdict import Failed
from vdev.errors import GuestAddressError
from vdev.memory import GuestMemory

__all__ = ["BalloonRule", "DueRule", "readable_bytes"]

_FRAME = dtype_of(PAGE_FRAME_NUMBER)

FRAMES_STATEMENT = "balloon.driver.described.page-numbers"


class DueRule(Rule):
    """A rule about what a driver has to do, which is looked at when it rests."""

    def due(self, is_done: bool, statement: str, seen: Rested, *, expected: str, observed: str) -> None:
        """Say that something was done by the time the driver rests, or was not.

        Where that it rests is only concluded from its silence, it may be slow: that is HUNG.
        """
        if is_done or seen.is_certain:
            self.expect(is_done, statement, expected=expected, observed=observed)
        else:
            self.hung(f"expected {expected}; {observed}, and nothing came any more")

    @property
    def is_working(self) -> bool:
        """Whether the device is in use, and neither side has given it up."""
        broken = DeviceStatus.DEVICE_NEEDS_RESET | DeviceStatus.FAILED
        return self.picture.is_live and not self.picture.status & broken


class BalloonRule(DueRule):
    """A rule for balloon drivers."""

    def role(self, number: int) -> BalloonQueue | None:
        """Return which queue has this number, as the driver counts: by the text, or without gaps (see errata)."""
        features = self.picture.features or 0
        for numbering in (QueueNumbering.COMPACT, QueueNumbering.FIXED):
            roles = {at: role for role, at in queue_numbers(features, numbering).items()}
            if self.picture.queues.keys() <= roles.keys():
                return roles.get(number)
        return None

    def is_of(self, number: int, *roles: BalloonQueue) -> bool:
        """Say whether queue `number` has one of these roles."""
        return self.role(number) in roles

    def pages(self, chain: RawChain) -> npt.NDArray[np.uint64]:
        """Return the addresses of the pages that an inflate or deflate buffer names.

        Raises Failed for a buffer that the driver lets the device write, or that is not an array of page numbers.
        """
        data = self.readable(chain, FRAMES_STATEMENT, "page numbers")
        if len(data) % _FRAME.itemsize:
            self.broken(
                FRAMES_STATEMENT,
                f"a whole number of page numbers of {_FRAME.itemsize} bytes",
                f"a buffer of {len(data)} bytes",
                chain.show(),
            )
        return np.frombuffer(data, _FRAME)["pfn"].astype(np.uint64) * np.uint64(PAGE_FRAME_SIZE)

    def readable(self, chain: RawChain, statement: str, what: str) -> bytes:
        """Return what stands in a buffer that must be device-readable. Raises Failed."""
        if any(segment.is_writable for segment in chain.segments):
            self.broken(statement, f"{what} in a device-readable buffer", "a device-writable buffer", chain.show())
        try:
            return readable_bytes(self.picture.memory, chain)
        except GuestAddressError as error:
            self.broken(statement, f"{what} in guest RAM", str(error), chain.show())

    def broken(self, statement: str, expected: str, observed: str, shown: Sequence[Shown] = ()) -> NoReturn:
        """Raise Failed."""
        self.is_exercised = True
        raise Failed(statement, expected=expected, observed=observed, shown=tuple(shown))


def readable_bytes(memory: GuestMemory, chain: RawChain) -> bytes:
    """Return what stands in the device-readable part of a chain. Raises GuestAddressError."""
    return b"".join(memory.read(each.address, each.size) for each in chain.segments if not each.is_writable)
