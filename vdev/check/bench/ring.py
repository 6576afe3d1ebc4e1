"""What raw rings of both formats have in common: buffers made of requests, waiting, and what was posted and used."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

from vdev.check.bench.arena import Arena, Buffer, Place
from vdev.check.bench.control import DeviceControl, RingAreas
from vdev.check.bench.request import Request
from vdev.check.evidence import Shown
from vdev.check.registry import RingFormat
from vdev.events import Emitter, RingAreaStored, UsedElementSeen

__all__ = ["Posted", "RawRing", "Ring", "RingParts", "Segment", "Used"]


class Segment(NamedTuple):
    """A part of a buffer: what one descriptor speaks of. Guest-physical, bytes."""

    address: int
    size: int
    writable: bool


class Used(NamedTuple):
    """A used element as it was read. `position` is its slot, in a packed ring with the wrap counter in bit 15.

    `buffers` is how many buffers it stands for; more than one only with IN_ORDER.
    """

    id: int
    length: int
    position: int
    buffers: int = 1


@dataclass(frozen=True, slots=True)
class Posted:
    """A chain that stands in the ring. `head` is its head's index, in a packed ring its buffer id.

    `slots` are the descriptors of the ring that it takes, `table` the indirect table, `buffers` what was allocated.
    """

    head: int
    segments: tuple[Segment, ...]
    slots: tuple[int, ...]
    request: Request | None = None
    table: Buffer | None = None
    buffers: tuple[Buffer, ...] = ()


@dataclass(frozen=True, slots=True)
class RingParts:
    """What a ring is made of beside its number and size: memory, what carries it, features, and whom it tells."""

    memory: Arena
    control: DeviceControl
    features: int
    events: Emitter


class Ring(Protocol):
    """A queue in a check's hands, whatever its format. Nothing is done that is not asked for."""

    number: int
    size: int
    format: RingFormat
    areas: RingAreas

    def post(
        self,
        request: Request | None = None,
        *,
        segments: Sequence[Segment] | None = None,
        indirect: bool = False,
        cuts: Sequence[int] | None = None,
        head: int | None = None,
        place: Place = Place.LOW,
        offset_in_page: int | None = None,
    ) -> Posted:
        """Store the descriptors of a request, or of `segments`; the device is not shown them before `publish`.

        `cuts` are offsets in the device-readable bytes with the device-writable ones behind them: a new segment begins
        at each, a repeated one makes a segment of no bytes. There is always a cut between the two parts. With
        `indirect` the chain is a table of its own. `head` is the head's index, in a packed ring the buffer id, instead
        of the next free one. `place` and `offset_in_page` are those of `Arena.allocate`.
        """
        ...

    def publish(self, count: int | None = None) -> None:
        """Make the oldest `count` chains available that were posted and not published, None for all."""
        ...

    def kick(self) -> None:
        """Notify the device, whether it wants that or not."""
        ...

    def kicks_wanted(self) -> bool:
        """Say whether the device wants to be notified of what was published since this was last asked."""
        ...

    def used_now(self) -> list[Used]:
        """Collect the used elements that are there; never waits."""
        ...

    def wait_used(self, count: int = 1) -> Used:
        """Collect elements for `count` buffers, and return the last. Raises TargetHung or ConnectionClosed."""
        ...

    def wait_all(self, count: int) -> list[Used]:
        """Collect elements for `count` buffers. Raises TargetHung or ConnectionClosed."""
        ...

    def written(self, posted: Posted) -> bytes:
        """Return the device-writable bytes of a chain as they are now."""
        ...

    def release(self, posted: Posted) -> None:
        """Let later requests have the memory of this one; the canaries round it are looked at before."""
        ...

    def suppress_calls(self) -> None:
        """Tell the device that no used buffer is to be told."""
        ...

    def allow_calls(self) -> None:
        """Tell the device that the next used buffer is to be told."""
        ...

    def call_at(self, position: int) -> None:
        """Tell the device to tell of the used element at `position`; needs EVENT_IDX."""
        ...

    def show_used(self, used: Used) -> Shown:
        """Return the bytes of a used element."""
        ...

    def show_areas(self) -> list[Shown]:
        """Return the bytes of all parts of the ring."""
        ...

    def stop(self) -> int | None:
        """Stop the queue; nothing in it is touched afterwards. Returns the ring base over vhost-user."""
        ...

    def resume(self, base: int | None = None) -> None:
        """Have a stopped queue go on where it was; `base` is what `stop` returned."""
        ...

    def carry_by(self, control: DeviceControl) -> None:
        """Be carried by another connection from now on."""
        ...

    @property
    def base(self) -> int:
        """The ring base (vhost-user) with which the ring goes on behind what was collected."""
        ...

    def has_used(self) -> bool:
        """Say whether there is a used element that was not collected."""
        ...

    def has(self, feature: int) -> bool:
        """Say whether a feature is negotiated."""
        ...


