"""The rings of one device: setting them up at a back end, starting and stopping them, kicks and calls."""

from collections.abc import Container, Iterable, Iterator

from guest_agent.vhost_user.addresses import user_address
from guest_agent.vhost_user.back_end import BackEnd
from guest_agent.vhost_user.bases import base_after_loss, check_base
from guest_agent.vhost_user.inflight import InflightArea
from guest_agent.vhost_user.ring import Ring, RingState, RingStep
from guest_agent.virtqueue.queue import DriverAddresses
from spec.vhost_user import LOG_ALL, PROTOCOL_FEATURES, FrontEndRequest, ProtocolFeature, VringFlag
from vdev.events import SILENT, Emitter, Kick
from vdev.memory import GuestMemory

__all__ = ["Rings"]

_R = FrontEndRequest


class Rings:
    """All rings that a driver set up, by number. The back end is told by whoever has it: it may change."""

    def __init__(self, memory: GuestMemory, events: Emitter = SILENT) -> None:
        self._memory = memory
        self._events = events
        self._rings: dict[int, Ring] = {}
        self._inflight: InflightArea | None = None

    def __iter__(self) -> Iterator[Ring]:
        return iter(self._rings.values())

    def __contains__(self, number: int) -> bool:
        return number in self._rings

    def add(self, number: int, addresses: DriverAddresses, base: int) -> Ring:
        """Note one more ring, which no back end knows of."""
        ring = self._rings[number] = Ring(number, addresses, base)
        return ring

    def drop(self, number: int) -> None:
        """Forget a ring that no back end has any more."""
        self._rings.pop(number).close_bells()

    def clear(self) -> None:
        """Forget all rings."""
        for number in list(self._rings):
            self.drop(number)
        self._drop_inflight()

    # Starting and stopping, message by message

    def configure(self, back_end: BackEnd, ring: Ring) -> None:
        """Tell everything of a ring but its kick. Raises BackEndLost or BackEndRefused."""
        number = ring.number
        back_end.ask(_R.SET_VRING_NUM, index=number, num=ring.addresses.size)
        back_end.ask(_R.SET_VRING_BASE, index=number, num=ring.base)
        self._tell_addresses(back_end, ring)
        _, call, err = ring.open_bells()
        back_end.ask(_R.SET_VRING_ERR, fds=[err.fileno()], value=number)
        back_end.ask(_R.SET_VRING_CALL, fds=[call.fileno()], value=number)
        ring.step(RingStep.CONFIGURE)

    def _tell_addresses(self, back_end: BackEnd, ring: Ring) -> None:
        is_logged = bool(back_end.session.features >> LOG_ALL & 1)
        back_end.ask(
            _R.SET_VRING_ADDR,
            index=ring.number,
            flags=int(VringFlag.LOG) if is_logged else 0,
            descriptor=user_address(ring.addresses.descriptor),
            used=user_address(ring.addresses.device),
            available=user_address(ring.addresses.driver),
            log=ring.addresses.device if is_logged else 0,
        )

    def tell_logging(self, back_end: BackEnd) -> None:
        """Tell again where rings are, after LOG_ALL came or went. Raises BackEndLost or BackEndRefused."""
        for ring in self:
            if ring.state is not RingState.STOPPED:
                self._tell_addresses(back_end, ring)

    def start(self, back_end: BackEnd) -> None:
        """Start and enable each ring that is configured. Raises BackEndLost or BackEndRefused."""
        rings = [ring for ring in self if ring.state is RingState.CONFIGURED]
        if rings:
            self._share_inflight(back_end)
        for ring in rings:
            assert ring.kick is not None
            back_end.ask(_R.SET_VRING_KICK, fds=[ring.kick.fileno()], value=ring.number)
            ring.step(RingStep.START)
        for ring in rings:
            self._enable(back_end, ring, RingStep.ENABLE)

    def stop(self, back_end: BackEnd, rings: Iterable[Ring] | None = None) -> None:
        """Stop all rings, or these, and note their bases.

        Raises BackEndLost, also for a base that cannot be.
        """
        chosen = list(self if rings is None else rings)
        for ring in chosen:
            if ring.state is RingState.ENABLED:
                self._enable(back_end, ring, RingStep.DISABLE)
        for ring in chosen:
            if ring.state is RingState.STARTED:
                base = int(back_end.ask(_R.GET_VRING_BASE, index=ring.number, num=0).num)
                with back_end.trust():
                    check_base(self._memory, ring, back_end.session.features, base)
                ring.base = base
                ring.step(RingStep.STOP)

    @staticmethod
    def _enable(back_end: BackEnd, ring: Ring, step: RingStep) -> None:
        # Without protocol features there is no such request: a ring that is started is enabled.
        if back_end.session.features >> PROTOCOL_FEATURES & 1:
            back_end.ask(_R.SET_VRING_ENABLE, index=ring.number, num=int(step is RingStep.ENABLE))
        ring.step(step)

    # From one back end to the next

    def leave(self, *, lost: bool, features: int) -> None:
        """Make all rings ready for another back end; those of a lost one go on behind what was used.

        Raises UserError for a ring whose base cannot be found.
        """
        for ring in self:
            if ring.state in (RingState.STARTED, RingState.ENABLED) and lost:
                ring.base = base_after_loss(self._memory, ring, features, self._inflight)
        for ring in self:
            ring.close_bells()
            ring.state = RingState.STOPPED
        if not lost:
            self._drop_inflight()

    def _share_inflight(self, back_end: BackEnd) -> None:
        if not back_end.has(ProtocolFeature.INFLIGHT_SHMFD):
            return
        if self._inflight is None:
            queue_count = max(ring.number for ring in self) + 1
            queue_size = max(ring.addresses.size for ring in self)
            self._inflight = InflightArea.get(back_end, queue_count, queue_size)
        self._inflight.share(back_end)

    def _drop_inflight(self) -> None:
        if self._inflight is not None:
            self._inflight.close()
            self._inflight = None

    # Doorbells

    def kick(self, number: int) -> None:
        """Kick a ring, if it is started."""
        ring = self._rings[number]
        if ring.kick is None:
            return
        ring.kick_count += 1
        if self._events.listening:
            self._events.emit(Kick(number, ring.kick_count))
        try:
            ring.kick.ring()
        except BlockingIOError:
            # The counter is full: the back end, which shares it, did that, and has been rung all the same.
            return

    def filenos(self) -> list[int]:
        """Return the call and err eventfds."""
        return [bell.fileno() for ring in self for bell in (ring.call, ring.err) if bell is not None]

    def take_calls(self, ready: Container[int]) -> bool:
        """Say whether a ring called since the last look; `ready` has the descriptors that are readable."""
        calls = [ring.call for ring in self if ring.call is not None and ring.call.fileno() in ready]
        return sum([call.take() for call in calls]) > 0

    def take_errors(self, ready: Container[int]) -> list[int]:
        """Return the numbers of the rings whose err eventfd was rung since the last look, `ready` as above."""
        errors = [(ring.number, ring.err) for ring in self if ring.err is not None and ring.err.fileno() in ready]
        return [number for number, err in errors if err.take()]

    def ring_own_calls(self) -> None:
        """Make the driver look at each ring, as if its device had called: a call may have been lost."""
        for ring in self:
            if ring.call is not None:
                ring.call.ring()
