"""Tsirkin's second: a lock, and after each sync everything unread is thrown away."""

from typing import ClassVar

from host_migrator.strategies.asking import Asking

__all__ = ["FlushAfterSync"]


class FlushAfterSync(Asking):
    """Handler: pop, filter and push under a lock. Sync: under the same lock merge, then pop and push all unread.

    A hint that was in the queue during a sync is never applied; the guest is asked again. It costs the hints that the
    flush throws away. One that was collected before the sync and is queued after it is not seen by the flush.

    After the last sync nothing is flushed, for the device writes nothing into guest RAM any more; what is
    unread goes back unapplied where the guest goes on.
    """

    name: ClassVar[str] = "flush-after-sync"
    asks_again: ClassVar[bool] = True

    def after_sync(self, running: bool) -> None:
        """Throw away what was queued before the sync, and ask again."""
        if running:
            self._hinting.flush()
        super().after_sync(running)
