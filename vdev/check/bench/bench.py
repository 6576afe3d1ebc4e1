"""What a check holds in its hands: one device, all that is between it and a driver, and what is said of it."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from time import monotonic
from types import TracebackType
from typing import Any, NoReturn, Self

from spec.device import Feature, feature_mask, feature_names
from vdev.check.bench.arena import Arena, Place
from vdev.check.bench.control import DeviceControl
from vdev.check.bench.mmio_control import MmioControl
from vdev.check.bench.packed_ring import PackedRing
from vdev.check.bench.registers import Registers
from vdev.check.bench.request import Request
from vdev.check.bench.ring import Ring, RingParts, Used
from vdev.check.bench.split_ring import SplitRing
from vdev.check.bench.traffic import Traffic
from vdev.check.evidence import Evidence, Shown
from vdev.check.registry import RingFormat
from vdev.check.target import Target
from vdev.check.verdict import Failed, Inconclusive, NotApplicable
from vdev.devices.kind import Carrier
from vdev.events import EventStream, Record

__all__ = ["Bench"]

_RECORD_COUNT = 64
"""Events that are kept as evidence."""


class Bench:
    """One case's: a device of `target` with rings of `ring_format`, and requests of its type. Use it in a `with`.

    `random` is what a check takes its luck from. `events`, if given, gets all that happens here as well.
    """

    def __init__(
        self,
        target: Target,
        traffic: Traffic,
        ring_format: RingFormat,
        *,
        random: Random | None = None,
        events: EventStream | None = None,
    ) -> None:
        self.target = target
        self.carrier = target.carrier
        self.format = ring_format
        self.traffic = traffic
        self.random = random or Random(0)
        self.memory = Arena()
        self.sentences: list[str] = []
        """What was done, a sentence each."""
        self.records: deque[Record] = deque(maxlen=_RECORD_COUNT)
        """The last events."""
        stream = EventStream(monotonic)
        stream.subscribe(self.records.append)
        if events is not None:
            stream.subscribe(events.forward)
        self._events = stream.emitter("driver")
        self._control: DeviceControl | None = None
        self._registers: Registers | None = None
        self._offered: int | None = None
        self.features = 0
        """The mask that is negotiated."""
        self.rings: dict[int, Ring] = {}
        """The queues that are set up, by number."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close whatever is open here; the target is not."""
        self.memory.close()

    # Raw ends

    @property
    def control(self) -> DeviceControl:
        """The calls that both carriers have."""
        if self._control is None:
            self._registers = Registers(self.target.plug_in(self.memory.as_guest_memory()), self._events)
            self._control = MmioControl(self._registers, self._events)
        return self._control

    @property
    def registers(self) -> Registers:
        """The raw registers. Raises NotApplicable behind vhost-user."""
        if self.carrier is not Carrier.MMIO:
            raise NotApplicable("the device is not behind virtio-mmio registers")
        assert self.control
        assert self._registers is not None
        return self._registers

    @property
    def offered(self) -> int:
        """The mask of features that are offered; over vhost-user those of the session are among them."""
        if self._offered is None:
            self._offered = self.control.offered_features()
        return self._offered

    def offers(self, feature: int) -> bool:
        """Say whether a feature is offered."""
        return bool(self.offered >> feature & 1)

    # Bring-up

    def start(
        self,
        *,
        features: Iterable[int] = (),
        only: Iterable[int] | None = None,
        queues: Mapping[int, int] | None = None,
        size: int | None = None,
        drive: bool = True,
        place: Place = Place.LOW,
    ) -> None:
        """Bring the device up as a driver does, from a reset to DRIVER_OK.

        Negotiated are VERSION_1 if it is offered, RING_PACKED if the case is of that format, what the traffic needs,
        and `features`; with `only`, just those. `queues` are set up, number and size (all that the traffic needs), as
        large as the device allows; `size` is for all of them. Rings are at `place`. With `drive` false nothing is
        enabled, and DRIVER_OK is not set.

        Raises NotApplicable if a feature is not offered or a size is too large.
        """
        mask = self._choose(features, only)
        if self.rings:
            self.reset()
        control = self.control
        control.begin()
        names = ", ".join(feature_names(mask)) or "no features"
        if not control.accept_features(mask):
            raise Inconclusive(f"the device did not let FEATURES_OK stand for {names}, all of which it offers")
        self.features = mask
        wanted = dict(self.traffic.queues(self)) if queues is None else dict(queues)
        for number, queue_size in wanted.items():
            self.set_up(number, self._queue_size(number, queue_size, size), place=place)
        sizes = ", ".join(f"{number} ({ring.size})" for number, ring in self.rings.items())
        self.done(f"start the device with {names} and queues {sizes}")
        if drive:
            self.drive()

    def drive(self) -> None:
        """Enable the rings, set DRIVER_OK, and do what the device's type wants to have done first."""
        self.control.run()
        self.traffic.prepare(self)

    def _choose(self, features: Iterable[int], only: Iterable[int] | None) -> int:
        if only is not None:
            needed = feature_mask(*only)
        else:
            needed = feature_mask(*features, *self.traffic.needs)
            if self.format is RingFormat.PACKED:
                needed |= feature_mask(Feature.RING_PACKED)
        if missing := needed & ~self.offered:
            raise NotApplicable(f"the device does not offer {', '.join(feature_names(missing))}")
        return needed if only is not None else needed | self.offered & feature_mask(Feature.VERSION_1)

    def _queue_size(self, number: int, wanted: int, size: int | None) -> int:
        most = self.control.queue_size_max(number)
        if most == 0:
            raise Inconclusive(f"the device has no queue {number}")
        if size is not None and most is not None and size > most:
            raise NotApplicable(f"queue {number} has at most {most} descriptors, not {size}")
        return size or min(wanted, most or wanted)

    def set_up(self, number: int, size: int, *, place: Place = Place.LOW) -> Ring:
        """Make a ring of the case's format for a queue, and tell the device of it. Returns it."""
        parts = RingParts(self.memory, self.control, self.features, self._events)
        ring: Ring
        if self.format is RingFormat.PACKED:
            ring = PackedRing(parts, number, size, place=place)
        else:
            ring = SplitRing(parts, number, size, place=place)
        self.control.set_up_queue(number, ring.areas)
        self.rings[number] = ring
        return ring

    def ring(self, number: int | None = None) -> Ring:
        """Return a queue that is set up, without a number that of plain requests."""
        return self.rings[self.traffic.queue if number is None else number]

    def reset(self) -> None:
        """Reset the device; no queue is set up then."""
        self.done("reset the device")
        self.control.reset()
        self.rings.clear()

    # Requests

    def exchange(
        self, ring: Ring, request: Request | None = None, *, statement: str | None = None, **layout: Any
    ) -> Used:
        """Send a request (a plain one) and hold its answer against what it has to be. `layout` is for `Ring.post`.

        A wrong answer breaks `statement`; without one it is INCONCLUSIVE.
        """
        request = request or self.traffic.plain(self)
        posted = ring.post(request, **layout)
        ring.publish()
        ring.kick()
        used = ring.wait_used()
        if used.id != posted.head:
            complaint: str | None = f"the element names {used.id}, and {posted.head} was made available"
        elif request.written is not None and used.length != request.written:
            complaint = f"{used.length} bytes are said to be written, not {request.written}"
        else:
            complaint = request.check(ring.written(posted), used.length)
        if complaint is not None:
            if statement is not None:
                self.fail(statement, expected="a right answer", observed=complaint, shown=[ring.show_used(used)])
            self.inconclusive(f"a plain request was answered wrongly: {complaint}")
        ring.release(posted)
        return used

    # What is said

    def done(self, sentence: str) -> None:
        """Note what is done."""
        self.sentences.append(sentence)

    def expect(self, is_so: bool, statement: str, *, expected: str, observed: str, shown: Sequence[Shown] = ()) -> None:
        """Fail if something is not as a statement has it."""
        if not is_so:
            self.fail(statement, expected=expected, observed=observed, shown=shown)

    def fail(self, statement: str, *, expected: str, observed: str, shown: Sequence[Shown] = ()) -> NoReturn:
        """End the check: the device broke the statement."""
        raise Failed(statement, expected=expected, observed=observed, shown=tuple(shown))

    def inconclusive(self, why: str) -> NoReturn:
        """End the check: nothing can be said."""
        raise Inconclusive(why)

    def not_applicable(self, why: str) -> NoReturn:
        """End the check: its condition is not met."""
        raise NotApplicable(why)

    def evidence(self, *, expected: str = "", observed: str = "", shown: Sequence[Shown] = ()) -> Evidence:
        """Return what was done and the last events, with what was expected and observed."""
        return Evidence(tuple(self.sentences), expected, observed, tuple(shown), tuple(self.records))

    def host(self, action: str, **arguments: Any) -> Mapping[str, Any]:
        """Have the device's host act, as on its control socket. Raises Inconclusive if the target has no host."""
        if self.target.host is None:
            raise Inconclusive(f"the host must act for this ({action}), and nobody can ask it to")
        self.done(f"have the host do {action} {dict(arguments) or ''}".rstrip())
        return self.target.host(action, arguments)
