"""A device behind virtio-mmio registers (virtio 1.4, "Virtio Over MMIO"): the calls that both carriers have."""

from collections.abc import Callable, Iterator

from spec.device import DeviceStatus, Feature
from spec.mmio import CONFIG_OFFSET, Register
from vdev.check.bench.control import RingAreas
from vdev.check.bench.registers import Registers
from vdev.check.verdict import TargetHung
from vdev.events import Emitter, Kick

__all__ = ["MmioControl"]

_WORDS = 4
"""Feature bits 0 to 127, 32 at a time."""
_RESET_READS = 1000


class MmioControl:
    """Nothing here waits: what a register access sets off is done when it returns."""

    def __init__(self, registers: Registers, events: Emitter) -> None:
        self._registers = registers
        self._events = events
        self._features = 0
        self._kick_counts: dict[int, int] = {}

    def begin(self) -> None:
        """Reset the device, and set ACKNOWLEDGE and DRIVER. Raises TargetHung as `reset` does."""
        self.reset()
        self.set_status(DeviceStatus.ACKNOWLEDGE)
        self.set_status(DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER)

    def offered_features(self) -> int:
        """Return the mask of all features that are offered."""
        mask = 0
        for word in range(_WORDS):
            self._registers.write(Register.DEVICE_FEATURES_SEL, word)
            mask |= self._registers.read(Register.DEVICE_FEATURES) << 32 * word
        return mask

    def accept_features(self, mask: int) -> bool:
        """Write these features and FEATURES_OK; say whether it stayed."""
        for word in range(_WORDS):
            self._registers.write(Register.DRIVER_FEATURES_SEL, word)
            self._registers.write(Register.DRIVER_FEATURES, mask >> 32 * word & 0xFFFF_FFFF)
        self.set_status(self.status() | DeviceStatus.FEATURES_OK)
        self._features = mask
        return bool(self.status() & DeviceStatus.FEATURES_OK)

    def run(self) -> None:
        """Set DRIVER_OK."""
        self.set_status(self.status() | DeviceStatus.DRIVER_OK)

    def status(self) -> int:
        """Return the device status."""
        return self._registers.read(Register.STATUS)

    def set_status(self, value: int) -> None:
        """Write exactly this as device status."""
        self._registers.write(Register.STATUS, int(value))

    def reset(self) -> None:
        """Write 0 as device status and read until it is. Raises TargetHung if it never is."""
        self.set_status(0)
        if not any(self.status() == 0 for _ in range(_RESET_READS)):
            raise TargetHung(f"the device status was read {_RESET_READS} times after a reset and was never 0")
        self._features = 0

    def read_config(self, offset: int, size: int) -> bytes:
        """Return bytes of configuration space, in accesses of at most 4 bytes that are aligned."""
        return b"".join(
            self._registers.read(CONFIG_OFFSET + at, width).to_bytes(width, "little")
            for at, width in _accesses(offset, size)
        )

    def write_config(self, offset: int, data: bytes) -> None:
        """Write configuration space, in accesses of at most 4 bytes that are aligned."""
        for at, width in _accesses(offset, len(data)):
            value = int.from_bytes(data[at - offset : at - offset + width], "little")
            self._registers.write(CONFIG_OFFSET + at, value, width)

    def config_generation(self) -> int | None:
        """Return ConfigGeneration."""
        return self._registers.read(Register.CONFIG_GENERATION)

    def queue_size_max(self, number: int) -> int | None:
        """Return QueueSizeMax."""
        self._registers.select_queue(number)
        return self._registers.read(Register.QUEUE_SIZE_MAX)

    def set_up_queue(self, number: int, areas: RingAreas, *, base: int = 0) -> None:
        """Write a queue's registers, and QueueReady. Raises ValueError for a base: a queue begins at 0 here."""
        if base:
            raise ValueError("virtio-mmio has no ring base")
        self._registers.select_queue(number)
        self._registers.write(Register.QUEUE_SIZE, areas.size)
        for register, address in (
            (Register.QUEUE_DESC_LOW, areas.descriptor),
            (Register.QUEUE_DRIVER_LOW, areas.driver),
            (Register.QUEUE_DEVICE_LOW, areas.device),
        ):
            self._registers.write(register, address & 0xFFFF_FFFF)
            self._registers.write(register + 4, address >> 32)
        self._registers.write(Register.QUEUE_READY, 1)

    def start_queue(self, number: int) -> None:
        """Do nothing: a queue is served from QueueReady on."""

    def stop_queue(self, number: int) -> int | None:
        """Write 0 to QueueReady and read it back. Raises TargetHung if it stays."""
        self._registers.select_queue(number)
        self._registers.write(Register.QUEUE_READY, 0)
        if self._registers.read(Register.QUEUE_READY):
            raise TargetHung(f"queue {number} was still ready after 0 was written to QueueReady")
        return None

    def reset_queue(self, number: int) -> None:
        """Write QueueReset and read it back. Raises TargetHung if the queue is never reset."""
        self._registers.select_queue(number)
        self._registers.write(Register.QUEUE_RESET, 1)
        if self._registers.read(Register.QUEUE_RESET) or self._registers.read(Register.QUEUE_READY):
            raise TargetHung(f"queue {number} was not reset when QueueReset was read back")

    def kick(self, number: int, place: int | None = None) -> None:
        """Write QueueNotify, with `place` if NOTIFICATION_DATA is negotiated."""
        count = self._kick_counts[number] = self._kick_counts.get(number, 0) + 1
        if self._events.listening:
            self._events.emit(Kick(number, count))
        has_data = self._features >> Feature.NOTIFICATION_DATA & 1
        self._registers.write(Register.QUEUE_NOTIFY, number | (place or 0) << 16 if has_data else number)

    def call_count(self, number: int) -> int:
        """Return the interrupts so far whose cause was a used buffer: there is one interrupt for all queues."""
        return self._registers.used_buffer_count

    def wait_call(self, number: int, than: int) -> int:
        """Return `call_count`. Raises TargetHung if it is not more than `than`."""
        self.wait(number, lambda: self.call_count(number) > than, f"interrupt for queue {number}")
        return self.call_count(number)

    def wait(self, number: int, until: Callable[[], bool], what: str) -> None:
        """Raise TargetHung if `until` does not hold now: there is nothing to wait for."""
        if not until():
            also = ", and set DEVICE_NEEDS_RESET" if self.status() & DeviceStatus.DEVICE_NEEDS_RESET else ""
            raise TargetHung(f"the device did not {what} before the register access returned{also}")


def _accesses(offset: int, size: int) -> Iterator[tuple[int, int]]:
    end = offset + size
    while offset < end:
        width = next(width for width in (4, 2, 1) if not offset % width and offset + width <= end)
        yield offset, width
        offset += width
