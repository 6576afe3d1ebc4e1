"""Requests of each device type that a check can send without harm, and how often it likes."""

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from vdev.check.bench.request import Request
from vdev.errors import UserError

if TYPE_CHECKING:
    from vdev.check.bench.bench import Bench

__all__ = ["TRAFFIC_NAMES", "Traffic", "traffic"]


class Traffic(Protocol):
    """What a bench must know of a device type. An instance is one case's: it may keep notes of what it sent."""

    name: str
    device_id: int
    """The virtio device id, 0 for a type that is not known."""
    queue: int
    """The number of the queue that `plain` requests go to."""
    needs: tuple[int, ...]
    """Feature bits without which there is no plain request; they are negotiated in every case."""

    def queues(self, bench: "Bench") -> Mapping[int, int]:
        """Return the queues that the device needs to work, and the size wanted for each."""
        ...

    def prepare(self, bench: "Bench") -> None:
        """Do what the type wants to have done once after DRIVER_OK."""
        ...

    def plain(self, bench: "Bench", size: int | None = None) -> Request:
        """Return a request that does no harm and can be repeated for ever.

        `size` is how many device-writable bytes of payload it asks for, where the type leaves a choice. Raises
        Inconclusive for a type of which no request is known.
        """
        ...


_TYPES = {
    "entropy": ("traffic_entropy", "EntropyTraffic"),
    "block": ("traffic_block", "BlockTraffic"),
    "balloon": ("traffic_balloon", "BalloonTraffic"),
    "net": ("traffic_net", "NetTraffic"),
    "fs": ("traffic_fs", "FsTraffic"),
    "generic": ("traffic_generic", "GenericTraffic"),
}

TRAFFIC_NAMES = tuple(_TYPES)
"""The device types that there is a bench for."""


def traffic(name: str) -> Traffic:
    """Return the traffic of a device type, new for one case. Raises UserError that lists the names there are."""
    if name not in _TYPES:
        raise UserError(f"there is no device type {name!r}; choose one of {', '.join(_TYPES)}")
    module, kind = _TYPES[name]
    made: Traffic = getattr(importlib.import_module(f"vdev.check.bench.{module}"), kind)()
    return made
