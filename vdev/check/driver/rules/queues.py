"""How a driver sets queues up, stops and resets them ("Virtqueues", "Virtqueue Reset")."""

from spec.mmio import Register
from spec.packed_ring import EVENT_ALIGNMENT, RING_ALIGNMENT
from spec.split_ring import AVAILABLE_ALIGNMENT, DESCRIPTOR_ALIGNMENT, USED_ALIGNMENT
from vdev.check.driver.observation import DeviceWasReset, QueueMadeReady, RegisterAccess
from vdev.check.driver.picture import Picture
from vdev.check.driver.rule import Rule, rule, sees
from vdev.check.evidence import Shown
from vdev.check.registry import RingFormat
from vdev.devices.kind import Carrier

__all__: list[str] = []

_MMIO = (Carrier.MMIO,)
_AREA_REGISTERS = frozenset(
    {
        Register.QUEUE_DESC_LOW,
        Register.QUEUE_DESC_HIGH,
        Register.QUEUE_DRIVER_LOW,
        Register.QUEUE_DRIVER_HIGH,
        Register.QUEUE_DEVICE_LOW,
        Register.QUEUE_DEVICE_HIGH,
    }
)


class _Aligned(Rule):
    statement = ""
    format: RingFormat
    alignments = (1, 1, 1)

    @sees(QueueMadeReady)
    def ready(self, seen: QueueMadeReady) -> None:
        """Look at the three addresses."""
        if seen.format is not self.format:
            return
        areas = seen.areas
        for name, address, alignment in zip(
            ("descriptor", "driver", "device"),
            (areas.descriptor, areas.driver, areas.device),
            self.alignments,
            strict=True,
        ):
            self.expect(
                address % alignment == 0,
                self.statement,
                expected=f"the {name} area of queue {seen.number} at a multiple of {alignment}",
                observed=f"it is at {address:#x}",
            )


@rule("split.areas-aligned", covers=["split.driver.virtqueues.1"], awaits="set a queue up", formats=(RingFormat.SPLIT,))
class SplitAligned(_Aligned):
    """Descriptor table, available ring and used ring begin where they may."""

    statement, format = "split.driver.virtqueues.1", RingFormat.SPLIT
    alignments = (DESCRIPTOR_ALIGNMENT, AVAILABLE_ALIGNMENT, USED_ALIGNMENT)


@rule(
    "packed.areas-aligned", covers=["packed.driver.virtqueues.1"], awaits="set a queue up", formats=(RingFormat.PACKED,)
)
class PackedAligned(_Aligned):
    """Descriptor ring and event suppression structures begin where they may."""

    statement, format = "packed.driver.virtqueues.1", RingFormat.PACKED
    alignments = (RING_ALIGNMENT, EVENT_ALIGNMENT, EVENT_ALIGNMENT)


@rule(
    "split.used-flags-zero",
    covers=["split.driver.available-notification-suppression.1"],
    awaits="set a queue up over virtio-mmio",
    carriers=_MMIO,
    formats=(RingFormat.SPLIT,),
)
class UsedFlagsZero(Rule):
    """The used ring's flags are 0 when the device gets the ring."""

    @sees(QueueMadeReady)
    def ready(self, seen: QueueMadeReady) -> None:
        """Look at the ring before the device does."""
        if seen.format is RingFormat.SPLIT and seen.device_area:
            flags = int.from_bytes(seen.device_area[:2], "little")
            self.expect(
                flags == 0,
                "split.driver.available-notification-suppression.1",
                expected="flags of 0 in a used ring that is new",
                observed=f"{flags:#x}",
                shown=[Shown("the used ring's flags and index", seen.device_area, seen.areas.device)],
            )


@rule("mmio.queue-size", covers=["mmio.driver.registers.14"], awaits="wrote QueueSize", carriers=_MMIO)
class QueueSizeFits(Rule):
    """QueueSize is at most QueueSizeMax."""

    def __init__(self, picture: Picture) -> None:
        super().__init__(picture)
        self._most: dict[int, int] = {}

    @sees(RegisterAccess)
    def access(self, seen: RegisterAccess) -> None:
        """Compare what was read with what is written."""
        if seen.offset == Register.QUEUE_SIZE_MAX and not seen.is_write:
            self._most[seen.queue] = seen.value
        elif seen.offset == Register.QUEUE_SIZE and seen.is_write:
            self._compare(seen.queue, seen.value, self._most.get(seen.queue))

    @sees(QueueMadeReady)
    def ready(self, seen: QueueMadeReady) -> None:
        """A driver that did not look may have chosen a size that is right all the same."""
        self._compare(seen.number, seen.areas.size, seen.size_max)

    def _compare(self, number: int, size: int, most: int | None) -> None:
        if most is not None:
            self.expect(
                size <= most,
                "mmio.driver.registers.14",
                expected=f"at most the {most} of QueueSizeMax",
                observed=f"{size} written for queue {number}",
            )