class RawRing(ABC):
    """The part of a ring that does not hang on its format."""

    format: RingFormat
    areas: RingAreas

    def __init__(self, parts: RingParts, number: int, size: int) -> None:
        self.number = number
        self.size = size
        self.features = parts.features
        self._memory = parts.memory
        self._control = parts.control
        self._events = parts.events
        self._posted: list[Posted] = []
        """Not published yet."""
        self._outstanding: dict[int, Posted] = {}
        """Published and not used, by head, in the order in which they were published."""

    def has(self, feature: int) -> bool:
        """Say whether a feature is negotiated."""
        return bool(self.features >> feature & 1)

    def carry_by(self, control: DeviceControl) -> None:
        """Be carried by another connection from now on."""
        self._control = control

    # Requests as segments

    def _make_segments(
        self, request: Request, cuts: Sequence[int], place: Place, offset_in_page: int | None
    ) -> tuple[list[Segment], list[Buffer]]:
        border, end = len(request.readable), len(request.readable) + request.writable_size
        if any(not 0 <= cut <= end for cut in cuts):
            raise ValueError(f"cuts {cuts} are not all between 0 and {end}")
        segments, buffers = [], []
        for begin, limit, writable in [*_parts(0, border, cuts, False), *_parts(border, end, cuts, True)]:
            data = None if writable else request.readable[begin:limit]
            name = f"{'device-writable' if writable else 'device-readable'} buffer of queue {self.number}"
            buffer = self._memory.allocate(
                limit - begin, data=data, what=name, place=place, offset_in_page=offset_in_page
            )
            if writable:
                self._memory.fill(buffer)
            else:
                self._memory.hold(buffer)
            segments.append(Segment(buffer.address, buffer.size, writable))
            buffers.append(buffer)
        return segments, buffers

    def written(self, posted: Posted) -> bytes:
        """Return the device-writable bytes of a chain as they are now."""
        return b"".join(
            self._memory.read(segment.address, segment.size) for segment in posted.segments if segment.writable
        )

    def release(self, posted: Posted) -> None:
        """Let later requests have the memory of this one; the canaries round it are looked at before."""
        for buffer in posted.buffers:
            self._memory.release(buffer)

    # Used elements

    def used_now(self) -> list[Used]:
        """Collect the used elements that are there; never waits."""
        return self._collect(1 << 16)

    def wait_used(self, count: int = 1) -> Used:
        """Collect elements for `count` buffers, and return the last. Raises TargetHung or ConnectionClosed."""
        return self.wait_all(count)[-1]

    def wait_all(self, count: int) -> list[Used]:
        """Collect elements for `count` buffers. Raises TargetHung or ConnectionClosed."""
        found: list[Used] = []
        missing = count
        while missing > 0:
            new = self._collect(missing)
            missing -= sum(used.buffers for used in new)
            found += new
            if missing > 0 and not self.has_used():
                what = f"use {count} buffer{'s' * (count > 1)} of queue {self.number} ({missing} missing)"
                self._control.wait(self.number, self.has_used, what)
        return found

    @abstractmethod
    def has_used(self) -> bool:
        """Say whether there is a used element that was not collected."""

    @abstractmethod
    def _collect(self, limit: int) -> list[Used]:
        """Return the next elements, for at least `limit` buffers if there are as many."""

    def _retire(self, head: int, *, in_order: bool) -> list[Posted]:
        """Take a chain that was used out of those outstanding, and with IN_ORDER all that are older."""
        if head not in self._outstanding:
            return []
        retired = []
        if in_order:
            for older in list(self._outstanding):
                retired.append(self._outstanding.pop(older))
                if older == head:
                    break
        else:
            retired.append(self._outstanding.pop(head))
        return retired

    def _note_used(self, used: Used) -> None:
        if self._events.listening:
            self._events.emit(UsedElementSeen(self.number, used.id, used.length, used.position))

    def _note_store(self, area: str, offset: int, data: bytes) -> None:
        if self._events.listening:
            self._events.emit(RingAreaStored(self.number, area, offset, data.hex()))

    def stop(self) -> int | None:
        """Stop the queue; nothing in it is touched afterwards. Returns the ring base over vhost-user."""
        return self._control.stop_queue(self.number)

    def resume(self, base: int | None = None) -> None:
        """Have a stopped queue go on where it was; `base` is what `stop` returned."""
        self._control.set_up_queue(self.number, self.areas, base=base or 0)
        self._control.start_queue(self.number)


def _parts(begin: int, end: int, cuts: Sequence[int], writable: bool) -> list[tuple[int, int, bool]]:
    """Return begin and end of each segment of one part of a request."""
    inside = sorted(cut for cut in cuts if begin <= cut <= end)
    edges = [begin, *(cut for cut in inside if begin < cut < end or inside.count(cut) > 1), end]
    pairs = list(pairwise(edges))
    # A cut that stands twice makes a segment without bytes; one at the part's end cuts nothing off.
    return [
        (low, high, writable) for place, (low, high) in enumerate(pairs) if low < high or 0 < place < len(pairs) - 1
    ]
