"""A virtio device, whatever carries it: negotiation, queues, configuration space, interrupt status, reset.

A device type is a subclass that says what it offers and handles a queue's buffers. A transport (the register file in
`vdev.mmio`, say) turns the driver's accesses into calls of the public methods here. Nothing here waits.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import construct
import numpy.typing as npt

from spec.device import DeviceStatus
from spec.device_state import DEVICE_STATE
from spec.mmio import Interrupt
from vdev.config_space import ConfigSpace
from vdev.device_queues import DeviceQueues, QueueFactory, QueueSetup
from vdev.device_type import RING_FEATURES, DeviceType
from vdev.errors import DriverViolation, GuestAddressError, SavedStateError
from vdev.events import SILENT, ConfigChanged, ConfigWritten, DeviceStatusChanged, Emitter, ViolationFound
from vdev.memory import GuestMemory, Region
from vdev.negotiation import STATUS_STEPS, cleared_bits_violation, feature_violation, step_violation
from vdev.virtqueue.chain import Chain
from vdev.virtqueue.factory import make_device_queue
from vdev.virtqueue.queue import DeviceQueue

if TYPE_CHECKING:
    from vdev.notify import BusyWait

__all__ = ["RING_FEATURES", "Device", "QueueFactory", "QueueSetup"]

# Plain integers: on the way of each buffer an IntFlag operation costs as much as a descriptor.
_DRIVER_OK = int(DeviceStatus.DRIVER_OK)
_RUNNING_BITS = int(DeviceStatus.DRIVER_OK | DeviceStatus.DEVICE_NEEDS_RESET)
_USED_BUFFER = int(Interrupt.USED_BUFFER)

_FEATURE_WORDS = 5
_PASSES = 16


class Device(DeviceType):
    """Base of all devices. What a subclass sets and overrides is in `DeviceType`.

    `interrupt` is what a transport with one interrupt line sets: called each time the driver is to look at
    `interrupt_status`. One with an interrupt for each queue sets `call`, called with the queue's number for used
    buffers, and `announce_config` for a changed configuration space.
    """

    def __init__(
        self, memory: GuestMemory, *, events: Emitter = SILENT, make_queue: QueueFactory = make_device_queue
    ) -> None:
        self.memory = memory
        self.interrupt: Callable[[], None] = lambda: None
        self.call: Callable[[int], None] = lambda _: self.interrupt()
        self.announce_config: Callable[[], None] = lambda: self.interrupt()
        self.busy_wait: BusyWait | None = None
        """How to look for more before the driver is asked to kick again; None goes without."""
        self.status = DeviceStatus.RESET
        self.driver_features = 0
        """Bits as the driver wrote them; `features` has them once they are accepted."""
        self.features = 0
        self.interrupt_status = Interrupt(0)
        self.violation: DriverViolation | None = None
        """The first violation for which the device needed a reset; a reset does not clear it."""
        self._config = ConfigSpace(self.config_layout)
        self._queues = DeviceQueues(len(self.queue_sizes), memory, make_queue, events)
        self._events = events

    # What a device type uses

    @property
    def queues(self) -> dict[int, DeviceQueue]:
        """The queues that are ready, by number."""
        return self._queues.ready

    @property
    def queue_setups(self) -> list[QueueSetup]:
        """What the driver wrote about each queue."""
        return self._queues.setups

    def make_queues_with(self, make_queue: QueueFactory) -> None:
        """Have every queue that becomes ready from now on made by `make_queue`: whoever looks on puts its own there."""
        self._queues.make_queue = make_queue

    @property
    def config(self) -> npt.NDArray[Any]:
        """The configuration space as a live record; change it with `change_config`."""
        return self._config.record

    @property
    def config_generation(self) -> int:
        """Changes with every change of the configuration space that the device makes."""
        return self._config.generation

    @property
    def running(self) -> bool:
        """Whether the device may touch its queues: DRIVER_OK is set and no reset is needed."""
        return int(self.status) & _RUNNING_BITS == _DRIVER_OK

    def has_feature(self, bit: int) -> bool:
        """Say whether feature `bit` is negotiated."""
        return bool(self.features >> bit & 1)

    def chains(self, number: int) -> Iterator[Chain]:
        """Yield available chains of a queue, at most as many as the queue has descriptors."""
        queue = self.queues[number]
        for _ in range(self.queue_setups[number].size):
            chain = queue.pop()
            if chain is None:
                return
            yield chain

    def change_config(self, **fields: int) -> None:
        """Store `fields` as `store_config` does, and notify the driver if it is there to be told."""
        self.store_config(**fields)
        if self._events.listening:
            self._events.emit(ConfigChanged(self.name, self.config_generation))
        self._notify_config_change()

    def store_config(self, **fields: int) -> None:
        """Store `fields` and move the generation on; for a change that follows from what the driver did."""
        self._config.store(**fields)

    def call_driver(self, number: int) -> None:
        """Interrupt for used buffers of queue `number`, if the driver wants to be told.

        A wish that means nothing puts the device into DEVICE_NEEDS_RESET.
        """
        try:
            is_wanted = self.queues[number].should_call()
        except DriverViolation as violation:
            self.needs_reset(violation)
            return
        if is_wanted:
            if not int(self.interrupt_status) & _USED_BUFFER:
                self.interrupt_status |= Interrupt.USED_BUFFER
            self.call(number)

    def needs_reset(self, violation: DriverViolation) -> None:
        """Stop touching the queues and set DEVICE_NEEDS_RESET; the host goes on ("Device Status Field")."""
        if self.violation is None:
            self.violation = violation
        self.report(violation)
        if not self.status & DeviceStatus.DEVICE_NEEDS_RESET:
            self._set_status(self.status | DeviceStatus.DEVICE_NEEDS_RESET)
            self._notify_config_change()

    def report(self, violation: DriverViolation) -> None:
        """Let listeners know of a violation."""
        if self._events.listening:
            self._events.emit(ViolationFound(self.name, "driver", violation.statement, violation.message))

    # What a transport calls

    def write_status(self, value: int) -> None:
        """Take the steps that `value` asks for, in order; 0 resets.

        A step out of order, a cleared bit or an unknown one is ignored and reported: the driver reads the status back.
        """
        if value == 0:
            self.reset()
            return
        if (violation := cleared_bits_violation(self.status, value)) is not None:
            self.report(violation)
        for step in STATUS_STEPS:
            if not value & step.bit or self.status & step.bit:
                continue
            refusal = step_violation(self.status, step)
            if refusal is None and step.bit is DeviceStatus.FEATURES_OK:
                refusal = feature_violation(self.offered_features, self.driver_features)
            if refusal is not None:
                self.report(refusal)
                continue
            self._set_status(self.status | step.bit)
            if step.bit is DeviceStatus.FEATURES_OK:
                self.features = self.driver_features
                self.negotiated()
            elif step.bit is DeviceStatus.DRIVER_OK:
                self.started()
                # Linux kicks the balloon's statistics queue just before it sets DRIVER_OK.
                self._look_at_queues()

    def offered_word(self, index: int) -> int:
        """Return 32 offered feature bits from bit 32 * `index` on."""
        return self.offered_features >> 32 * min(index, _FEATURE_WORDS) & 0xFFFF_FFFF

    def accept_word(self, index: int, value: int) -> None:
        """Let the driver accept 32 feature bits from bit 32 * `index` on; after FEATURES_OK that is ignored."""
        if self.status & DeviceStatus.FEATURES_OK:
            clause = "General Initialization And Device Operation / Device Initialization"
            self.report(DriverViolation(clause, "features were written after FEATURES_OK"))
            return
        # All words past bit 127 fold into one: nothing there is ever offered, so FEATURES_OK will be refused.
        shift = 32 * min(index, _FEATURE_WORDS - 1)
        self.driver_features = self.driver_features & ~(0xFFFF_FFFF << shift) | value << shift

    def enable_queue(self, number: int) -> None:
        """Take queue `number` into use as its set-up says.

        A set-up that no ring can have puts the device into DEVICE_NEEDS_RESET.
        """
        try:
            self._queues.enable(number, self.queue_size_max(number), self.features)
        except DriverViolation as violation:
            self.needs_reset(violation)

    def replace_memory(self, regions: Sequence[Region]) -> None:
        """Have guest RAM consist of `regions`, while queues may be in use; a ring that is not in them needs a reset.

        Raises ValueError or GuestAddressError for regions that no RAM can have; then nothing has changed.
        """
        before = self.memory.regions
        self.memory.replace_regions(regions)
        self.memory_replaced(before)
        try:
            self._queues.attach_again(self.features)
        except (DriverViolation, GuestAddressError) as error:
            for number in list(self.queues):
                self.stop_queue(number)
            violation = error if isinstance(error, DriverViolation) else _outside_ram(error, None)
            self.needs_reset(violation)

    def stop_queue(self, number: int) -> None:
        """Forget queue `number` and its indices; its set-up stays until it is written again."""
        if self.queues.pop(number, None) is not None:
            self.queue_stopped(number)

    def reset_queue(self, number: int) -> None:
        """Forget queue `number`, its indices and its set-up, while the others go on ("Virtqueue Reset").

        The driver may set it up again, with other addresses and another size, and make it ready once more.
        """
        self.stop_queue(number)
        self.queue_setups[number] = QueueSetup()

    def read_config(self, offset: int, size: int) -> int:
        """Return `size` bytes of configuration space as a little-endian integer; past its end all is 0."""
        self._check_config_access("read", offset, size)
        return self._config.read(offset, size)

    def write_config(self, offset: int, size: int, value: int) -> None:
        """Store into configuration space where the driver may write now; elsewhere nothing happens."""
        field = self._check_config_access("write", offset, size)
        if field is None:
            return
        if not self.status & DeviceStatus.FEATURES_OK:
            clause = "General Initialization And Device Operation / Device Initialization"
            self.report(DriverViolation(clause, "configuration space was written before FEATURES_OK"))
        elif field not in self.writable_fields():
            clause = "Basic Facilities of a Virtio Device / Device Configuration Space"
            self.report(DriverViolation(clause, f"configuration field {field} is not the driver's to write now"))
        else:
            self._config.write(offset, size, value)
            self.config_written(offset, size)
            if self._events.listening:
                self._events.emit(ConfigWritten(self.name, offset, size))

    def _check_config_access(self, verb: str, offset: int, size: int) -> str | None:
        field = self._config.field_at(offset, size)
        if field is None:
            clause = "Virtio Over MMIO / MMIO Device Register Layout"
            message = f"{verb} of {size} bytes at {offset:#x} of configuration space is no field's access"
            self.report(DriverViolation(clause, message))
        return field

    def acknowledge(self, bits: int) -> None:
        """Clear the interrupt causes that the driver says it has handled."""
        self.interrupt_status &= ~Interrupt(bits & 3)

    def queue_notify(self, number: int) -> bool:
        """Handle a kick of queue `number`. Returns true if there is more to do: call again in a later turn.

        That bounds what a driver that never rests can take of the host's time. A violation of the driver becomes
        DEVICE_NEEDS_RESET. A kick that cannot be meant (no such queue, before DRIVER_OK) is only reported.
        """
        queue = self.queues.get(number)
        if queue is None or not self.running:
            self._report_stray_kick(number)
            return False
        try:
            queue.disable_kicks()
            for _ in range(_PASSES):
                self.handle_queue(number)
                self.call_driver(number)
                if not self.running:
                    return False
                # While this side looks anyway, the driver need not kick.
                if self.busy_wait is not None and self.busy_wait.until(queue.has_available):
                    continue
                if not queue.enable_kicks():
                    return False
                queue.disable_kicks()
        except GuestAddressError as error:
            self.needs_reset(_outside_ram(error, number))
            return False
        except DriverViolation as violation:
            self.needs_reset(violation)
            return False
        return True

    def _report_stray_kick(self, number: int) -> None:
        if self.status & DeviceStatus.DEVICE_NEEDS_RESET:
            return
        if not self.status & DeviceStatus.DRIVER_OK:
            clause = "General Initialization And Device Operation / Device Initialization"
            self.report(DriverViolation(clause, "a queue was kicked before DRIVER_OK", queue=number))
        else:
            clause = "Virtio Over MMIO / Available Buffer Notifications"
            self.report(DriverViolation(clause, "a queue that is not ready was kicked", queue=number))

    def handle_all_queues(self) -> None:
        """Look at every ready queue, and interrupt again if causes are pending: both may be lost in a restore."""
        self._look_at_queues()
        if self.interrupt_status:
            self.interrupt()

    def reset(self) -> None:
        """Be as new: status 0, no queue, no feature, no pending interrupt ("Device Reset")."""
        for number in list(self.queues):
            self.stop_queue(number)
        self._queues.forget_setups()
        self.driver_features = self.features = 0
        self.interrupt_status = Interrupt(0)
        self._set_status(DeviceStatus.RESET)

    # Saved and restored

    def save(self) -> bytes:
        """Return the device's state as a DEVICE_STATE of `spec.device_state`; the VM is stopped."""
        state: bytes = DEVICE_STATE.build(
            {
                "device_id": self.device_id,
                "driver_features": self.driver_features,
                "status": int(self.status),
                "interrupt_status": int(self.interrupt_status),
                "config_generation": self.config_generation,
                "queues": self._queues.save(),
                "config": self._config.save(),
                "specific": self.save_specific(),
            }
        )
        return state

    def restore(self, state: bytes) -> None:
        """Go on from what `save` gave; touches no guest RAM. Call `handle_all_queues` when the VM runs again.

        Raises SavedStateError if the state is not one of a device like this one.
        """
        try:
            saved = DEVICE_STATE.parse(state)
        except construct.ConstructError as error:
            raise SavedStateError(f"the saved {self.name} cannot be read: {error}") from error
        self._check_saved(saved)
        self.reset()
        self._config.restore(saved.config, saved.config_generation)
        self.driver_features = saved.driver_features
        self.interrupt_status = Interrupt(saved.interrupt_status & 3)
        self._set_status(DeviceStatus(saved.status))
        if self.status & DeviceStatus.FEATURES_OK:
            self.features = saved.driver_features
            self.negotiated()
        self._queues.restore(saved.queues, self.queue_size_max, self.features)
        self.restore_specific(saved.specific)

    def _check_saved(self, saved: Any) -> None:
        accepted = saved.status & DeviceStatus.FEATURES_OK
        complaints = [
            (saved.device_id != self.device_id, f"it is a device of type {saved.device_id}"),
            (len(saved.queues) != len(self.queue_sizes), f"it has {len(saved.queues)} queues"),
            (len(saved.config) != self._config.size, f"its configuration space is {len(saved.config)} bytes"),
            (
                accepted and feature_violation(self.offered_features, saved.driver_features) is not None,
                f"it uses features {saved.driver_features:#x} of which only {self.offered_features:#x} are offered",
            ),
        ]
        for is_wrong, complaint in complaints:
            if is_wrong:
                raise SavedStateError(f"the saved {self.name} does not fit: {complaint}")

    # Inside

    def _look_at_queues(self) -> None:
        for number in list(self.queues):
            if self.running:
                self.queue_notify(number)

    def _set_status(self, status: DeviceStatus) -> None:
        before, self.status = self.status, status
        if self._events.listening and before != status:
            self._events.emit(DeviceStatusChanged(self.name, int(before), int(status)))

    def _notify_config_change(self) -> None:
        if self.status & DeviceStatus.DRIVER_OK:
            self.interrupt_status |= Interrupt.CONFIGURATION_CHANGE
            self.announce_config()


def _outside_ram(error: GuestAddressError, number: int | None) -> DriverViolation:
    return DriverViolation("Basic Facilities of a Virtio Device / Virtqueues", str(error), queue=number)
