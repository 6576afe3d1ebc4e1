"""What the judging device asks of a driver that does nothing by itself, so that a game has something to be about."""

from random import Random
from typing import Protocol

from vdev.device import Device
from vdev.devices.balloon import BalloonDevice, HintState

__all__ = ["Stirrer", "stirrer_of"]

_PAGE_SIZE = 4096
_LARGEST = 8
"""The balloon is at most one part of so many of guest RAM."""
_HINTS_EVERY = 8
"""So many turns pass between two requests for hints."""


class Stirrer(Protocol):
    """Asks for something, if the driver has done what was asked before."""

    def turn(self) -> None:
        """Ask."""
        ...


class _Nothing:
    def turn(self) -> None:
        """The guest uses the device by itself."""


class _Balloon:
    """Has a balloon grow and shrink, asks for statistics and for hints."""

    def __init__(self, device: BalloonDevice, random: Random) -> None:
        self._device = device
        self._random = random
        self._turns = 0

    def turn(self) -> None:
        """Ask for what there is no answer owed to."""
        device = self._device
        if not device.running:
            return
        self._turns += 1
        if device.actual == device.config["num_pages"]:
            pages = device.memory.size // _PAGE_SIZE // _LARGEST
            device.set_target(
                self._random.choice((0, 1, self._random.randrange(2, 300), self._random.randrange(pages)))
            )
        device.request_statistics()
        if self._turns % _HINTS_EVERY == 0:
            if device.hinting.state is HintState.STOP and self._turns // _HINTS_EVERY % 2:
                device.hinting.done()
            elif device.hinting.state in (HintState.STOP, HintState.DONE):
                device.hinting.request()


def stirrer_of(device: Device, random: Random) -> Stirrer:
    """Return what keeps the driver of `device` at work."""
    return _Balloon(device, random) if isinstance(device, BalloonDevice) else _Nothing()
