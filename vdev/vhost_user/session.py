"""One vhost-user session, the back end's side: takes messages, does what they say to a device, and answers.

No I/O: whoever has the socket hands messages to `handle` and sends what it returns. `vdev.vhost_user.phases` says what
is legal when, and what an illegal message gets.
"""

from collections.abc import Callable, Sequence
from typing import Any

from spec.device import DeviceStatus, Feature, feature_mask
from spec.vhost_user import (
    LOG_ALL,
    PROTOCOL_FEATURES,
    U64,
    FrontEndRequest,
    ProtocolFeature,
    protocol_feature_mask,
)
from vdev.device import Device
from vdev.errors import DriverViolation, FrontEndViolation, SavedStateError
from vdev.memory import Region
from vdev.vhost_user.attachment import Attachment
from vdev.vhost_user.bring_up import BringUp
from vdev.vhost_user.channel import BackEndChannel
from vdev.vhost_user.configuration import Configuration
from vdev.vhost_user.device_state import DeviceStateTransfer
from vdev.vhost_user.dispatch import Answer, Dispatch, Handler
from vdev.vhost_user.framing import Message
from vdev.vhost_user.inflight import Inflight
from vdev.vhost_user.log import WriteLog
from vdev.vhost_user.memory_table import MAX_SLOT_COUNT, MemoryTable, check_same_memory
from vdev.vhost_user.phases import Phase
from vdev.vhost_user.status import Status
from vdev.vhost_user.vrings import Vrings

__all__ = ["Session"]

_R = FrontEndRequest
_SESSION_FEATURES = feature_mask(PROTOCOL_FEATURES, LOG_ALL)

