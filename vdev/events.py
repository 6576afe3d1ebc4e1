"""The event stream: every step that matters, as a small typed value, declared in this one place.

A part of the house holds an `Emitter` of its actor. When nobody listens, a step costs one attribute look:

    if self._events.listening:
        self._events.emit(ChainsPopped(queue=0, heads=(3,)))

Listeners get `Record`s: when (seconds of the injected clock), who (the actor's name), what (the event).
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

__all__ = [
    "EVENT_TYPES",
    "SILENT",
    "Emitter",
    "Event",
    "EventStream",
    "Record",
    "record_from_json",
    "record_to_json",
]


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events."""


@dataclass(frozen=True, slots=True)
class RegisterRead(Event):
    """The driver read a virtio-mmio register or a piece of config space: an exit."""

    device: str
    offset: int
    size: int
    value: int


@dataclass(frozen=True, slots=True)
class RegisterWritten(Event):
    """The driver wrote a virtio-mmio register or a piece of config space: an exit."""

    device: str
    offset: int
    size: int
    value: int


@dataclass(frozen=True, slots=True)
class ChainsMadeAvailable(Event):
    """The driver published these chain heads in one move of the available index."""

    queue: int
    heads: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ChainsPopped(Event):
    """The device took these chain heads from the available ring."""

    queue: int
    heads: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ChainsUsed(Event):
    """The device published these chains as used in one move of the used index; sizes in bytes."""

    queue: int
    heads: tuple[int, ...]
    written_sizes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class UsedCollected(Event):
    """The driver took these chains back from the used ring."""

    queue: int
    heads: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Kick(Event):
    """The driver rang a queue's doorbell; `number` counts this queue's kicks from 1 (the arrow's tail)."""

    queue: int
    number: int


@dataclass(frozen=True, slots=True)
class KickHandled(Event):
    """The device woke for kicks `first` to `last` of a queue (several fold into one wake-up)."""

    queue: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Call(Event):
    """The device interrupted the driver; `number` counts the device's interrupts from 1."""

    device: str
    number: int


@dataclass(frozen=True, slots=True)
class CallHandled(Event):
    """The driver woke for interrupts `first` to `last`."""

    device: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class DeviceStatusChanged(Event):
    """The device status field went from `before` to `after`."""

    device: str
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class ConfigChanged(Event):
    """The device changed its config space; `generation` is the value after."""

    device: str
    generation: int


@dataclass(frozen=True, slots=True)
class ConfigWritten(Event):
    """The driver changed the device's config space: `size` bytes at `offset`."""

    device: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class ViolationFound(Event):
    """A side broke the text; the device needs a reset, or the driver gave the device up."""

    device: str
    side: str
    statement: str
    message: str


@dataclass(frozen=True, slots=True)
class RequestFailed(Event):
    """The host could not do what a request asked, for no fault of the driver, which is told by the request's status."""

    device: str
    queue: int
    request: str
    reason: str


@dataclass(frozen=True, slots=True)
class FrontEndConnected(Event):
    """A vhost-user front end came to a served device; `number` counts them from 1."""

    device: str
    number: int


@dataclass(frozen=True, slots=True)
class FrontEndGone(Event):
    """The vhost-user front end went, or was sent away: the device was reset."""

    device: str
    number: int


@dataclass(frozen=True, slots=True)
class HintStateChanged(Event):
    """The device's free-page-hint state machine moved."""

    before: str
    after: str
    command_id: int


@dataclass(frozen=True, slots=True)
class HintApplied(Event):
    """A hint took `cleared_count` of its `page_count` pages out of the set still to send."""

    address: int
    size: int
    page_count: int
    cleared_count: int


@dataclass(frozen=True, slots=True)
class HintRefused(Event):
    """A hint was not applied; `reason` says why."""

    address: int
    size: int
    reason: str


@dataclass(frozen=True, slots=True)
class PagesInflated(Event):
    """Pages entered the balloon; `returned_size` bytes went back to the operating system."""

    page_count: int
    returned_size: int


@dataclass(frozen=True, slots=True)
class PagesDeflated(Event):
    """Pages left the balloon."""

    page_count: int


@dataclass(frozen=True, slots=True)
class PagesReported(Event):
    """The guest reported free pages; `returned_size` bytes went back to the operating system."""

    page_count: int
    returned_size: int


@dataclass(frozen=True, slots=True)
class StatisticsReceived(Event):
    """The guest answered a request for statistics: (tag, value) pairs."""

    values: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class PhaseChanged(Event):
    """The migration went from one phase to the next."""

    before: str
    after: str


@dataclass(frozen=True, slots=True)
class DirtyLogSynced(Event):
    """The dirty log was merged into the set still to send: `dirty_count` pages, `remaining_count` after."""

    number: int
    dirty_count: int
    remaining_count: int


