"""Whether and where the device's writes are logged: SET_LOG_BASE, SET_LOG_FD and LOG_ALL."""

from collections.abc import Callable, Iterable
from typing import Any

from spec.split_ring import used_ring_size
from spec.vhost_user import U64
from vdev.memory import GuestMemory
from vdev.memory.atomic import atomic_or
from vdev.vhost_user.dirty_bitmap import DirtyBitmap, UsedRingAlias
from vdev.vhost_user.framing import Message
from vdev.vhost_user.vring import Vring

__all__ = ["WriteLog"]


class WriteLog:
    """The dirty log of one session: writes to `memory` are logged while there is a log and it is switched on.

    `rings` gives the rings, whose set-up says where their used areas are logged.
    """

    is_possible = atomic_or is not None
    """Whether this machine can set single bits in memory that the front end clears."""

    def __init__(self, memory: GuestMemory, rings: Callable[[], Iterable[Vring]]) -> None:
        self._memory = memory
        self._rings = rings
        self._before = memory.page_marks
        self._bitmap: DirtyBitmap | None = None
        self._is_on = False

    def set_base(self, payload: Any, message: Message) -> bytes:
        """SET_LOG_BASE: log here from now on. Raises FrontEndViolation, and logs where it did before."""
        [fd] = message.take_fds()
        bitmap = DirtyBitmap(self._memory, fd, payload.size, payload.offset, self._before)
        try:
            bitmap.check_covers(self._end)
        except BaseException:
            bitmap.close()
            raise
        before, self._bitmap = self._bitmap, bitmap
        self.refresh()
        if before is not None:
            before.close()
        answer: bytes = U64.build({"value": 0})
        return answer

    def set_event(self, _: Any, message: Message) -> None:
        """SET_LOG_FD: the text lets a back end tell of changes with it, or not. Front ends look by themselves."""

    def switch(self, is_on: bool) -> None:
        """Log, or do not, as LOG_ALL says. Raises FrontEndViolation if there is RAM beyond the log."""
        if is_on and self._bitmap is not None:
            self._bitmap.check_covers(self._end)
        self._is_on = is_on
        self.refresh()

    def refresh(self) -> None:
        """The rings' set-up has changed."""
        if self._bitmap is None or not self._is_on:
            self._memory.page_marks = self._before
            return
        self._memory.page_marks = self._bitmap
        self._bitmap.aliases = [
            UsedRingAlias(ring.addresses.device, used_ring_size(ring.size), ring.addresses.log)
            for ring in self._rings()
            if ring.addresses is not None and ring.addresses.log not in (None, ring.addresses.device)
        ]

    def check_memory(self, end: int) -> None:
        """Raise FrontEndViolation if RAM up to guest-physical address `end` would be beyond the log."""
        if self._bitmap is not None and self._is_on:
            self._bitmap.check_covers(end)

    @property
    def _end(self) -> int:
        return max((region.end for region in self._memory.regions), default=0)

    def close(self) -> None:
        """Log nothing, and close what the front end sent."""
        self._is_on = False
        self.refresh()
        if self._bitmap is not None:
            self._bitmap.close()
            self._bitmap = None
