"""Which driver drives which device type. A new driver is entered here, and nowhere else."""

from guest_agent.drivers.balloon.kind import BALLOON
from guest_agent.drivers.block.kind import BLOCK
from guest_agent.drivers.driver import DriverKind
from guest_agent.drivers.entropy import ENTROPY
from spec.device import DeviceId

__all__ = ["DRIVERS"]

DRIVERS: dict[int, DriverKind] = {
    DeviceId.BALLOON: BALLOON,
    DeviceId.BLOCK: BLOCK,
    DeviceId.ENTROPY: ENTROPY,
}
"""Virtio device id -> driver. A device of another type is left alone, as any system leaves it."""
