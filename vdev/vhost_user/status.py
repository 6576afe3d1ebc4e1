"""The device status as GET_STATUS and SET_STATUS have it."""

from typing import Any

from spec.device import DeviceStatus
from spec.vhost_user import U64
from vdev.device import Device
from vdev.errors import FrontEndViolation
from vdev.vhost_user.framing import Message

__all__ = ["Status"]


class Status:
    """What the front end wrote, less FEATURES_OK while `device` has not agreed, and with DEVICE_NEEDS_RESET if it has.

    The messages decide nothing: QEMU never sends DRIVER_OK, and it writes 0 when the guest is merely paused.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self.written = 0

    def get(self, _: Any, __: Message) -> bytes:
        """GET_STATUS."""
        status = self.written | (self._device.status & DeviceStatus.DEVICE_NEEDS_RESET)
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
