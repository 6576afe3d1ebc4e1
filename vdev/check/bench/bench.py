"""What a check holds in its hands: one device, all that is between it and a driver, and what is said of it."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from random import Random
from types import TracebackType
from typing import Any, Self

from spec.device import Feature, feature_mask, feature_names
from spec.packed_ring import FIRST_POSITION
from vdev.check.bench.arena import Arena, Place
from vdev.check.bench.control import DeviceControl
from vdev.check.bench.fate import Fate, fate_over_mmio, fate_over_vhost
from vdev.check.bench.front_end import FrontEnd
from vdev.check.bench.line import Line
from vdev.check.bench.mmio_control import MmioControl
from vdev.check.bench.notebook import Notebook
from vdev.check.bench.packed_ring import PackedRing
from vdev.check.bench.registers import Registers
from vdev.check.bench.request import Request
from vdev.check.bench.ring import Ring, RingParts, Used
from vdev.check.bench.split_ring import SplitRing
from vdev.check.bench.traffic import Traffic
from vdev.check.bench.vhost_control import VhostControl
from vdev.check.registry import RingFormat
from vdev.check.target import ConnectionClosed, Target
from vdev.check.verdict import Inconclusive, NotApplicable, TargetCrashed
from vdev.devices.kind import Carrier
from vdev.errors import VdevError
from vdev.events import EventStream

__all__ = ["Bench"]


class Bench(Notebook):
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
        super().__init__(events)
        self.target = target
        self.carrier = target.carrier
        self.format = ring_format
        self.traffic = traffic
        self.random = random or Random(0)
        self.memory = Arena()
        self._line = Line(target, self.memory, self._events)
        self._is_up = self._is_driven = False
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
        self._disconnect()
        self.memory.close()

    def _disconnect(self) -> None:
        self._is_up = self._is_driven = False
        self._line.close()

    # Raw ends

    @property
    def control(self) -> DeviceControl:
        """The calls that both carriers have; the first look connects, or plugs a new device in."""
        return self._line.control

    @property
    def registers(self) -> Registers:
        """The raw registers. Raises NotApplicable behind vhost-user."""
        return self._line.registers

    @property
    def front_end(self) -> FrontEnd:
        """The raw vhost-user end. Raises NotApplicable behind virtio-mmio."""
        return self._line.front_end

    @property
    def offered(self) -> int:
        """The mask of features that are offered; over vhost-user those of the session are among them."""
        if self._offered is None:
            self._offered = self.control.offered_features()
        return self._offered

    def offers(self, feature: int) -> bool:
        """Say whether a feature is offered."""
        return bool(self.offered >> feature & 1)

    def has(self, feature: int) -> bool:
        """Say whether a feature is negotiated."""
        return bool(self.features >> feature & 1)

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
        bases: Mapping[int, int] | None = None,
        again: bool = False,
    ) -> None:
        """Bring the device up as a driver does, from a reset to DRIVER_OK.

        Negotiated are VERSION_1 if it is offered, RING_PACKED if the case is of that format, what the traffic needs,
        and `features`; with `only`, just those. `queues` are set up, number and size (all that the traffic needs), as
        large as the device allows; `size` is for all of them. Rings are at `place`. With `drive` false no ring is
        started or enabled, and DRIVER_OK is not set.

        `bases` are where rings begin (vhost-user only): an index, in a packed ring a position. With `again` the rings
        that there are go on where they are, with the features that were negotiated.

        Raises NotApplicable if a feature is not offered, a size is too large, or a carrier has no ring bases.
        """
        if bases and self.carrier is Carrier.MMIO:
            raise NotApplicable("behind virtio-mmio a ring begins at its beginning")
        mask = self.features if again else self._choose(features, only)
        if self._is_up:
            self._reset()
        self._is_up = True
        control = self.control
        control.begin()
        names = ", ".join(feature_names(mask)) or "no features"
        if not control.accept_features(mask):
            raise Inconclusive(f"the device did not let FEATURES_OK stand for {names}, all of which it offers")
        self.features = mask
        if again:
            for number, ring in self.rings.items():
                ring.carry_by(control)
                control.set_up_queue(number, ring.areas, base=ring.base if self.carrier is Carrier.VHOST_USER else 0)
        else:
            self.rings.clear()
            wanted = dict(self.traffic.queues(self)) if queues is None else dict(queues)
            for number, queue_size in wanted.items():
                base = (bases or {}).get(number)
                self.set_up(number, self._queue_size(number, queue_size, size), place=place, base=base)
        sizes = ", ".join(f"{number} ({ring.size})" for number, ring in self.rings.items())
        self.done(f"start the device with {names} and queues {sizes}")
        if drive:
            self.drive()

    def drive(self) -> None:
        """Enable the rings, set DRIVER_OK, and do what the device's type wants to have done first."""
        self.control.run()
        self._is_driven = True
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

    def set_up(self, number: int, size: int, *, place: Place = Place.LOW, base: int | None = None) -> Ring:
        """Make a ring of the case's format for a queue that begins at `base`, and tell the device of it. Returns it.

        It is served at once if the device is driven. Raises Refused (vhost-user) if it does not take it.
        """
        parts = RingParts(self.memory, self.control, self.features, self._events)
        ring: Ring
        if self.format is RingFormat.PACKED:
            ring = PackedRing(parts, number, size, place=place, start=FIRST_POSITION if base is None else base)
        else:
            ring = SplitRing(parts, number, size, place=place, start=base or 0)
        self.control.set_up_queue(number, ring.areas, base=ring.base if self.carrier is Carrier.VHOST_USER else 0)
        self.rings[number] = ring
        if self._is_driven:
            self.control.start_queue(number)
        return ring

    def ring(self, number: int | None = None) -> Ring:
        """Return a queue that is set up, without a number that of plain requests."""
        return self.rings[self.traffic.queue if number is None else number]

    def reset(self) -> None:
        """Reset the device; no queue is set up then."""
        self.done("reset the device")
        self._reset()
        self.rings.clear()

    def _reset(self) -> None:
        self._is_up = self._is_driven = False
        self.control.reset()

    def reconnect(self) -> None:
        """Close the connection and make another; behind virtio-mmio, reset the device.

        Rings stay as they are: `start(again=True)` goes on with them.
        """
        if self.carrier is Carrier.MMIO:
            self._reset()
            return
        self.done("close the connection and connect again")
        self._disconnect()
        assert self.control

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

    # What became of the device

    def barrier(self, ring: Ring) -> None:
        """Have the device do no more with a ring: over vhost-user it is stopped, behind virtio-mmio all is done."""
        control = self._line.control
        if isinstance(control, VhostControl) and ring.number in control.running():
            ring.stop()

    def survives(self) -> Fate:
        """Say what became of a device that was given what it may refuse; over vhost-user its rings are stopped then.

        Raises TargetHung if it does not answer any more.
        """
        control = self._line.control
        if isinstance(control, MmioControl):
            fate = fate_over_mmio(control, self.rings.values())
        else:
            fate = fate_over_vhost(control, self.front_end, self.rings.values(), self.target.patience)
        self.done(f"see what became of the device: {fate.value}")
        return fate

    def is_alive(self) -> None:
        """Have the device serve a plain request for a new driver, on a new connection or after a reset.

        Raises TargetCrashed or TargetHung if it does not, Inconclusive if its answer is wrong.
        """
        try:
            self.reconnect()
            self.start()
            try:
                request = self.traffic.plain(self)
            except Inconclusive:
                return
            self.exchange(self.ring(), request)
        except ConnectionClosed as closed:
            raise TargetCrashed(f"a new driver is not served: {closed}") from closed

    def quiesce(self) -> None:
        """Have the device touch guest RAM no more, if that can still be had; never raises."""
        if not self._line.is_open:
            return
        control = self._line.control
        with suppress(VdevError):
            if isinstance(control, VhostControl):
                for number in control.running():
                    control.stop_queue(number)
            else:
                control.reset()
        if isinstance(control, VhostControl):
            self._disconnect()

    def host(self, action: str, **arguments: Any) -> Mapping[str, Any]:
        """Have the device's host act, as on its control socket. Raises Inconclusive if the target has no host."""
        if self.target.host is None:
            raise Inconclusive(f"the host must act for this ({action}), and nobody can ask it to")
        self.done(f"have the host do {action} {dict(arguments) or ''}".rstrip())
        return self.target.host(action, arguments)