_ALWAYS_OFFERED = (
    ProtocolFeature.MQ,
    ProtocolFeature.REPLY_ACK,
    ProtocolFeature.BACKEND_REQ,
    ProtocolFeature.BACKEND_SEND_FD,
    ProtocolFeature.INFLIGHT_SHMFD,
    ProtocolFeature.RESET_DEVICE,
    ProtocolFeature.CONFIGURE_MEM_SLOTS,
    ProtocolFeature.STATUS,
    ProtocolFeature.DEVICE_STATE,
)


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
        self.on_violation: Callable[[FrontEndViolation | DriverViolation], None] = lambda _: None
        self.channel = BackEndChannel(before_close)
        self.bring_up = BringUp(device)
        self.configuration = Configuration(device, self.bring_up)
        self.status = Status(device)
        self.state = DeviceStateTransfer(device, before_close)
        self._inflight = Inflight(len(device.queue_sizes), max(device.queue_sizes, default=0))
        self._attachment = Attachment(
            device,
            lambda: self.rings.all,
            self.bring_up,
            self._inflight,
            on_run=lambda: self.on_announce(),
            on_violation=lambda violation: self.on_violation(violation),
        )
        self.memory = MemoryTable(self._replace_memory)
        self.rings = Vrings(
            len(device.queue_sizes),
            self.memory,
            size_max=device.queue_size_max,
            settle=self._attachment.settle,
            before_close=before_close,
        )
        self._log = WriteLog(device.memory, lambda: self.rings.all)
        self._features = 0
        self._hooks = device.call, device.announce_config
        device.call = self._call
        device.announce_config = self._config_changed
        self._dispatch = Dispatch(self._handlers(), self)

    def _handlers(self) -> dict[int, Handler]:
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
            _R.SET_LOG_BASE: self._log.set_base,
            _R.SET_LOG_FD: self._log.set_event,
            _R.SET_VRING_ADDR: self._set_vring_addr,
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
            _R.SET_BACKEND_REQ_FD: self.channel.set,
            _R.GET_INFLIGHT_FD: self._get_inflight_fd,
            _R.SET_INFLIGHT_FD: self._set_inflight_fd,
            _R.SET_DEVICE_STATE_FD: self.state.start,
            _R.CHECK_DEVICE_STATE: self.state.check,
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
            return self._dispatch.obey(message)
        except FrontEndViolation as violation:
            placed = self._dispatch.placed(violation, message)
            self.on_violation(placed)
            answer = self._dispatch.refusal(message)
            if answer is None:
                raise placed from None
            return answer
        finally:
            message.close()

    def is_started(self, index: int) -> bool:
        """Say whether the ring with this index is started. Raises FrontEndViolation if there is none."""
        return self.rings.named(index).is_started

    @property
    def announcement_is_due(self) -> bool:
        """Whether the front end is to be told that configuration space changed: only while a ring is served."""
        can_be_told = self.channel.is_open and self.agreed(ProtocolFeature.CONFIG)
        return can_be_told and self.rings.is_any_served and not self.configuration.is_told

    def close(self) -> None:
        """Forget the front end: the device is reset, and every descriptor closed."""
        self.rings.close()
        self._log.close()
        self.bring_up.forget()
        if not self._owns_memory:
            self.device.replace_memory(())
        self.memory.close()
        self._inflight.close()
        self.state.close()
        self.channel.close()
        self.device.call, self.device.announce_config = self._hooks

    # Features

    @property
    def offered_features(self) -> int:
        """What GET_FEATURES answers."""
        own = _SESSION_FEATURES if self._log.is_possible else feature_mask(PROTOCOL_FEATURES)
        return self.device.offered_features & ~feature_mask(Feature.ACCESS_PLATFORM) | own

    @property
    def offered_protocol_features(self) -> int:
        """What GET_PROTOCOL_FEATURES answers."""
        has = ProtocolFeature
        features = set(_ALWAYS_OFFERED)
        if self.configuration.size:
            features.add(has.CONFIG)
        if self._log.is_possible:
            features.add(has.LOG_SHMFD)
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
        self._log.switch(bool(features >> LOG_ALL & 1))
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
        self._log.switch(False)
        self.bring_up.forget()
        self.status.written = 0
        self._features = 0

    def _set_status(self, payload: Any, message: Message) -> None:
        self.status.set(payload, message)
        if not payload.value:
            for ring in self.rings.all:
                self.rings.stop(ring)

    # Rings and memory

    def _replace_memory(self, regions: Sequence[Region]) -> None:
        if self._owns_memory:
            check_same_memory(self.device.memory.regions, regions)
            return
        self._log.check_memory(max((region.end for region in regions), default=0))
        self._attachment.replace_memory(regions)

    def _set_vring_addr(self, payload: Any, message: Message) -> None:
        self.rings.set_addresses(payload, message)
        self._log.refresh()

    @property
    def _is_packed(self) -> bool:
        return bool(self._features >> Feature.RING_PACKED & 1)

    def _get_inflight_fd(self, payload: Any, message: Message) -> Answer:
        body, fd = self._inflight.make(payload, packed=self._is_packed)
        # A peer that sends the C struct whole expects it whole.
        return Answer(message.request, body.ljust(len(message.body), b"\0"), (fd,))

    def _set_inflight_fd(self, payload: Any, message: Message) -> None:
        self._inflight.set(payload, message, packed=self._is_packed)

    def load_state(self, state: bytes) -> None:
        """Give the device a state that another back end saved; it goes on from it when its rings are started.

        Raises SavedStateError.
        """
        self.state.load(state)
        agreed, found = self.bring_up.features, self.device.features
        if agreed is not None and agreed != found:
            had_driver = bool(self.device.status & DeviceStatus.FEATURES_OK)
            self.bring_up.agree(agreed)
            if had_driver:
                raise SavedStateError(f"the saved device uses features {found:#x}, and {agreed:#x} are agreed")
        self.bring_up.keep_state()

    def _set_vring_enable(self, payload: Any, message: Message) -> None:
        if self.protocol_features is None and not self._features >> PROTOCOL_FEATURES & 1:
            raise FrontEndViolation("Ring states", "protocol features were not negotiated")
        self.rings.set_enabled(payload, message)

    def _enable_all(self, is_enabled: bool) -> None:
        for ring in self.rings.all:
            self.rings.enable(ring, is_enabled)

    # What the device says

    def _call(self, number: int) -> None:
        self.rings.all[number].call_driver()

    def _config_changed(self) -> None:
        if self.bring_up.needs_reset:
            self._attachment.report_violation()
        self.on_announce()


def _u64(value: int) -> bytes:
    body: bytes = U64.build({"value": value})
    return body
