"""One vhost-user session, the back end's side: takes messages, does what they say to a device, and answers.

No I/O: whoever has the socket hands messages to `handle` and sends what it returns. `vdev.vhost_user.phases` says what
is legal when, and what an illegal message gets.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from spec.device import Feature, feature_mask
from spec.vhost_user import (
    FRONT_END_REQUESTS,
    LOG_ALL,
    NO_FD,
    PROTOCOL_FEATURES,
    U64,
    FrontEndRequest,
    ProtocolFeature,
    RequestShape,
    protocol_feature_mask,
)
from vdev.device import Device
from vdev.errors import FrontEndViolation
from vdev.memory import Region
from vdev.vhost_user.bring_up import BringUp
from vdev.vhost_user.configuration import Configuration
from vdev.vhost_user.counted_queue import CountedQueue
from vdev.vhost_user.device_state import DeviceStateTransfer
from vdev.vhost_user.framing import Message, parse_payload, request_name
from vdev.vhost_user.inflight import Inflight
from vdev.vhost_user.log import WriteLog
from vdev.vhost_user.memory_table import MAX_SLOT_COUNT, MemoryTable, check_same_memory
from vdev.vhost_user.phases import RULES, Phase, Refusal
from vdev.vhost_user.status import Status
from vdev.vhost_user.vring import Vring
from vdev.vhost_user.vrings import Vrings

__all__ = ["Answer", "Session"]

_R = FrontEndRequest
_SESSION_FEATURES = feature_mask(PROTOCOL_FEATURES, LOG_ALL)
_FAILURE = 1

_OFFER_SUFFICES = frozenset({_R.GET_QUEUE_NUM})
"""Legal once the feature was offered; the others need it agreed."""


class Answer(NamedTuple):
    """The reply to a request: its payload, and file descriptors that are closed when it has been sent."""

    request: int
    body: bytes
    fds: tuple[int, ...] = ()


_Handler = Callable[[Any, Message], bytes | Answer | None]


class Session:
    """One front end's session with `device`, from its first message to `close`.

    `before_close` is told of a kick descriptor that is going to be closed. `on_announce` is called when
    `announcement_is_due` may have become true. With `owns_memory` the device keeps the guest RAM that it was made with,
    and the front end must tell of that and no other.
    """

    def __init__(
        self, device: Device, *, before_close: Callable[[int], None] = lambda _: None, owns_memory: bool = False
    ) -> None:
        self.device = device
        self._owns_memory = owns_memory
        self.on_announce: Callable[[], None] = lambda: None
        self.protocol_features: int | None = None
        """Those that are agreed, None before."""
        self.violations: list[FrontEndViolation] = []
        self.memory = MemoryTable(self._replace_memory)
        self.rings = Vrings(
            len(device.queue_sizes),
            self.memory,
            size_max=device.queue_size_max,
            settle=self._settle,
            before_close=before_close,
        )
        self.bring_up = BringUp(device)
        self.configuration = Configuration(device, self.bring_up)
        self.status = Status(device)
        self._features = 0
        self._hooks = device.call, device.announce_config
        device.call = self._call
        device.announce_config = self._config_changed
        self._handlers = self._make_handlers()

    def _make_handlers(self) -> dict[FrontEndRequest, _Handler]:
        return {
            _R.GET_FEATURES: self._get_features,
            _R.SET_FEATURES: self._set_features,
            _R.GET_PROTOCOL_FEATURES: self._get_protocol_features,
            _R.SET_PROTOCOL_FEATURES: self._set_protocol_features,
            _R.SET_OWNER: self._set_owner,
            _R.RESET_OWNER: self._reset_owner,
            _R.GET_QUEUE_NUM: self._get_queue_num,
            _R.SET_MEM_TABLE: self.memory.set,
            _R.GET_MAX_MEM_SLOTS: self._get_max_mem_slots,
            _R.ADD_MEM_REG: self.memory.add,
            _R.REM_MEM_REG: self.memory.remove,
            _R.SET_VRING_NUM: self.rings.set_size,
            _R.SET_VRING_ADDR: self.rings.set_addresses,
            _R.SET_VRING_BASE: self.rings.set_base,
            _R.GET_VRING_BASE: self.rings.get_base,
            _R.SET_VRING_KICK: self.rings.set_kick,
            _R.SET_VRING_CALL: self.rings.set_call,
            _R.SET_VRING_ERR: self.rings.set_err,
            _R.SET_VRING_ENABLE: self._set_vring_enable,
            _R.GET_CONFIG: self.configuration.get,
            _R.SET_CONFIG: self.configuration.set,
            _R.RESET_DEVICE: self._reset_device,
            _R.SET_STATUS: self._set_status,
            _R.GET_STATUS: self.status.get,
        }

    # What the server calls

    @property
    def phase(self) -> Phase:
        """How far the session is."""
        if self.rings.is_any_started:
            return Phase.RUNNING
        return Phase.CONNECTED if self.bring_up.features is None else Phase.READY

    @property
    def features(self) -> int:
        """The features that are agreed, those between front end and back end among them."""
        return self._features

    def agreed(self, feature: ProtocolFeature) -> bool:
        """Say whether a protocol feature is agreed."""
        return bool((self.protocol_features or 0) >> feature & 1)

    def handle(self, message: Message) -> Answer | None:
        """Do what a message says; returns what is to be sent back, if anything. Closes what the message brought along.

        Raises FrontEndViolation when the connection must end: the message is bad, and there is no way to say so.
        """
        try:
            return self._obey(message)
        except FrontEndViolation as violation:
            if violation.request is None:
                violation = self._placed(violation, message)
            self.violations.append(violation)
            answer = self._refusal(message, violation)
            if answer is None:
                raise violation from None
            return answer
        finally:
            message.close()

    def _obey(self, message: Message) -> Answer | None:
        name = request_name(_R, message.request) or ""
        if message.is_reply:
            raise FrontEndViolation("Communication", "a reply, and nothing was asked", request=name)
        handler = self._handlers.get(message.request)  # type: ignore[call-overload]
        if handler is None:
            raise FrontEndViolation("Front-end message types", "not spoken here", request=name)
        request = _R(message.request)
        shape, rule = FRONT_END_REQUESTS[request], RULES[request]
        self._check_feature(request, shape)
        if self.phase not in rule.phases:
            raise FrontEndViolation("Communication", "not legal now", request=name, state=self.phase.value)
        payload = parse_payload(message, shape, name, FrontEndViolation)
        if rule.ring_stopped and (ring := self.rings.named(payload.index)).is_started:
            raise FrontEndViolation("Ring states", "the ring is started", request=name, queue=ring.number)
        result = handler(payload, message)
        if isinstance(result, Answer):
            return result
        if result is not None:
            return Answer(request, result)
        return self._acknowledgement(message, 0)

    def _check_feature(self, request: FrontEndRequest, shape: RequestShape) -> None:
        if shape.needs is None:
            return
        has = self.offered_protocol_features if request in _OFFER_SUFFICES else self.protocol_features or 0
        if not has >> shape.needs & 1:
            raise FrontEndViolation(
                "Protocol features", f"needs {shape.needs.name}, which is not agreed", request=request.name
            )

    def _placed(self, violation: FrontEndViolation, message: Message) -> FrontEndViolation:
        return FrontEndViolation(
            violation.statement,
            violation.message,
            request=request_name(_R, message.request),
            state=self.phase.value,
            queue=violation.queue,
        )

    def _acknowledgement(self, message: Message, value: int) -> Answer | None:
        if message.needs_reply and self.agreed(ProtocolFeature.REPLY_ACK):
            return Answer(message.request, U64.build({"value": value}))
        return None

    def _refusal(self, message: Message, violation: FrontEndViolation) -> Answer | None:
        request = _R(message.request) if message.request in self._handlers else None
        refusal = RULES[request].refusal if request is not None else Refusal.ACKNOWLEDGED
        if message.is_reply or refusal is Refusal.CLOSED:
            return None
        if request is not None and refusal is not Refusal.ACKNOWLEDGED:
            needs = FRONT_END_REQUESTS[request].needs
            if needs is not None and self.agreed(needs):
                if refusal is Refusal.EMPTY:
                    return Answer(request, self.configuration.nothing)
                return Answer(request, U64.build({"value": NO_FD | _FAILURE}))
        return self._acknowledgement(message, _FAILURE)

    @property
    def announcement_is_due(self) -> bool:
        """Whether the front end is to be told that configuration space changed: only while a ring is served."""
        return self.rings.is_any_served and self.agreed(ProtocolFeature.CONFIG) and not self.configuration.is_told

    def close(self) -> None:
        """Forget the front end: the device is reset, and every descriptor closed."""
        self.rings.close()
        self.bring_up.forget()
        if not self._owns_memory:
            self.device.replace_memory(())
        self.memory.close()
        self.device.call, self.device.announce_config = self._hooks

    # Features

    @property
    def offered_features(self) -> int:
        """What GET_FEATURES answers."""
        return self.device.offered_features & ~feature_mask(Feature.ACCESS_PLATFORM) | _SESSION_FEATURES

    @property
    def offered_protocol_features(self) -> int:
        """What GET_PROTOCOL_FEATURES answers."""
        has = ProtocolFeature
        features = [has.MQ, has.REPLY_ACK, has.RESET_DEVICE, has.CONFIGURE_MEM_SLOTS, has.STATUS]
        if self.configuration.size:
            features.append(has.CONFIG)
        return protocol_feature_mask(*features)

    def _get_features(self, _: Any, __: Message) -> bytes:
        return _u64(self.offered_features)

    def _set_features(self, payload: Any, _: Message) -> None:
        features = payload.value
        if unknown := features & ~self.offered_features:
            raise FrontEndViolation("Front-end message types", f"features {unknown:#x} were not offered")
        device_features = features & ~_SESSION_FEATURES
        if self.phase is Phase.RUNNING and device_features != self.bring_up.features:
            raise FrontEndViolation("Migration", "while a ring is started, only LOG_ALL may change")
        self.bring_up.agree(device_features)
        self._features = features
        if not features >> PROTOCOL_FEATURES & 1:
            self._enable_all(True)

    def _get_protocol_features(self, _: Any, __: Message) -> bytes:
        return _u64(self.offered_protocol_features)

    def _set_protocol_features(self, payload: Any, _: Message) -> None:
        if unknown := payload.value & ~self.offered_protocol_features:
            raise FrontEndViolation("Protocol features", f"protocol features {unknown:#x} were not offered")
        self.protocol_features = payload.value

    def _set_owner(self, _: Any, __: Message) -> None:
        """The session has begun with the first message."""

    def _reset_owner(self, _: Any, __: Message) -> None:
        self._enable_all(False)

    def _get_queue_num(self, _: Any, __: Message) -> bytes:
        return _u64(len(self.rings.all))

    def _get_max_mem_slots(self, _: Any, __: Message) -> bytes:
        return _u64(MAX_SLOT_COUNT)

    def _reset_device(self, _: Any, __: Message) -> None:
        for ring in self.rings.all:
            ring.is_enabled = False
            self.rings.stop(ring)
        self.bring_up.forget()
        self.status.written = 0
        self._features = 0

    def _set_status(self, payload: Any, message: Message) -> None:
        self.status.set(payload, message)
        if not payload.value:
            for ring in self.rings.all:
                self.rings.stop(ring)

    # Rings and memory

    def _set_vring_enable(self, payload: Any, message: Message) -> None:
        if self.protocol_features is None and not self._features >> PROTOCOL_FEATURES & 1:
            raise FrontEndViolation("Ring states", "protocol features were not negotiated")
        self.rings.set_enabled(payload, message)

    def _enable_all(self, is_enabled: bool) -> None:
        for ring in self.rings.all:
            self.rings.enable(ring, is_enabled)

    def _settle(self, ring: Vring) -> None:
        is_wanted = ring.is_started and ring.is_enabled and ring.addresses is not None and ring.size > 0
        if is_wanted == ring.is_served:
            return
        if not is_wanted:
            self.bring_up.detach(ring)
            ring.is_served = False
        else:
            queue = self.bring_up.attach(ring, self.rings.all)
            if queue is None:
                ring.fail(str(self.device.violation))
                return
            self.device.queues[ring.number] = CountedQueue(queue, ring)
            ring.is_served = True
            self.bring_up.drive()
            self.on_announce()
        ring.on_change()

    def _replace_memory(self, regions: Sequence[Region]) -> None:
        if self._owns_memory:
            check_same_memory(self.device.memory.regions, regions)
            return
        self.device.replace_memory(regions)
        for ring in self.rings.all:
            queue = self.device.queues.get(ring.number)
            if queue is not None:
                self.device.queues[ring.number] = CountedQueue(queue, ring)
            elif ring.is_served:
                ring.fail(str(self.device.violation))

    # What the device says

    def _call(self, number: int) -> None:
        self.rings.all[number].call_driver()

    def _config_changed(self) -> None:
        violation = self.device.violation
        if self.bring_up.needs_reset and violation is not None:
            for ring in self.rings.all:
                if ring.is_served and violation.queue in (None, ring.number):
                    ring.fail(str(violation))
        self.on_announce()


def _u64(value: int) -> bytes:
    body: bytes = U64.build({"value": value})
    return body
