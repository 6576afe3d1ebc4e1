"""A doorbell between tasks of one Trio loop."""

import trio

__all__ = ["LoopDoorbell"]


class LoopDoorbell:
    """Counts rings and wakes the waiting task; plain Trio, no file descriptor."""

    def __init__(self) -> None:
        self._count = 0
        self._rung = trio.Event()

    def ring(self) -> None:
        """Add one."""
        self._count += 1
        self._rung.set()

    def take(self) -> int:
        """Return the rings since the last take."""
        count, self._count = self._count, 0
        self._rung = trio.Event()
        return count

    async def wait_rung(self) -> int:
        """Wait for a ring, then take."""
        await self._rung.wait()
        return self.take()

    def close(self) -> None:
        """Nothing to give up."""
