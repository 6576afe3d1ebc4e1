"""What raw rings of both formats have in common: buffers made of requests, waiting, and what was posted and used."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise

from vdev.check.bench.arena import Buffer, Place
from vdev.check.bench.control import DeviceControl, RingAreas
from vdev.check.bench.request import Request
from vdev.check.bench.ring import Posted, RingParts, Segment, Used
from vdev.check.registry import RingFormat
from vdev.events import RingAreaStored, UsedElementSeen

__all__ = ["RawRing"]


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
