"""The machines at both ends, as the migrator needs them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from vdev.memory import GuestMemory

__all__ = ["DestinationMachine", "SourceMachine", "StreamHeader"]


class SourceMachine(Protocol):
    """The guest and its devices, as the source needs them."""

    @property
    def memory(self) -> GuestMemory:
        """Guest RAM."""
        ...

    def guest_config(self) -> dict[str, Any]:
        """Return what the destination needs to build the same machine (JSON-ready)."""
        ...

    async def pause(self) -> bytes:
        """Stop the vCPU and the devices, so that nobody writes guest RAM any more; return the vCPU's state.

        If it raises or is cancelled, the guest goes on.
        """
        ...

    async def resume(self) -> None:
        """Let the guest and the devices go on where `pause` stopped them."""
        ...

    def save_devices(self) -> Sequence[tuple[str, bytes]]:
        """Return each device's name and state, while paused."""
        ...


@dataclass(frozen=True)
class StreamHeader:
    """What the source says first: which migration, guest RAM as (address, size) pairs, what starts the guest."""

    migration_id: UUID
    regions: tuple[tuple[int, int], ...]
    config: dict[str, Any]


class DestinationMachine(Protocol):
    """The machine that the guest moves into, as the destination needs it."""

    @property
    def memory(self) -> GuestMemory:
        """Fresh guest RAM, all zero, with the regions of the stream's header."""
        ...

    async def restore_devices(self, states: Sequence[tuple[str, bytes]]) -> None:
        """Give each device its state; raises a VdevError for one that makes no sense."""
        ...

    async def load_vcpu(self, state: bytes) -> None:
        """Have the guest stand ready with its vCPU's state, halted."""
        ...

    async def run(self) -> None:
        """Let the guest go."""
        ...

    async def verify(self) -> dict[str, Any]:
        """Have the guest check all that it relies on; return its verdict (JSON-ready)."""
        ...

    async def discard(self) -> None:
        """Give all up; the guest never ran."""
        ...
