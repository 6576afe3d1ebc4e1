"""Register writes that ring a doorbell instead of stopping the vCPU, as KVM's ioeventfds do."""

from collections.abc import Mapping
from typing import NamedTuple

from vdev.events import SILENT, Emitter, Kick
from vdev.notify.doorbell import Doorbell

__all__ = ["IoEventfdMatch", "IoEventfds"]


class IoEventfdMatch(NamedTuple):
    """A write to the register at `address` of a value that is `value` in the bits of `mask`.

    All matches at one address have one mask.
    """

    address: int
    value: int
    mask: int = 0xFFFF_FFFF


class IoEventfds:
    """Maps writes of QueueNotify registers to doorbells; signs kicks as the vCPU.

    Raises ValueError for matches at one address with different masks.
    """

    def __init__(self, doorbells: Mapping[IoEventfdMatch, Doorbell], events: Emitter = SILENT) -> None:
        self._masks = {match.address: match.mask for match in doorbells}
        if any(self._masks[match.address] != match.mask for match in doorbells):
            raise ValueError("ioeventfds at one address differ in their mask")
        self._doorbells = {(match.address, match.value): doorbell for match, doorbell in doorbells.items()}
        self._events = events
        self._kick_counts: dict[tuple[int, int], int] = {}

    def ring(self, address: int, value: int) -> bool:
        """Ring the doorbell that stands for this write; say whether there is one."""
        value &= self._masks.get(address, 0)
        doorbell = self._doorbells.get((address, value))
        if doorbell is None:
            return False
        if self._events.listening:
            number = self._kick_counts[address, value] = self._kick_counts.get((address, value), 0) + 1
            self._events.emit(Kick(value, number))
        doorbell.ring()
        return True
