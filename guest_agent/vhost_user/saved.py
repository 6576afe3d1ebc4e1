"""What a front end knows of its back end beside guest RAM: plain JSON, so that it travels in a vCPU state."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from guest_agent.virtqueue.queue import DriverAddresses
from spec.device import DeviceStatus
from vdev.errors import VdevError

__all__ = ["SavedRing", "SavedTransport", "SavedTransportBroken"]

_NUMBER_LIMIT = 1 << 64


class SavedTransportBroken(VdevError):
    """What should be a saved front end is not one; the message says in what."""


@dataclass(frozen=True)
class SavedRing:
    """One ring: where it lies, and the base from which a back end goes on (the number that GET_VRING_BASE gives)."""

    number: int
    addresses: DriverAddresses
    base: int


@dataclass(frozen=True)
class SavedTransport:
    """A front end whose rings are stopped.

    `features` is the mask that the driver accepted, `status` the device status it wrote, `lost` says why the back end
    was given up, None if it was not.
    """

    device_id: int
    features: int
    status: int
    rings: tuple[SavedRing, ...]
    lost: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        rings = [{"number": ring.number, "base": ring.base, **ring.addresses._asdict()} for ring in self.rings]
        return {**asdict(self), "rings": rings}

    @classmethod
    def from_json(cls, mapping: Mapping[str, Any]) -> "SavedTransport":
        """Return what `to_json` gave. Raises SavedTransportBroken for anything else."""
        try:
            rings = tuple(
                SavedRing(
                    _number(ring, "number", 1 << 16),
                    DriverAddresses(*(_number(ring, name) for name in DriverAddresses._fields)),
                    _number(ring, "base", 1 << 32),
                )
                for ring in mapping["rings"]
            )
            lost = mapping["lost"]
            if lost is not None and not isinstance(lost, str):
                raise SavedTransportBroken(f"a saved front end has lost = {lost!r}")
            return cls(
                _number(mapping, "device_id", 1 << 32),
                _number(mapping, "features"),
                _number(mapping, "status", sum(DeviceStatus) + 1),
                rings,
                lost,
            )
        except (KeyError, TypeError) as error:
            raise SavedTransportBroken(f"a saved front end lacks {error}") from None


def _number(mapping: Mapping[str, Any], name: str, limit: int = _NUMBER_LIMIT) -> int:
    value = mapping[name]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < limit:
        raise SavedTransportBroken(f"a saved front end has {name} = {value!r}")
    return value
