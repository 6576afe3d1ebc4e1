"""The virtio-mmio register file, version 2: what a register access does (virtio 1.4, "Virtio Over MMIO").

No I/O: whoever sees the driver's access calls `read` or `write` with the offset into the device's window. What the text
forbids the driver is ignored as hardware ignores it (a read gives 0), and reported to listeners; no access can make the
host raise.
"""

from collections.abc import Callable

import construct

from spec.device import DeviceStatus, Feature
from spec.device_state import MMIO_STATE
from spec.layout import struct_of
from spec.mmio import (
    ABSENT_SHARED_MEMORY,
    CONFIG_OFFSET,
    MAGIC_VALUE,
    NOTIFICATION,
    READABLE,
    VENDOR_ID,
    VERSION,
    WRITABLE,
    Register,
)
from vdev.device import Device, QueueSetup
from vdev.errors import DriverViolation, SavedStateError
from vdev.events import SILENT, Emitter, RegisterRead, RegisterWritten

__all__ = ["MmioRegisters"]

_CLAUSE = "Virtio Over MMIO / MMIO Device Register Layout"
_NOTIFICATION_CLAUSE = "Virtio Over MMIO / Available Buffer Notifications"
_LOW = 0xFFFF_FFFF

_unpack_notification = struct_of(NOTIFICATION).unpack

_ADDRESS_REGISTERS = {
    Register.QUEUE_DESC_LOW: ("descriptor", 0),
    Register.QUEUE_DESC_HIGH: ("descriptor", 32),
    Register.QUEUE_DRIVER_LOW: ("driver", 0),
    Register.QUEUE_DRIVER_HIGH: ("driver", 32),
    Register.QUEUE_DEVICE_LOW: ("device", 0),
    Register.QUEUE_DEVICE_HIGH: ("device", 32),
}
"""Register -> field of QueueSetup and bit that its 32 bits begin at."""


