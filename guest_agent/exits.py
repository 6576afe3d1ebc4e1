"""How the vCPU reaches the host: register accesses that leave the guest."""

from typing import Protocol

__all__ = ["Exits"]


class Exits(Protocol):
    """A register access, by guest-physical address. Each returns when the host has handled it."""

    def read(self, address: int, size: int) -> int:
        """Return the register's value; `size` is 1, 2 or 4 bytes."""
        ...

    def write(self, address: int, size: int, value: int) -> None:
        """Write the register; `size` is 1, 2 or 4 bytes. Where an ioeventfd listens, nobody stops for it."""
        ...
