"""What is known of a driver and its device at a moment: what rules and games look at."""

from dataclasses import dataclass, field

from spec.device import DeviceStatus
from vdev.check.driver.observation import (
    ChainGivenBack,
    ChainMadeAvailable,
    ConfigRead,
    DeviceWasReset,
    FeaturesAccepted,
    FeaturesAgreed,
    FeaturesOffered,
    Kicked,
    Observation,
    QueueAreas,
    QueueLeft,
    QueueMadeReady,
    StatusWritten,
)
from vdev.check.registry import RingFormat
from vdev.devices.kind import Carrier
from vdev.memory import GuestMemory

__all__ = ["Picture", "QueuePicture"]


@dataclass
class QueuePicture:
    """One queue that is ready. Counts begin when it was made ready."""

    number: int
    format: RingFormat
    areas: QueueAreas
    size_max: int
    available_count: int = 0
    used_count: int = 0
    kick_count: int = 0

    @property
    def in_flight_count(self) -> int:
        """Chains that the device has and has not given back."""
        return self.available_count - self.used_count


@dataclass
class Picture:
    """Kept up to date by the sitting: rules see an observation before it is noted here.

    Counts run from the driver's start (`start_count` counts those, too) and are never set back.
    """

    carrier: Carrier
    memory: GuestMemory
    device_type: str
    device_id: int
    queue_count: int
    """How many queues the device has."""
    offered: int
    """What the device offers."""
    shown: int = 0
    """Those of the offered features that the driver has read, since the last reset."""
    read_mask: int = 0
    """For which bits it asked."""
    accepted: int = 0
    features: int | None = None
    """What was agreed, None before."""
    status: int = 0
    queues: dict[int, QueuePicture] = field(default_factory=dict)
    available_count: int = 0
    used_count: int = 0
    kick_count: int = 0
    reset_count: int = 0
    config_read_count: int = 0
    driver_ok_count: int = 0
    failed_count: int = 0

    def has(self, bit: int) -> bool:
        """Say whether a feature is agreed."""
        return bool((self.features or 0) >> bit & 1)

    @property
    def is_live(self) -> bool:
        """Whether DRIVER_OK is set, or over vhost-user a queue is served."""
        if self.carrier is Carrier.VHOST_USER:
            return bool(self.queues)
        return bool(self.status & DeviceStatus.DRIVER_OK)

    def note(self, seen: Observation) -> None:
        """Take an observation into account."""
        match seen:
            case ChainMadeAvailable():
                self.available_count += 1
                self.queues[seen.number].available_count += 1
            case ChainGivenBack():
                self.used_count += 1
                self.queues[seen.number].used_count += 1
            case Kicked():
                self.kick_count += 1
                if seen.number in self.queues:
                    self.queues[seen.number].kick_count += 1
            case ConfigRead():
                self.config_read_count += 1
            case StatusWritten():
                self._note_status(seen)
            case FeaturesOffered():
                self.shown |= seen.offered & seen.mask
                self.read_mask |= seen.mask
            case FeaturesAccepted():
                self.accepted = self.accepted & ~seen.mask | seen.accepted & seen.mask
            case FeaturesAgreed():
                self.features = seen.features
            case QueueMadeReady():
                self.queues[seen.number] = QueuePicture(seen.number, seen.format, seen.areas, seen.size_max)
            case QueueLeft():
                self.queues.pop(seen.number, None)
            case DeviceWasReset():
                self.reset_count += 1
                self.features, self.accepted = None, 0
                if self.carrier is Carrier.MMIO:
                    # A front end asks once, and knows it from then on.
                    self.shown = self.read_mask = 0

    def _note_status(self, seen: StatusWritten) -> None:
        new = seen.value & ~seen.before
        self.driver_ok_count += bool(new & DeviceStatus.DRIVER_OK)
        self.failed_count += bool(new & DeviceStatus.FAILED)
