"""The raw registers of a virtio-mmio device in this process, and what it interrupts."""

from spec.device import DeviceStatus
from spec.mmio import Interrupt, Register
from vdev.events import Call, Emitter, RegisterRead, RegisterWritten
from vdev.mmio import MmioRegisters

__all__ = ["Registers"]


class Registers:
    """Each access is an event. All that an access sets off is done when it returns.

    While it `acknowledges`, each interrupt is answered at once as a driver does, with a read of InterruptStatus and a
    write of InterruptACK; else InterruptStatus stays as it is.
    """

    def __init__(self, registers: MmioRegisters, events: Emitter) -> None:
        self._registers = registers
        self._events = events
        self.acknowledges = True
        self.interrupts: list[int] = []
        """InterruptStatus at each interrupt so far."""
        self.used_buffer_count = 0
        """Interrupts so far whose cause was a used buffer."""
        self.config_change_count = 0
        """Interrupts so far whose cause was a change of configuration space."""
        registers.device.interrupt = self._interrupt

    @property
    def name(self) -> str:
        """What the device calls itself."""
        return self._registers.device.name

    def read(self, offset: int, size: int = 4) -> int:
        """Return `size` bytes at `offset` of the device's window."""
        value = self._registers.read(offset, size)
        if self._events.listening:
            self._events.emit(RegisterRead(self.name, offset, size, value))
        return value

    def write(self, offset: int, value: int, size: int = 4) -> None:
        """Write `size` bytes at `offset` of the device's window."""
        if self._events.listening:
            self._events.emit(RegisterWritten(self.name, offset, size, value))
        self._registers.write(offset, size, value)

    def select_queue(self, number: int) -> None:
        """Write QueueSel."""
        self.write(Register.QUEUE_SEL, number)

    def status(self) -> DeviceStatus:
        """Return the device status."""
        return DeviceStatus(self.read(Register.STATUS))

    def _interrupt(self) -> None:
        causes = self._registers.read(Register.INTERRUPT_STATUS, 4)
        self.interrupts.append(causes)
        self.used_buffer_count += bool(causes & Interrupt.USED_BUFFER)
        self.config_change_count += bool(causes & Interrupt.CONFIGURATION_CHANGE)
        if self._events.listening:
            self._events.emit(Call(self.name, len(self.interrupts)))
        if self.acknowledges and causes:
            self.write(Register.INTERRUPT_ACK, causes & 3)
