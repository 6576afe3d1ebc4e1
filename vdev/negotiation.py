"""How a driver brings a device up: what each status bit may follow, and which features may be accepted together.

The tables here are the whole of it; `vdev.device.Device` carries their answers out.
"""

from typing import NamedTuple

from spec.device import FEATURE_REQUIRES, DeviceStatus, Feature, feature_mask
from vdev.errors import DriverViolation

__all__ = ["STATUS_STEPS", "StatusStep", "cleared_bits_violation", "feature_violation", "step_violation"]


class StatusStep(NamedTuple):
    """The driver may set `bit` once all of `after` is set."""

    bit: DeviceStatus
    after: DeviceStatus


STATUS_STEPS: tuple[StatusStep, ...] = (
    StatusStep(DeviceStatus.ACKNOWLEDGE, DeviceStatus.RESET),
    StatusStep(DeviceStatus.DRIVER, DeviceStatus.ACKNOWLEDGE),
    StatusStep(DeviceStatus.FEATURES_OK, DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER),
    StatusStep(DeviceStatus.DRIVER_OK, DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER | DeviceStatus.FEATURES_OK),
    StatusStep(DeviceStatus.FAILED, DeviceStatus.RESET),
)
"""In the order of "Device Initialization"; one write may take several steps. Writing 0 resets, whatever is set."""

_DRIVER_BITS = DeviceStatus(sum(step.bit for step in STATUS_STEPS))


def step_violation(status: DeviceStatus, step: StatusStep) -> DriverViolation | None:
    """Return what is wrong with taking `step` while `status` is set, None if nothing is."""
    missing = step.after & ~status
    if not missing:
        return None
    return DriverViolation(
        "General Initialization And Device Operation / Device Initialization",
        f"{step.bit.name} was set before {missing.name}",
    )


def cleared_bits_violation(status: DeviceStatus, value: int) -> DriverViolation | None:
    """Return what is wrong with writing `value` (not 0) over `status` apart from the steps, None if nothing is.

    DEVICE_NEEDS_RESET is the device's: the driver may write it back or, not knowing of it yet, leave it out.
    """
    clause = "Basic Facilities of a Virtio Device / Device Status Field"
    cleared = status & ~DeviceStatus.DEVICE_NEEDS_RESET & ~value
    if cleared:
        return DriverViolation(clause, f"status bits {int(cleared):#x} were cleared by writing {value:#x}")
    unknown = value & ~int(_DRIVER_BITS | (status & DeviceStatus.DEVICE_NEEDS_RESET))
    if unknown:
        return DriverViolation(clause, f"status bits {unknown:#x} are not the driver's to set here")
    return None


def feature_violation(offered: int, accepted: int) -> DriverViolation | None:
    """Return why a device that offers `offered` must refuse `accepted` (masks of bits), None if it need not."""
    clause = "Basic Facilities of a Virtio Device / Feature Bits"
    if unoffered := accepted & ~offered:
        return DriverViolation(clause, f"features {_names(unoffered)} were accepted but not offered")
    for bit, required in FEATURE_REQUIRES.items():
        missing = feature_mask(*required) & ~accepted
        if accepted >> bit & 1 and missing:
            return DriverViolation(clause, f"feature {_names(1 << bit)} was accepted without {_names(missing)}")
    if offered >> Feature.VERSION_1 & 1 and not accepted >> Feature.VERSION_1 & 1:
        return DriverViolation(
            "Reserved Feature Bits / Driver Requirements", "VERSION_1 was not accepted: the device has no legacy side"
        )
    return None


def _names(mask: int) -> str:
    known = {feature.value: feature.name for feature in Feature}
    bits = [bit for bit in range(mask.bit_length()) if mask >> bit & 1]
    return ", ".join(f"{known[bit]} ({bit})" if bit in known else str(bit) for bit in bits)
