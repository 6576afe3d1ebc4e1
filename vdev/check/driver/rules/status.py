"""The device status: which bits a driver sets, and when ("Device Status Field", "Device Initialization")."""

from spec.device import DeviceStatus
from vdev.check.driver.observation import StatusWritten
from vdev.check.driver.rule import Rule, rule, sees
from vdev.devices.kind import Carrier

__all__: list[str] = []

_MMIO = (Carrier.MMIO,)
_ORDER = (DeviceStatus.ACKNOWLEDGE, DeviceStatus.DRIVER, DeviceStatus.FEATURES_OK, DeviceStatus.DRIVER_OK)


def _names(status: int) -> str:
    names = [bit.name or "" for bit in DeviceStatus if bit and status & bit]
    return f"{status:#x} ({', '.join(names)})" if names else f"{status:#x}"


@rule("status.steps", covers=["status.driver.1"], awaits="wrote the device status", carriers=_MMIO)
class Steps(Rule):
    """Each status bit is set when the steps before it are done, and none is left out."""

    @sees(StatusWritten)
    def written(self, seen: StatusWritten) -> None:
        """Look at the new bits."""
        new = seen.value & ~seen.before
        for place, bit in enumerate(_ORDER):
            if new & bit:
                before = sum(_ORDER[:place])
                self.expect(
                    seen.value & before == before,
                    "status.driver.1",
                    expected=f"{bit.name} after {_names(before)}",
                    observed=f"{_names(seen.value)} was written over {_names(seen.before)}",
                )


@rule("status.no-bit-cleared", covers=["status.driver.2"], awaits="wrote the device status", carriers=_MMIO)
class NoBitCleared(Rule):
    """A status bit that is set stays set until the device is reset."""

    @sees(StatusWritten)
    def written(self, seen: StatusWritten) -> None:
        """Look for bits that went away."""
        if seen.value == 0:
            return
        # The device sets this one at any time: the driver may not know of it yet.
        cleared = seen.before & ~DeviceStatus.DEVICE_NEEDS_RESET & ~seen.value
        self.expect(
            not cleared,
            "status.driver.2",
            expected=f"all of {_names(seen.before)} in what is written, or 0",
            observed=f"{_names(seen.value)} was written",
        )
