"""What a judge sees a driver do, one small value for each thing: what rules are fed with."""

from dataclasses import dataclass
from enum import Enum

from vdev.check.driver.raw_chain import RawChain
from vdev.check.registry import RingFormat

__all__ = [
    "Called",
    "ChainGivenBack",
    "ChainMadeAvailable",
    "ConfigRead",
    "ConfigWritten",
    "DeviceWasReset",
    "DeviceWrote",
    "DriverEventSeen",
    "EntryChanged",
    "EntryKept",
    "FeaturesAccepted",
    "FeaturesAgreed",
    "FeaturesOffered",
    "GenerationRead",
    "InterruptAcknowledged",
    "InterruptStatusRead",
    "KickWish",
    "KickWished",
    "Kicked",
    "MessageAnswered",
    "MessageReceived",
    "Observation",
    "QueueAreas",
    "QueueLeft",
    "QueueMadeReady",
    "RegisterAccess",
    "Rested",
    "RingIndexMoved",
    "RingObservation",
    "StatusRead",
    "StatusWritten",
]


@dataclass(frozen=True, slots=True)
class Observation:
    """Base of all observations."""


# virtio-mmio


@dataclass(frozen=True, slots=True)
class RegisterAccess(Observation):
    """Any access to the device's window, before the device did what it means; `queue` is what QueueSel says then.

    Of a write `value` is what is written, of a read what the driver gets.
    """

    offset: int
    size: int
    value: int
    is_write: bool
    queue: int


@dataclass(frozen=True, slots=True)
class InterruptStatusRead(Observation):
    """The driver asked why it was interrupted."""

    value: int


@dataclass(frozen=True, slots=True)
class InterruptAcknowledged(Observation):
    """The driver wrote InterruptACK."""

    value: int


# Status, features, configuration space


@dataclass(frozen=True, slots=True)
class StatusRead(Observation):
    """The driver read the device status."""

    value: int


@dataclass(frozen=True, slots=True)
class StatusWritten(Observation):
    """The driver wrote the device status, which was `before`; the device has not yet looked at it."""

    before: int
    value: int


@dataclass(frozen=True, slots=True)
class DeviceWasReset(Observation):
    """The device was reset by its driver."""


@dataclass(frozen=True, slots=True)
class FeaturesOffered(Observation):
    """The driver read the offered features under `mask`: over virtio-mmio 32 at a time."""

    offered: int
    mask: int


@dataclass(frozen=True, slots=True)
class FeaturesAccepted(Observation):
    """The driver wrote the features under `mask` that it accepts."""

    accepted: int
    mask: int


@dataclass(frozen=True, slots=True)
class FeaturesAgreed(Observation):
    """The device has agreed to these features."""

    features: int


@dataclass(frozen=True, slots=True)
class ConfigRead(Observation):
    """The driver read configuration space, whose generation was `generation`."""

    offset: int
    size: int
    value: int
    generation: int


@dataclass(frozen=True, slots=True)
class ConfigWritten(Observation):
    """The driver wrote configuration space; the device has not yet looked at it."""

    offset: int
    size: int
    value: int


@dataclass(frozen=True, slots=True)
class GenerationRead(Observation):
    """The driver read ConfigGeneration."""

    value: int


# Queues


@dataclass(frozen=True, slots=True)
class QueueAreas:
    """Where a queue is: descriptors, and the guest-physical addresses of its three areas."""

    size: int
    descriptor: int
    driver: int
    device: int


@dataclass(frozen=True, slots=True)
class QueueMadeReady(Observation):
    """The driver made a queue ready; the device has not yet touched it."""

    number: int
    format: RingFormat
    areas: QueueAreas
    size_max: int
    device_area: bytes
    """The first bytes of the device's area as the driver left them, empty where no RAM is."""


@dataclass(frozen=True, slots=True)
class QueueLeft(Observation):
    """A queue is no longer used: the driver stopped or reset it, or the whole device."""

    number: int


@dataclass(frozen=True, slots=True)
class Kicked(Observation):
    """The driver notified the device of available buffers; `data` is what it wrote, None where nothing can be."""

    number: int
    data: int | None


@dataclass(frozen=True, slots=True)
class Called(Observation):
    """The device interrupted the driver, for a queue or (None) for its configuration space."""

    number: int | None


@dataclass(frozen=True, slots=True)
class Rested(Observation):
    """The driver has nothing to do before something happens to it. `is_certain` unless that is only concluded from its
    silence, for the judge's patience.
    """

    is_certain: bool


# Rings


@dataclass(frozen=True, slots=True)
class RingObservation(Observation):
    """Base of what is seen in the memory of one queue."""

    number: int
    format: RingFormat


@dataclass(frozen=True, slots=True)
class RingIndexMoved(RingObservation):
    """A split queue's available index was stored: from `before` to `after`, with `in_flight_count` chains out."""

    before: int
    after: int
    in_flight_count: int


@dataclass(frozen=True, slots=True)
class ChainMadeAvailable(RingObservation):
    """A chain came in; `in_flight` are those that the device has not given back, without it."""

    chain: RawChain
    in_flight: tuple[RawChain, ...]


@dataclass(frozen=True, slots=True)
class EntryKept(RingObservation):
    """All that the driver made available and has not got back stands as it stood; `count` entries were looked at."""

    count: int


@dataclass(frozen=True, slots=True)
class EntryChanged(RingObservation):
    """Something of a chain that the device has not given back is not as it stood. `what` names it."""

    what: str
    address: int
    before: bytes
    after: bytes


@dataclass(frozen=True, slots=True)
class ChainGivenBack(RingObservation):
    """The device used a chain."""

    chain: RawChain
    written_size: int


@dataclass(frozen=True, slots=True)
class DeviceWrote(RingObservation):
    """The device wrote into guest RAM that a request names, as it may."""

    address: int
    size: int


@dataclass(frozen=True, slots=True)
class DriverEventSeen(RingObservation):
    """What the driver's area says of the notifications that it wants, when that changed: bytes and their address."""

    flags: int
    event: int
    address: int


class KickWish(Enum):
    """What a device says of the available buffer notifications that it wants."""

    ALWAYS = "flags 0"
    NEVER = "flags 1"
    AT_NEXT = "the next entry"
    AT_LATER = "a later entry"


@dataclass(frozen=True, slots=True)
class KickWished(RingObservation):
    """The device has just stored which notifications it wants. `ahead` entries (split) or descriptors (packed) from the
    driver's last one that was seen: the first of them is 1, and 0 is never.
    """

    wish: KickWish
    ahead: int


# vhost-user


@dataclass(frozen=True, slots=True)
class MessageReceived(Observation):
    """The front end sent a message; the back end has not yet looked at it. `flags` are the header's.

    The file descriptors are the message's: they may be looked at, and are closed or taken after this.
    """

    request: int
    flags: int
    body: bytes
    fds: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MessageAnswered(Observation):
    """The back end has done what the last message says; `body` is its reply, None if there is none."""

    request: int
    body: bytes | None
    refusal: str
    """Why it was refused, empty if it was not."""
