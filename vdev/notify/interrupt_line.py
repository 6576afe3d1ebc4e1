"""The line on which a machine's devices interrupt its vCPU."""

from vdev.events import SILENT, Call, Emitter
from vdev.notify.doorbell import Doorbell

__all__ = ["InterruptLine"]


class InterruptLine:
    """Called by a device: rings `doorbell` (an irqfd between processes) and counts."""

    def __init__(self, doorbell: Doorbell, events: Emitter = SILENT) -> None:
        self._doorbell = doorbell
        self._events = events
        self._count = 0

    def __call__(self) -> None:
        """Interrupt the vCPU; never waits."""
        self._count += 1
        if self._events.listening:
            self._events.emit(Call("machine", self._count))
        self._doorbell.ring()
