"""Mutants for the checks of SUSPEND: a balloon that can be suspended, with one fault."""

from check_session_faults import mutant
from check_suspending import SuspendingBalloon

from spec.device import DeviceStatus
from spec.mmio import Interrupt
from vdev.devices.balloon import BalloonDevice


class SuspendsEarly(SuspendingBalloon):
    def write_status(self, value):
        if value & DeviceStatus.SUSPEND and not self.is_suspended and not self.status & DeviceStatus.DRIVER_OK:
            self.status |= DeviceStatus.SUSPEND
        else:
            super().write_status(value)


class IgnoresSuspend(SuspendingBalloon):
    def suspend(self):
        """Go on as before."""


class ServesSuspended(SuspendingBalloon):
    @property
    def running(self):
        return super().running or self.is_suspended


class NeverResumes(SuspendingBalloon):
    def resume(self):
        """Stay suspended."""


class TakesConfiguration(SuspendingBalloon):
    def write_config(self, offset, size, value):
        BalloonDevice.write_config(self, offset, size, value)


class AnnouncesAtOnce(SuspendingBalloon):
    def _notify_config_change(self):
        self.interrupt_status |= Interrupt.CONFIGURATION_CHANGE
        self.announce_config()


class ForgetsChanges(SuspendingBalloon):
    def resume(self):
        self.owes_announcement = False
        super().resume()


class KeepsDriverOk(SuspendingBalloon):
    """Shows SUSPEND and DRIVER_OK both."""

    @property
    def running(self):
        return super().running and not self.is_suspended

    def suspend(self):
        self.status |= DeviceStatus.SUSPEND


MUTANTS = [
    mutant("suspends early", "balloon", {"suspend.ignored-before-driver-ok"}, make=SuspendsEarly),
    mutant("ignores SUSPEND", "balloon", {"suspend.suspends"}, also={"suspend.*"}, make=IgnoresSuspend),
    mutant("serves while it is suspended", "balloon", {"suspend.queues-are-left-alone"}, make=ServesSuspended),
    mutant("never resumes", "balloon", {"suspend.resumes"}, also={"suspend.announces-changes-late"}, make=NeverResumes),
    mutant(
        "takes configuration while it is suspended",
        "balloon",
        {"suspend.takes-no-configuration"},
        make=TakesConfiguration,
    ),
    mutant("announces while it is suspended", "balloon", {"suspend.announces-changes-late"}, make=AnnouncesAtOnce),
    mutant("forgets changes", "balloon", {"suspend.announces-changes-late"}, make=ForgetsChanges),
    mutant("keeps DRIVER_OK", "balloon", {"suspend.everything-taken-is-used"}, also={"suspend.*"}, make=KeepsDriverOk),
]
