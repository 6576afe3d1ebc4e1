"""The queues of one device: what the driver wrote about each, and those that are ready."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from vdev.errors import DriverViolation, GuestAddressError, SavedStateError
from vdev.events import Emitter
from vdev.memory import GuestMemory
from vdev.virtqueue.queue import DeviceQueue, QueueAddresses, QueueState

__all__ = ["DeviceQueues", "QueueFactory", "QueueSetup"]

QueueFactory = Callable[[GuestMemory, int, QueueAddresses, int, Emitter], DeviceQueue]
"""(memory, queue number, addresses, negotiated features, events) -> the device's side of a ring of that format.

It raises DriverViolation for addresses that no ring can have.
"""


@dataclass
class QueueSetup:
    """What the driver wrote about one queue: its size in descriptors, and the addresses of its three areas."""

    size: int = 0
    descriptor: int = 0
    driver: int = 0
    device: int = 0


class DeviceQueues:
    """`setups` by queue number, and `ready`: number -> queue, for those that the driver made ready.

    `make_queue` makes them, from the next one on.
    """

    def __init__(self, count: int, memory: GuestMemory, make_queue: QueueFactory, events: Emitter) -> None:
        self.setups = [QueueSetup() for _ in range(count)]
        self.ready: dict[int, DeviceQueue] = {}
        self._memory = memory
        self.make_queue = make_queue
        self._events = events

    def enable(self, number: int, size_max: int, features: int) -> None:
        """Make queue `number` ready as it is set up.

        Raises DriverViolation for a set-up that no ring can have.
        """
        setup = self.setups[number]
        if not 0 < setup.size <= size_max:
            raise DriverViolation(
                "Virtio Over MMIO / MMIO Device Register Layout",
                f"QueueSize {setup.size} is not between 1 and QueueSizeMax {size_max}",
                queue=number,
            )
        self.ready[number] = self._make(number, setup, features)

    def _make(self, number: int, setup: QueueSetup, features: int) -> DeviceQueue:
        addresses = QueueAddresses(setup.size, setup.descriptor, setup.driver, setup.device)
        return self.make_queue(self._memory, number, addresses, features, self._events)

    def attach_again(self, features: int) -> None:
        """Make every ready queue anew where it stands: guest RAM was mapped elsewhere.

        Raises DriverViolation or GuestAddressError for one that is not in RAM any more.
        """
        for number, queue in list(self.ready.items()):
            self.ready[number] = self._make(number, self.setups[number], features)
            self.ready[number].restore(queue.save())

    def forget_setups(self) -> None:
        """Be as before the driver wrote anything."""
        self.setups = [QueueSetup() for _ in self.setups]

    def save(self) -> list[dict[str, Any]]:
        """Return the fields of a QUEUE_STATE of `spec.device_state` for each queue."""
        saved = []
        for number, setup in enumerate(self.setups):
            queue = self.ready.get(number)
            ring = queue.save() if queue is not None else QueueState()
            saved.append({**asdict(setup), "ready": queue is not None, **asdict(ring)})
        return saved

    def restore(self, saved: list[Any], size_max: Callable[[int], int], features: int) -> None:
        """Go on from what `save` gave, parsed; touches no guest RAM.

        Raises SavedStateError for a queue that these features and this RAM cannot have.
        """
        for number, state in enumerate(saved):
            setup = self.setups[number] = QueueSetup(state.size, state.descriptor, state.driver, state.device)
            if not state.ready:
                continue
            try:
                self.enable(number, size_max(number), features)
                self.ready[number].restore(
                    QueueState(
                        next_avail=state.next_avail,
                        next_used=state.next_used,
                        unsignalled_count=state.unsignalled_count,
                        kicks_enabled=state.kicks_enabled,
                        outstanding=tuple(state.outstanding),
                        outstanding_are_last=state.outstanding_are_last,
                        descriptor_counts=tuple(state.descriptor_counts),
                    )
                )
            except (DriverViolation, GuestAddressError, ValueError) as error:
                raise SavedStateError(f"queue {number} at {setup} does not fit: {error}") from error
