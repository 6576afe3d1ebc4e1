"""Where each device's registers lie in guest-physical address space."""

from collections.abc import Sequence

from spec.mmio import DEVICE_WINDOW_SIZE
from vdev.mmio import MmioRegisters

__all__ = ["MMIO_BASE", "MmioBus"]

MMIO_BASE = 0xFEB0_0000
"""The first device's window; RAM leaves 3 GiB to 4 GiB free for it, as on a PC."""


class MmioBus:
    """Windows of DEVICE_WINDOW_SIZE bytes, one register file each, from `base` on."""

    def __init__(self, registers: Sequence[MmioRegisters], base: int = MMIO_BASE) -> None:
        self.base = base
        self._registers = tuple(registers)

    @property
    def addresses(self) -> list[int]:
        """The base address of each device's window."""
        return [self.base + index * DEVICE_WINDOW_SIZE for index in range(len(self._registers))]

    def read(self, address: int, size: int) -> int:
        """Read a register; where no device answers, all bits are one, as on an empty bus."""
        index, offset = divmod(address - self.base, DEVICE_WINDOW_SIZE)
        if 0 <= index < len(self._registers):
            return self._registers[index].read(offset, size)
        return (1 << 8 * size) - 1

    def write(self, address: int, size: int, value: int) -> None:
        """Write a register; where no device listens, nothing happens."""
        index, offset = divmod(address - self.base, DEVICE_WINDOW_SIZE)
        if 0 <= index < len(self._registers):
            self._registers[index].write(offset, size, value)
