"""What a doorbell promises, whatever it is made of."""

from typing import Protocol

__all__ = ["Doorbell"]


class Doorbell(Protocol):
    """A counter that one side adds to and the other side waits on.

    Rings fold: several before a look are seen as one wake-up with their number. No ring is lost.
    """

    def ring(self) -> None:
        """Add one; never waits."""
        ...

    def take(self) -> int:
        """Return the number of rings since the last take, 0 if none; never waits."""
        ...

    async def wait_rung(self) -> int:
        """Wait for at least one ring, take, and return the number."""
        ...

    def close(self) -> None:
        """Give up what the operating system lent."""
        ...
