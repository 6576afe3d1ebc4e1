"""What the host can do with a vCPU, wherever it runs."""

from collections.abc import Mapping
from typing import Any, Protocol

from vdev.errors import VdevError

__all__ = ["GuestDied", "GuestFault", "GuestNotResponding", "Vcpu"]


class GuestDied(VdevError):
    """The vCPU is gone: its process ended or was killed. The message says how."""


class GuestFault(GuestDied):
    """The guest itself found that it cannot go on; the message is its own last line."""


class GuestNotResponding(VdevError):
    """The guest lives, but did not do in time what it was asked; it goes on if it ever answers."""


class Vcpu(Protocol):
    """A vCPU that halts only between two operations of its guest.

    It starts halted. Every call raises GuestDied once the guest is gone; those that wait may raise GuestNotResponding.
    """

    async def boot(self, config: Mapping[str, Any]) -> None:
        """Start the guest from nothing; return when it is halted before its first operation."""
        ...

    async def restore(self, state: bytes) -> None:
        """Start the guest from its RAM and `state`; return when it is halted before its next operation."""
        ...

    async def pause(self) -> bytes:
        """Halt the guest and return its vCPU state; a halted one just returns it.

        If this raises or is cancelled, the guest goes on.
        """
        ...

    def run(self) -> None:
        """Let a halted guest go on."""
        ...

    async def verify(self) -> dict[str, Any]:
        """Let the guest check all it relies on, and return its verdict; it must be halted, and stays so."""
        ...

    async def wait_ended(self) -> None:
        """Wait until the guest is gone."""
        ...

    async def end(self) -> None:
        """End the guest, halted or not; returns when it is gone. A second call does nothing."""
        ...
