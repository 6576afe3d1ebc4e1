"""The device status: which bits a driver sets, and when ("Device Status Field", "Device Initialization")."""

from spec.device import DeviceStatus, Feature
from spec.mmio import Register
from vdev.check.driver.observation import RegisterAccess, StatusWritten
from vdev.check.driver.picture import Picture
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
                    (seen.before | seen.value) & before == before,
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


@rule(
    "status.reset-after-failed",
    covers=["status.driver.3"],
    awaits="set FAILED and began anew",
    carriers=_MMIO,
)
class ResetAfterFailed(Rule):
    """A driver that has set FAILED resets the device before it begins anew."""

    def __init__(self, picture: Picture) -> None:
        super().__init__(picture)
        self._has_failed = False

    @sees(StatusWritten)
    def written(self, seen: StatusWritten) -> None:
        """Look what comes after FAILED."""
        if seen.value == 0:
            self.is_exercised |= self._has_failed
            self._has_failed = False
            return
        if seen.before & DeviceStatus.FAILED:
            new = seen.value & ~seen.before & sum(_ORDER)
            self.expect(
                not new,
                "status.driver.3",
                expected="0 as the next status written after FAILED",
                observed=f"{_names(seen.value)} was written over {_names(seen.before)}",
            )
        self._has_failed |= bool(seen.value & DeviceStatus.FAILED)


@rule(
    "status.reset-is-read-back",
    covers=["reset.driver.1"],
    awaits="reset the device and went on with it",
    carriers=_MMIO,
)
class ResetIsReadBack(Rule):
    """After a reset the driver goes on when it has read the status as 0, and not before."""

    def __init__(self, picture: Picture) -> None:
        super().__init__(picture)
        self._is_awaited = False

    @sees(RegisterAccess)
    def access(self, seen: RegisterAccess) -> None:
        """Look at what follows a 0 written to the status."""
        if seen.offset == Register.STATUS:
            if seen.is_write and seen.value == 0:
                self._is_awaited = True
            elif not seen.is_write and seen.value == 0:
                self.is_exercised |= self._is_awaited
                self._is_awaited = False
            elif seen.is_write and seen.value & (DeviceStatus.FAILED | DeviceStatus.DRIVER_OK) == DeviceStatus.FAILED:
                return
        if self._is_awaited and seen.is_write and not (seen.offset == Register.STATUS and seen.value == 0):
            self.expect(
                False,
                "reset.driver.1",
                expected="the status read as 0 before anything is written to the device that was reset",
                observed=f"{seen.value:#x} was written at {seen.offset:#x}",
            )


@rule("status.no-suspend", covers=["suspend.driver.1"], awaits="wrote the device status", carriers=_MMIO)
class NoSuspend(Rule):
    """SUSPEND is not set where the feature was not agreed, nor before DRIVER_OK."""

    @sees(StatusWritten)
    def written(self, seen: StatusWritten) -> None:
        """Look at the bit."""
        may = self.picture.has(Feature.SUSPEND) and bool(seen.before & DeviceStatus.DRIVER_OK)
        self.expect(
            may or not seen.value & DeviceStatus.SUSPEND,
            "suspend.driver.1",
            expected="a status without SUSPEND",
            observed=f"{_names(seen.value)} was written",
        )