@rule("mmio.no-change-while-ready", covers=["mmio.driver.registers.15"], awaits="made a queue ready", carriers=_MMIO)
class NoChangeWhileReady(Rule):
    """Size and addresses of a queue are left alone while it is ready."""

    @sees(QueueMadeReady)
    def ready(self, _: QueueMadeReady) -> None:
        """From here on it counts."""
        self.is_exercised = True

    @sees(RegisterAccess)
    def access(self, seen: RegisterAccess) -> None:
        """Look at accesses to a queue that is ready."""
        if seen.offset == Register.QUEUE_SIZE or seen.offset in _AREA_REGISTERS:
            self.expect(
                seen.queue not in self.picture.queues,
                "mmio.driver.registers.15",
                expected=f"{Register(seen.offset).name} left alone while queue {seen.queue} is ready",
                observed=f"{'written with' if seen.is_write else 'read as'} {seen.value:#x}",
            )


@rule(
    "mmio.stop-is-read-back",
    covers=["mmio.driver.registers.16", "mmio.driver.registers.17"],
    awaits="stopped a queue with QueueReady",
    carriers=_MMIO,
)
class StopIsReadBack(Rule):
    """A queue is stopped by 0 in QueueReady, which is read back before anything else is done with it."""

    def __init__(self, picture: Picture) -> None:
        super().__init__(picture)
        self._stopped: int | None = None

    @sees(RegisterAccess)
    def access(self, seen: RegisterAccess) -> None:
        """Look at the access after the write."""
        stopped, self._stopped = self._stopped, None
        if stopped is not None:
            self.expect(
                seen.offset == Register.QUEUE_READY and not seen.is_write,
                "mmio.driver.registers.17",
                expected=f"QueueReady of queue {stopped} read back",
                observed=f"{'a write' if seen.is_write else 'a read'} at {seen.offset:#x}",
            )
        is_write = seen.offset == Register.QUEUE_READY and seen.is_write
        if is_write and seen.value != 1 and seen.queue in self.picture.queues:
            self._stopped = seen.queue
            self.expect(
                seen.value == 0,
                "mmio.driver.registers.16",
                expected=f"0 in QueueReady, to stop queue {seen.queue}",
                observed=f"{seen.value:#x}",
            )


@rule(
    "mmio.queue-reset-is-read-back",
    covers=["queue-reset.driver.reset.1", "mmio.driver.registers.21"],
    awaits="reset a queue",
    carriers=_MMIO,
)
class QueueResetIsReadBack(Rule):
    """After a queue's reset QueueReset is read until it is 0, before the queue is set up again."""

    def __init__(self, picture: Picture) -> None:
        super().__init__(picture)
        self._under_way: dict[int, bool] = {}
        """Queues whose reset is not known to be over, and whether the driver has looked."""

    @sees(DeviceWasReset)
    def was_reset(self, _: DeviceWasReset) -> None:
        """No queue is left."""
        self._under_way.clear()

    @sees(RegisterAccess)
    def access(self, seen: RegisterAccess) -> None:
        """Look at what is done with a queue whose reset is under way."""
        if seen.offset == Register.QUEUE_RESET:
            if seen.is_write and seen.value == 1:
                self._under_way[seen.queue] = False
            elif not seen.is_write and seen.queue in self._under_way:
                self._under_way[seen.queue] = True
                if not seen.value:
                    del self._under_way[seen.queue]
                    self.is_exercised = True
            return
        touches = seen.is_write and (
            seen.offset in (Register.QUEUE_SIZE, Register.QUEUE_READY) or seen.offset in _AREA_REGISTERS
        )
        if touches and seen.queue in self._under_way:
            self.expect(
                False,
                "mmio.driver.registers.21" if self._under_way[seen.queue] else "queue-reset.driver.reset.1",
                expected=f"QueueReset of queue {seen.queue} read as 0 first",
                observed=f"{seen.value:#x} written to {Register(seen.offset).name}",
            )


@rule(
    "mmio.queue-set-up-anew",
    covers=["queue-reset.driver.re-enable.1"],
    awaits="made a queue ready again after its reset",
    carriers=_MMIO,
)
class QueueSetUpAnew(Rule):
    """A queue that was reset gets its size and its addresses again before it is made ready."""

    def __init__(self, picture: Picture) -> None:
        super().__init__(picture)
        self._missing: dict[int, set[int]] = {}

    @sees(DeviceWasReset)
    def was_reset(self, _: DeviceWasReset) -> None:
        """That is another matter."""
        self._missing.clear()

    @sees(RegisterAccess)
    def access(self, seen: RegisterAccess) -> None:
        """Collect what was written."""
        if not seen.is_write:
            return
        if seen.offset == Register.QUEUE_RESET and seen.value == 1:
            self._missing[seen.queue] = {Register.QUEUE_SIZE, *_AREA_REGISTERS}
        elif seen.queue in self._missing:
            self._missing[seen.queue].discard(seen.offset)
            if seen.offset == Register.QUEUE_READY and seen.value == 1:
                missing = self._missing.pop(seen.queue)
                names = ", ".join(Register(each).name for each in sorted(missing))
                self.expect(
                    not missing,
                    "queue-reset.driver.re-enable.1",
                    expected=f"queue {seen.queue} set up whole after its reset",
                    observed=f"{names} not written",
                )
