"""What a guest asks of its drivers, whatever they drive, and what it gives each of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from guest_agent.drivers.balloon.behaviour import HintBehaviour
from guest_agent.drivers.pages import PageAllocator
from guest_agent.transport import Transport
from spec.balloon import QueueNumbering
from spec.device import Feature, feature_mask, is_device_type_feature
from vdev.events import Emitter
from vdev.memory import GuestMemory

__all__ = ["Driver", "DriverKind", "DriverOptions", "Surroundings"]


@dataclass(frozen=True)
class DriverOptions:
    """What drivers are started with.

    `wanted_features` masks the bits that belong to the device type, `ring_features` the others; VERSION_1 is always
    wanted. `numbering` matters to devices that know more than one. A queue has `queue_size` descriptors (a power of
    two), or fewer if the device cannot have so many. `hint_behaviour` is for a balloon.
    """

    wanted_features: int
    ring_features: int
    queue_size: int
    numbering: QueueNumbering
    hint_behaviour: HintBehaviour = field(default_factory=HintBehaviour)

    def allowed(self, known_features: int) -> int:
        """Return those of a driver's `known_features` (a mask) that it may use."""
        allowed = feature_mask(Feature.VERSION_1)
        for bit in range(known_features.bit_length()):
            wanted = self.wanted_features if is_device_type_feature(bit) else self.ring_features
            allowed |= known_features & wanted & 1 << bit
        return allowed


@dataclass(frozen=True)
class Surroundings:
    """The guest round a driver: RAM, the page allocator, statistics by tag, how free pages are poisoned, who listens.

    `poison_value` is a 32-bit pattern, None where freed pages keep their content.
    """

    memory: GuestMemory
    allocator: PageAllocator
    statistics: Callable[[], Mapping[int, int]]
    poison_value: int | None
    events: Emitter


class Driver(Protocol):
    """Drives one device. The object remembers nothing: the state is in the driver's area of guest RAM.

    The device's breaking the text makes the driver give it up, which raises nothing here: the guest lives on.
    """

    @property
    def gave_up(self) -> str | None:
        """Why the device was given up, None while it is in use."""
        ...

    def handle_interrupt(self) -> None:
        """Look why the device interrupted, and note what is to be done; `work` does it."""
        ...

    def work(self) -> bool:
        """Do one bounded piece of what is to be done; return whether there is more to do at once."""
        ...

    def housekeep(self, now: float) -> float:
        """Look for what no interrupt tells of, at `now` in seconds; called a few times a second.

        Returns the seconds until it is to be called again at the latest; infinity leaves that to the caller.
        """
        ...


class _Start(Protocol):
    def __call__(
        self, transport: Transport, area_address: int, guest: Surroundings, options: DriverOptions
    ) -> Driver: ...


class _Resume(Protocol):
    def __call__(self, transport: Transport, area_address: int, guest: Surroundings) -> Driver: ...


@dataclass(frozen=True)
class DriverKind:
    """How the driver of one device type is made; `guest_agent.drivers.registry` has them all.

    `area_size` gives the bytes of guest RAM, whole pages, that it needs for itself. `start` brings the device up and
    raises DeviceRefused or DeviceViolation; `resume` goes on where another object left the area, touches no register,
    and raises NoQueueHere if there is no such area.
    """

    area_size: Callable[[DriverOptions], int]
    start: _Start
    resume: _Resume
