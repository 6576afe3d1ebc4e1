"""A device behind a vhost-user back end: the calls that both carriers have."""

import select
from collections.abc import Callable
from time import monotonic

from spec.device import DeviceStatus
from spec.vhost_user import PROTOCOL_FEATURES, FrontEndRequest, ProtocolFeature
from vdev.check.bench.control import Refused, RingAreas
from vdev.check.bench.front_end import FrontEnd
from vdev.check.bench.ring_events import RingEvents
from vdev.check.target import ConnectionClosed
from vdev.check.verdict import Inconclusive, TargetHung
from vdev.events import Call, Emitter, Kick

__all__ = ["VhostControl"]

_R = FrontEndRequest
_F = ProtocolFeature
_LOOK_INTERVAL = 2
"""Milliseconds after which a ring is looked at even if nobody called: calls may be suppressed."""
_KICK_SECONDS = 0.1
"""For a back end to read a kick before its ring is stopped; one that polls its rings never does."""
_FIRST_KICK_SECONDS = 0.05


class VhostControl:
    """Speaks through `front_end`, and gives an answer `patience` seconds.

    A message that is refused raises Refused: then nothing can be said, if it was a legal one.
    """

    def __init__(self, front_end: FrontEnd, patience: float, events: Emitter) -> None:
        self._front_end = front_end
        self._patience = patience
        self._events = events
        self._status = 0
        self._has_session = False
        self._has_memory = False
        self._set_up: dict[int, RingAreas] = {}
        self._started: set[int] = set()

    # The session

    def open_session(self) -> None:
        """Agree to protocol features, become owner, and open the back end's channel; once a connection."""
        if self._has_session:
            return
        self._has_session = True
        front_end = self._front_end
        if front_end.protocol_features is None:
            front_end.negotiate_protocol_features()
        self._expect(_R.SET_OWNER, front_end.acknowledged(_R.SET_OWNER))
        if front_end.has(_F.BACKEND_REQ) and front_end.channel is None:
            front_end.open_channel()

    def share_memory(self) -> None:
        """Tell the back end of guest RAM; once a connection."""
        if not self._has_memory:
            self._has_memory = True
            self._expect(_R.SET_MEM_TABLE, self._front_end.share_memory())

    def begin(self) -> None:
        """Open the session if it is not, and set ACKNOWLEDGE and DRIVER if STATUS is agreed."""
        self.open_session()
        self._write_status(DeviceStatus.ACKNOWLEDGE)
        self._write_status(DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER)

    def offered_features(self) -> int:
        """Return the mask of all features that are offered, those of the session among them."""
        return self._front_end.offered_features

    def accept_features(self, mask: int) -> bool:
        """SET_FEATURES, and FEATURES_OK if STATUS is agreed; say whether neither was refused."""
        front_end = self._front_end
        if front_end.protocol_features:
            mask |= 1 << PROTOCOL_FEATURES
        accepted = front_end.set_features(mask)
        if accepted is None:
            raise ConnectionClosed(f"the target closed the connection in answer to SET_FEATURES {mask:#x}")
        if not accepted:
            return False
        self._write_status(self._status | DeviceStatus.FEATURES_OK)
        if not front_end.has(_F.STATUS):
            return True
        return bool(front_end.get_status() & DeviceStatus.FEATURES_OK)

    def run(self) -> None:
        """Start, kick and enable the rings that were set up, and set DRIVER_OK if STATUS is agreed."""
        for number in self._set_up:
            self.start_queue(number)
        self._write_status(self._status | DeviceStatus.DRIVER_OK)

    def _write_status(self, value: int) -> None:
        self._status = int(value)
        if self._front_end.has(_F.STATUS):
            self._expect(_R.SET_STATUS, self._front_end.set_status(value))

    def status(self) -> int:
        """GET_STATUS. Raises NotApplicable unless STATUS is agreed."""
        self.open_session()
        return self._front_end.get_status()

    def set_status(self, value: int) -> None:
        """SET_STATUS. Raises NotApplicable unless STATUS is agreed."""
        self.open_session()
        self._front_end.need(_F.STATUS)
        self._write_status(value)

    def reset(self) -> None:
        """Stop all rings, SET_STATUS with 0, and RESET_DEVICE, as far as they are agreed: so QEMU resets a device.

        Raises TargetHung if the status is read back and is never 0.
        """
        front_end = self._front_end
        deadline = monotonic() + self._patience
        for number in sorted(self._started):
            self.stop_queue(number)
        self._set_up.clear()
        if front_end.has(_F.STATUS):
            self._write_status(0)
        if front_end.has(_F.RESET_DEVICE):
            self._expect(_R.RESET_DEVICE, front_end.acknowledged(_R.RESET_DEVICE))
        while front_end.has(_F.STATUS) and (status := front_end.get_status()):
            if monotonic() > deadline:
                raise TargetHung(f"the device status was {status:#x} after {self._patience:g} s of a reset, not 0")
        self._status = 0

    # Configuration space

    def read_config(self, offset: int, size: int) -> bytes:
        """GET_CONFIG from the beginning on, as front ends do: what a field reads is not to hang on an offset.

        Raises NotApplicable unless CONFIG is agreed, Inconclusive if there is no answer to it.
        """
        self.open_session()
        self._front_end.need(_F.CONFIG)
        data = self._front_end.get_config(0, offset + size)
        if data is None or len(data) < offset + size:
            raise Inconclusive(f"the back end has no {offset + size} bytes of configuration space")
        return data[offset:]

    def write_config(self, offset: int, data: bytes) -> None:
        """SET_CONFIG. Raises NotApplicable unless CONFIG is agreed."""
        self.open_session()
        self._front_end.need(_F.CONFIG)
        self._expect(_R.SET_CONFIG, self._front_end.set_config(offset, data))

    def config_generation(self) -> int | None:
        """Return None: there is no message for it."""
        return None

    # Queues

    def queue_size_max(self, number: int) -> int | None:
        """Return None: there is no message for it."""
        return None

    def set_up_queue(self, number: int, areas: RingAreas, *, base: int = 0) -> None:
        """Tell all about a ring but its kick descriptor: the ring is not started."""
        self.share_memory()
        front_end = self._front_end
        self._expect(_R.SET_VRING_NUM, front_end.set_size(number, areas.size))
        self._expect(_R.SET_VRING_BASE, front_end.set_base(number, base))
        self._expect(_R.SET_VRING_ADDR, front_end.set_addresses(number, areas))
        self._expect(_R.SET_VRING_CALL, front_end.set_call(number))
        self._expect(_R.SET_VRING_ERR, front_end.set_err(number))
        self._set_up[number] = areas

    def start_queue(self, number: int) -> None:
        """Send a ring's kick descriptor, kick it once, and enable the ring."""
        front_end = self._front_end
        self._started.add(number)
        self._expect(_R.SET_VRING_KICK, front_end.set_kick(number))
        if front_end.features >> PROTOCOL_FEATURES & 1:
            self._expect(_R.SET_VRING_ENABLE, front_end.enable(number))
        # A ring is started by its first kick, says an older text. Nothing of a check's is to be taken for it.
        front_end.ring_events(number).kick()
        if self.wait_kick_taken(number, _FIRST_KICK_SECONDS):
            front_end.ask(_R.GET_FEATURES).close()

    def stop_queue(self, number: int) -> int | None:
        """GET_VRING_BASE, after kicks were taken; returns the base."""
        if number in self._started:
            self.wait_kick_taken(number)
        self._started.discard(number)
        base = self._front_end.get_base(number)
        self._front_end.ring_events(number).drop("kick")
        return base

    def reset_queue(self, number: int) -> None:
        """Disable and stop a ring: a queue reset over vhost-user; set it up again with base 0."""
        if self._front_end.features >> PROTOCOL_FEATURES & 1:
            self._expect(_R.SET_VRING_ENABLE, self._front_end.enable(number, False))
        self.stop_queue(number)

    def running(self) -> tuple[int, ...]:
        """Return the rings that are started."""
        return tuple(sorted(self._started))

    # Kicks and calls

    def kick(self, number: int, place: int | None = None) -> None:
        """Signal a ring's kick descriptor; there is no place for `place` in that."""
        events = self._front_end.ring_events(number)
        events.kick()
        if self._events.listening:
            self._events.emit(Kick(number, events.kick_count))

    def call_count(self, number: int) -> int:
        """Return how often the call descriptor that a ring has now was signalled."""
        events = self._front_end.ring_events(number)
        before = events.call_count
        events.take()
        if self._events.listening and events.call_count > before:
            self._events.emit(Call(f"queue {number}", events.call_count))
        return events.call_count

    def wait_call(self, number: int, than: int) -> int:
        """Wait until `call_count` is more than `than`, and return it. Raises TargetHung or ConnectionClosed."""
        self.wait(number, lambda: self.call_count(number) > than, f"call for queue {number}")
        return self.call_count(number)

    def wait_kick_taken(self, number: int, seconds: float = _KICK_SECONDS) -> bool:
        """Wait until the back end has read a ring's kick descriptor, at most so long; say whether it has."""
        return self.wait_any(number, self._front_end.ring_events(number).is_kick_taken, seconds)

    def wait(self, number: int, until: Callable[[], bool], what: str) -> None:
        """Wait until `until` holds. Raises TargetHung ("did not `what`") or ConnectionClosed."""
        if not self.wait_any(number, until, self._patience):
            errors = self._front_end.errors(number)
            also = ", and signalled the ring's error descriptor" if errors else ""
            raise TargetHung(f"the target did not {what} within {self._patience:g} s{also}")

    def wait_any(self, number: int, until: Callable[[], bool], seconds: float) -> bool:
        """Wait until `until` holds, at most so long; say whether it does. Raises ConnectionClosed."""
        events = self._front_end.ring_events(number)
        deadline = monotonic() + seconds
        while not until():
            remaining = deadline - monotonic()
            if remaining <= 0:
                return False
            if self._front_end.is_closed():
                if until():
                    return True
                raise ConnectionClosed(f"the target closed the connection while queue {number} was waited for")
            if self._front_end.channel is not None:
                self._front_end.channel.take_in()
            events.take()
            _doze(events, self._front_end.fileno(), min(_LOOK_INTERVAL, remaining * 1000))
        return True

    def _expect(self, request: FrontEndRequest, result: bool | None) -> None:
        if result is None:
            raise ConnectionClosed(f"the target closed the connection in answer to {request.name}")
        if not result:
            raise Refused(f"the back end refused {request.name}")


def _doze(events: RingEvents, connection: int, milliseconds: float) -> None:
    """Wait a little, or until a call, an error or a message comes."""
    poll = select.poll()
    for fd in (events.fd("call"), events.fd("error")):
        if fd is not None:
            poll.register(fd, select.POLLIN)
    poll.register(connection, select.POLLRDHUP)
    poll.poll(milliseconds)
