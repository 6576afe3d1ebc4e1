"""The device status as GET_STATUS and SET_STATUS have it."""

from typing import Any

from spec.device import DeviceStatus
from spec.vhost_user import U64
from vdev.device import Device
from vdev.errors import DriverViolation, FrontEndViolation
from vdev.vhost_user.framing import Message

__all__ = ["Status"]


class Status:
    """What the front end wrote, less FEATURES_OK while `device` has not agreed, and with DEVICE_NEEDS_RESET if it has.

    The messages decide nothing: QEMU never sends DRIVER_OK, and it writes 0 when the guest is merely paused. But a 0
    while no ring is in use is a reset as far as can be seen: a broken device, which begins anew with the next ring, has
    left its violation behind.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self.written = 0
        self._over: DriverViolation | None = None
        """A violation that was there when the front end wrote 0."""

    def get(self, _: Any, __: Message) -> bytes:
        """GET_STATUS."""
        status = self.written
        if self._over is None or self._over is not self._device.violation:
            status |= self._device.status & DeviceStatus.DEVICE_NEEDS_RESET
        answer: bytes = U64.build({"value": int(status)})
        return answer

    def set(self, payload: Any, _: Message) -> None:
        """SET_STATUS. Raises FrontEndViolation for more than eight bits."""
        if payload.value > 0xFF:
            raise FrontEndViolation("Front-end message types", f"a status of {payload.value:#x}")
        refused = DeviceStatus.DEVICE_NEEDS_RESET
        if not self._device.status & DeviceStatus.FEATURES_OK:
            refused |= DeviceStatus.FEATURES_OK
        self.written = payload.value & ~int(refused)
        if not payload.value and not self._device.queues:
            self._over = self._device.violation
