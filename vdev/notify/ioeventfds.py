"""Register writes that ring a doorbell instead of stopping the vCPU, as KVM's ioeventfds do."""

from collections.abc import Mapping

from vdev.events import SILENT, Emitter, Kick
from vdev.notify.doorbell import Doorbell

__all__ = ["IoEventfds"]


class IoEventfds:
    """Maps (address of a QueueNotify register, value written) to a doorbell; signs kicks as the vCPU."""

    def __init__(self, doorbells: Mapping[tuple[int, int], Doorbell], events: Emitter = SILENT) -> None:
        self._doorbells = dict(doorbells)
        self._events = events
        self._kick_counts: dict[tuple[int, int], int] = {}

    def ring(self, address: int, value: int) -> bool:
        """Ring the doorbell that stands for this write; say whether there is one."""
        doorbell = self._doorbells.get((address, value))
        if doorbell is None:
            return False
        if self._events.listening:
            number = self._kick_counts[address, value] = self._kick_counts.get((address, value), 0) + 1
            self._events.emit(Kick(value, number))
        doorbell.ring()
        return True
