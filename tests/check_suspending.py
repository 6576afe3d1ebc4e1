"""A balloon that can be suspended, which no device of vdev can be: the checks of SUSPEND are shown with it."""

from spec.device import DeviceStatus, Feature, feature_mask
from vdev.devices.balloon import BalloonDevice


class SuspendingBalloon(BalloonDevice):
    """While it is suspended DRIVER_OK is clear, so its queues are left alone as before DRIVER_OK."""

    def __init__(self, memory, **options):
        super().__init__(memory, **options)
        self.offered_features |= feature_mask(Feature.SUSPEND)
        self.owes_announcement = False

    @property
    def is_suspended(self):
        return bool(self.status & DeviceStatus.SUSPEND)

    def write_status(self, value):
        if value and self.is_suspended:
            if value & DeviceStatus.DRIVER_OK:
                self.resume()
        elif value & DeviceStatus.SUSPEND and self.running:
            self.suspend()
        else:
            super().write_status(value & ~DeviceStatus.SUSPEND)

    def suspend(self):
        self._set_status(self.status & ~DeviceStatus.DRIVER_OK | DeviceStatus.SUSPEND)

    def resume(self):
        self._set_status(self.status & ~DeviceStatus.SUSPEND | DeviceStatus.DRIVER_OK)
        if self.owes_announcement:
            self.owes_announcement = False
            self._notify_config_change()
        self.handle_all_queues()

    def write_config(self, offset, size, value):
        if not self.is_suspended:
            super().write_config(offset, size, value)

    def _notify_config_change(self):
        if self.is_suspended:
            self.owes_announcement = True
        else:
            super()._notify_config_change()
