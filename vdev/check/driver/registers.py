"""The judge between a driver's register accesses and `vdev.mmio`."""

from collections import Counter

from spec.device import DeviceStatus, Feature
from spec.mmio import CONFIG_OFFSET, QUEUE_INDEX_MASK, Register
from vdev.check.driver.observation import (
    ConfigRead,
    ConfigWritten,
    FeaturesAccepted,
    FeaturesAgreed,
    FeaturesOffered,
    GenerationRead,
    InterruptAcknowledged,
    InterruptStatusRead,
    RegisterAccess,
    StatusRead,
    StatusWritten,
)
from vdev.check.driver.sitting import Sitting
from vdev.mmio import MmioRegisters

__all__ = ["JudgedRegisters"]

_WORD = 0xFFFF_FFFF


class JudgedRegisters:
    """Registers of a sitting's device: the same calls as `MmioRegisters`, seen by the sitting."""

    def __init__(self, sitting: Sitting) -> None:
        self._sitting = sitting
        self._registers = MmioRegisters(sitting.device, events=sitting.emitter)
        self._read_counts: Counter[int] = Counter()
        self._offered_select = 0
        self._accepted_select = 0
        self._queue = 0

    def read(self, offset: int, size: int) -> int:
        """Return what the driver reads: `size` bytes at `offset` of the device's window."""
        sitting, device = self._sitting, self._sitting.device
        if offset >= CONFIG_OFFSET:
            sitting.game.before_config_read(offset - CONFIG_OFFSET)
        generation = device.config_generation
        value = self._registers.read(offset, size)
        self._read_counts[offset] += 1
        value = sitting.game.answers(offset, value, self._read_counts[offset])
        sitting.see(RegisterAccess(offset, size, value, False, self._queue))
        if offset >= CONFIG_OFFSET:
            sitting.see(ConfigRead(offset - CONFIG_OFFSET, size, value, generation))
        elif size == 4:
            self._tell_read(offset, value)
        return value

    def _tell_read(self, offset: int, value: int) -> None:
        sitting = self._sitting
        match offset:
            case Register.STATUS:
                sitting.see(StatusRead(value))
            case Register.DEVICE_FEATURES:
                shift = 32 * self._offered_select
                sitting.see(FeaturesOffered(value << shift, _WORD << shift))
            case Register.INTERRUPT_STATUS:
                sitting.see(InterruptStatusRead(value))
            case Register.CONFIG_GENERATION:
                sitting.see(GenerationRead(value))

    def write(self, offset: int, size: int, value: int) -> None:
        """Do what the driver's write of `value` means: `size` bytes at `offset` of the device's window."""
        sitting, device = self._sitting, self._sitting.device
        value &= (1 << 8 * size) - 1
        sitting.see(RegisterAccess(offset, size, value, True, self._queue))
        if offset >= CONFIG_OFFSET:
            sitting.see(ConfigWritten(offset - CONFIG_OFFSET, size, value))
        elif size == 4:
            self._tell_write(offset, value)
        before = int(device.status)
        offered = device.offered_features
        if offset == Register.STATUS and value & ~before & DeviceStatus.FEATURES_OK and sitting.game.refuses_features():
            device.offered_features = 0
        self._registers.write(offset, size, value)
        device.offered_features = offered
        sitting.picture.status = int(device.status)
        if offset == Register.STATUS and size == 4 and not value:
            self._read_counts.clear()
            sitting.note_reset()
        elif offset in (Register.QUEUE_READY, Register.QUEUE_RESET):
            sitting.note_queues()
        if device.status & ~before & DeviceStatus.FEATURES_OK:
            sitting.see(FeaturesAgreed(device.features))

    def _tell_write(self, offset: int, value: int) -> None:
        sitting = self._sitting
        match offset:
            case Register.STATUS:
                for number in list(sitting.queues):
                    sitting.look(number)
                sitting.see(StatusWritten(int(sitting.device.status), value))
            case Register.DEVICE_FEATURES_SEL:
                self._offered_select = value
            case Register.DRIVER_FEATURES_SEL:
                self._accepted_select = value
            case Register.DRIVER_FEATURES:
                shift = 32 * self._accepted_select
                sitting.see(FeaturesAccepted(value << shift, _WORD << shift))
            case Register.QUEUE_SEL:
                self._queue = value
            case Register.QUEUE_NOTIFY:
                carries_data = sitting.picture.has(Feature.NOTIFICATION_DATA)
                sitting.note_kick(value & QUEUE_INDEX_MASK if carries_data else value, value)
            case Register.INTERRUPT_ACK:
                sitting.see(InterruptAcknowledged(value))
            case Register.QUEUE_READY | Register.QUEUE_RESET:
                sitting.look(self._queue)
