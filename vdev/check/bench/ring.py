"""A queue in a check's hands: what every raw ring does, whatever its format, and what it is asked with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from vdev.check.bench.arena import Arena, Buffer, Place
from vdev.check.bench.control import DeviceControl, RingAreas
from vdev.check.bench.request import Request
from vdev.check.evidence import Shown
from vdev.check.registry import RingFormat
from vdev.events import Emitter

__all__ = ["Posted", "Ring", "RingParts", "Segment", "Used"]


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