class MmioRegisters:
    """The registers of one device. Set `device.interrupt` to what raises the device's interrupt line."""

    def __init__(self, device: Device, *, events: Emitter = SILENT) -> None:
        self.device = device
        self._events = events
        self._device_features_sel = 0
        self._driver_features_sel = 0
        self._queue_sel = 0
        self._shm_sel = 0
        self._readers: dict[int, Callable[[], int]] = {
            Register.MAGIC_VALUE: lambda: MAGIC_VALUE,
            Register.VERSION: lambda: VERSION,
            Register.DEVICE_ID: lambda: device.device_id,
            Register.VENDOR_ID: lambda: VENDOR_ID,
            Register.DEVICE_FEATURES: lambda: device.offered_word(self._device_features_sel),
            Register.QUEUE_SIZE_MAX: lambda: device.queue_size_max(self._queue_sel),
            Register.QUEUE_READY: lambda: int(self._queue_sel in device.queues),
            Register.INTERRUPT_STATUS: lambda: int(device.interrupt_status),
            Register.STATUS: lambda: int(device.status),
            # No device here has shared memory: every region reads as absent.
            Register.SHM_LEN_LOW: lambda: ABSENT_SHARED_MEMORY,
            Register.SHM_LEN_HIGH: lambda: ABSENT_SHARED_MEMORY,
            Register.SHM_BASE_LOW: lambda: ABSENT_SHARED_MEMORY,
            Register.SHM_BASE_HIGH: lambda: ABSENT_SHARED_MEMORY,
            # A queue is reset within the write to QueueReset, so none is ever seen in progress.
            Register.QUEUE_RESET: lambda: 0,
            Register.CONFIG_GENERATION: lambda: device.config_generation,
        }
        self._writers: dict[int, Callable[[int], None]] = {
            Register.DEVICE_FEATURES_SEL: lambda value: setattr(self, "_device_features_sel", value),
            Register.DRIVER_FEATURES_SEL: lambda value: setattr(self, "_driver_features_sel", value),
            Register.DRIVER_FEATURES: lambda value: device.accept_word(self._driver_features_sel, value),
            Register.QUEUE_SEL: lambda value: setattr(self, "_queue_sel", value),
            Register.QUEUE_SIZE: self._write_queue_size,
            Register.QUEUE_READY: self._write_queue_ready,
            Register.QUEUE_NOTIFY: self._write_queue_notify,
            Register.INTERRUPT_ACK: self._write_interrupt_ack,
            Register.STATUS: device.write_status,
            Register.SHM_SEL: lambda value: setattr(self, "_shm_sel", value),
            Register.QUEUE_RESET: self._write_queue_reset,
        }
        for register, (field, shift) in _ADDRESS_REGISTERS.items():
            self._writers[register] = self._address_writer(register, field, shift)

    def read(self, offset: int, size: int) -> int:
        """Return what the driver reads: `size` bytes at `offset` of the device's window."""
        if offset >= CONFIG_OFFSET:
            value = self.device.read_config(offset - CONFIG_OFFSET, size)
        elif size == 4 and offset in self._readers:
            value = self._readers[offset]()
        else:
            self._report_access("read", offset, size)
            value = 0
        if self._events.listening:
            self._events.emit(RegisterRead(self.device.name, offset, size, value))
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        """Do what the driver's write of `value` means: `size` bytes at `offset` of the device's window."""
        value &= (1 << 8 * size) - 1
        if self._events.listening:
            self._events.emit(RegisterWritten(self.device.name, offset, size, value))
        if offset >= CONFIG_OFFSET:
            self.device.write_config(offset - CONFIG_OFFSET, size, value)
        elif size == 4 and offset in self._writers:
            self._writers[offset](value)
        else:
            self._report_access("write", offset, size)

    def save(self) -> bytes:
        """Return the selectors and the device's state: a MMIO_STATE of `spec.device_state`."""
        state: bytes = MMIO_STATE.build(
            {
                "device_features_sel": self._device_features_sel,
                "driver_features_sel": self._driver_features_sel,
                "queue_sel": self._queue_sel,
                "shm_sel": self._shm_sel,
                "device": self.device.save(),
            }
        )
        return state

    def restore(self, state: bytes) -> None:
        """Go on from what `save` gave. Raises SavedStateError as `Device.restore` does."""
        try:
            saved = MMIO_STATE.parse(state)
        except construct.ConstructError as error:
            raise SavedStateError(f"the saved registers of {self.device.name} cannot be read: {error}") from error
        self.device.restore(saved.device)
        self._device_features_sel = saved.device_features_sel
        self._driver_features_sel = saved.driver_features_sel
        self._queue_sel = saved.queue_sel
        self._shm_sel = saved.shm_sel

    # Writes that need more than a store

    def _selected_setup(self, register: Register) -> QueueSetup | None:
        """Return the selected queue's set-up if the driver may write it now."""
        if not self.device.queue_size_max(self._queue_sel):
            self._report(f"{register.name} was written for queue {self._queue_sel}, which does not exist")
            return None
        if self._queue_sel in self.device.queues:
            self._report(f"{register.name} was written while queue {self._queue_sel} is ready")
            return None
        return self.device.queue_setups[self._queue_sel]

    def _write_queue_size(self, value: int) -> None:
        setup = self._selected_setup(Register.QUEUE_SIZE)
        if setup is not None:
            setup.size = value

    def _address_writer(self, register: Register, field: str, shift: int) -> Callable[[int], None]:
        def write(value: int) -> None:
            setup = self._selected_setup(register)
            if setup is not None:
                setattr(setup, field, getattr(setup, field) & ~(_LOW << shift) | value << shift)

        return write

    def _write_queue_ready(self, value: int) -> None:
        number = self._queue_sel
        if not self.device.queue_size_max(number):
            self._report(f"QueueReady was written for queue {number}, which does not exist")
        elif value == 0:
            self.device.stop_queue(number)
        elif value != 1:
            self._report(f"QueueReady was written with {value}, not 0 or 1")
        elif not self.device.status & DeviceStatus.FEATURES_OK:
            # The ring's format hangs on the features.
            self._report(f"queue {number} was made ready before FEATURES_OK")
        elif number not in self.device.queues:
            self.device.enable_queue(number)

    def _write_queue_reset(self, value: int) -> None:
        if not self.device.has_feature(Feature.RING_RESET):
            self._report("QueueReset was written without RING_RESET")
        elif value != 1:
            self._report(f"QueueReset was written with {value}, not 1")
        elif not self.device.queue_size_max(self._queue_sel):
            self._report(f"QueueReset was written for queue {self._queue_sel}, which does not exist")
        else:
            self.device.reset_queue(self._queue_sel)

    def _write_queue_notify(self, value: int) -> None:
        if not self.device.has_feature(Feature.NOTIFICATION_DATA):
            self.device.queue_notify(value)
            return
        number, place = _unpack_notification(value.to_bytes(4, "little"))
        queue = self.device.queues.get(number)
        # An available index can have any value, and may be long past when the kick is looked at; a place in a packed
        # ring has a bound. Which kick it was does not matter for what is done: the ring itself says what is available.
        next_off = place & 0x7FFF
        if queue is not None and self.device.has_feature(Feature.RING_PACKED) and next_off >= queue.size:
            message = f"next_off {next_off} in a ring of {queue.size}"
            self.device.report(DriverViolation(_NOTIFICATION_CLAUSE, message, queue=number))
        self.device.queue_notify(number)

    def _write_interrupt_ack(self, value: int) -> None:
        if value & ~3:
            self._report(f"InterruptACK was written with undefined bits: {value:#x}")
        self.device.acknowledge(value)

    def _report_access(self, verb: str, offset: int, size: int) -> None:
        allowed = READABLE if verb == "read" else WRITABLE
        if offset not in READABLE | WRITABLE:
            self._report(f"{verb} of {size} bytes at {offset:#x}, where no register is")
        elif offset not in allowed:
            self._report(f"{verb} of {Register(offset).name}, which does not allow it")
        else:
            self._report(f"{verb} of {Register(offset).name} with {size} bytes, not 4")

    def _report(self, message: str) -> None:
        self.device.report(DriverViolation(_CLAUSE, message))