@dataclass(frozen=True, slots=True)
class RunSent(Event):
    """`page_count` pages from page number `page` on went on the wire; `kind` is "data" or "zero"."""

    page: int
    page_count: int
    kind: str


@dataclass(frozen=True, slots=True)
class RunLoaded(Event):
    """The destination loaded `page_count` pages from page number `page` on."""

    page: int
    page_count: int
    kind: str


@dataclass(frozen=True, slots=True)
class VcpuPaused(Event):
    """The vCPU stopped between two operations and gave its state up."""


@dataclass(frozen=True, slots=True)
class VcpuResumed(Event):
    """The vCPU runs (again)."""


@dataclass(frozen=True, slots=True)
class PagesAllocated(Event):
    """The guest's allocator handed out a block of 2**order pages."""

    page: int
    order: int
    owner: int


@dataclass(frozen=True, slots=True)
class PagesFreed(Event):
    """The guest's allocator took a block of 2**order pages back."""

    page: int
    order: int


@dataclass(frozen=True, slots=True)
class GuestVerified(Event):
    """The guest checked all that it relies on."""

    page_count: int
    mismatched_count: int


@dataclass(frozen=True, slots=True)
class MessageSent(Event):
    """A vhost-user message went out: its request (or the request that it answers), bytes with header, descriptors."""

    request: str
    size: int
    fd_count: int


@dataclass(frozen=True, slots=True)
class MessageReceived(Event):
    """A vhost-user message came in: its request (or the request that it answers), bytes with header, descriptors."""

    request: str
    size: int
    fd_count: int


@dataclass(frozen=True, slots=True)
class RingAreaStored(Event):
    """A bench stored bytes (`data`, hex) into a part of a queue, `offset` bytes from its beginning."""

    queue: int
    area: str
    offset: int
    data: str


@dataclass(frozen=True, slots=True)
class UsedElementSeen(Event):
    """A bench read a used element; `position` is its slot, in a packed ring with the wrap counter in bit 15."""

    queue: int
    id: int
    length: int
    position: int


EVENT_TYPES: dict[str, type[Event]] = {cls.__name__: cls for cls in Event.__subclasses__()}
"""Name -> class, of every event there is."""


@dataclass(frozen=True, slots=True)
class Record:
    """One event with its time (seconds of the stream's clock) and its actor."""

    time: float
    actor: str
    event: Event


Listener = Callable[[Record], None]


class EventStream:
    """Hands every emitted event to every listener, in order, synchronously.

    `clock` gives the time in seconds: a mock clock in one loop, CLOCK_MONOTONIC between processes of one machine.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._listeners: list[Listener] = []
        self._emitters: list[Emitter] = []

    @property
    def listening(self) -> bool:
        """Whether anybody listens."""
        return bool(self._listeners)

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` with each later record."""
        self._listeners.append(listener)
        for emitter in self._emitters:
            emitter.listening = True

    def emitter(self, actor: str) -> "Emitter":
        """Return the emitter that signs with `actor`."""
        emitter = Emitter(self, actor)
        emitter.listening = bool(self._listeners)
        self._emitters.append(emitter)
        return emitter

    def emit(self, actor: str, event: Event) -> None:
        """Stamp `event` with the time and hand it to every listener."""
        self.forward(Record(self._clock(), actor, event))

    def forward(self, record: Record) -> None:
        """Hand on a record that another process stamped."""
        for listener in self._listeners:
            listener(record)


class Emitter:
    """One actor's end of the stream. Look at `listening` before building an event."""

    __slots__ = ("_actor", "_stream", "listening")

    def __init__(self, stream: EventStream | None, actor: str) -> None:
        self._stream = stream
        self._actor = actor
        self.listening = False

    def emit(self, event: Event) -> None:
        """Hand `event` to the stream's listeners; does nothing when nobody listens."""
        if self.listening and self._stream is not None:
            self._stream.emit(self._actor, event)


SILENT = Emitter(None, "nobody")
"""The emitter of a part that is not observed."""


def record_to_json(record: Record) -> dict[str, Any]:
    """Return the record as a flat JSON-ready mapping: time, actor, event, then the event's own fields."""
    event = record.event
    values = {field.name: getattr(event, field.name) for field in fields(event)}
    return {"time": record.time, "actor": record.actor, "event": type(event).__name__, **values}


def record_from_json(mapping: dict[str, Any]) -> Record:
    """Return the record that `record_to_json` wrote.

    Raises KeyError for an unknown event name or a missing field.
    """
    cls = EVENT_TYPES[mapping["event"]]
    values = {field.name: _tuples(mapping[field.name]) for field in fields(cls)}
    return Record(mapping["time"], mapping["actor"], cls(**values))


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
