"""The judge between a front end's messages and `vdev.vhost_user`."""

import struct
from collections.abc import Callable

from spec.device import feature_mask
from spec.vhost_user import LOG_ALL, PROTOCOL_FEATURES, ConfigFlag, FrontEndRequest
from vdev.check.driver.observation import (
    ConfigRead,
    ConfigWritten,
    FeaturesAccepted,
    FeaturesAgreed,
    FeaturesOffered,
    MessageAnswered,
    MessageReceived,
)
from vdev.check.driver.sitting import Sitting
from vdev.device import Device
from vdev.errors import DriverViolation, FrontEndViolation
from vdev.vhost_user.dispatch import Answer
from vdev.vhost_user.framing import Message
from vdev.vhost_user.session import Session

__all__ = ["JudgedSession"]

_OF_THE_SESSION = feature_mask(LOG_ALL, PROTOCOL_FEATURES)
_ALL = (1 << 64) - 1
_R = FrontEndRequest
_U64_SIZE = 8
_CONFIG_HEADER = struct.Struct("<III")
"""Offset, size and flags; the content follows."""


class JudgedSession(Session):
    """One front end's session with a sitting's device, seen by the sitting."""

    def __init__(
        self,
        sitting: Sitting,
        device: Device,
        *,
        before_close: Callable[[int], None] = lambda _: None,
        owns_memory: bool = False,
    ) -> None:
        super().__init__(device, before_close=before_close, owns_memory=owns_memory)
        self._sitting = sitting
        self._refusal = ""
        sitting.wrap_calls()

    def handle(self, message: Message) -> Answer | None:
        """Do what a message says, before and after which the sitting looks. Raises FrontEndViolation."""
        sitting = self._sitting
        request, body = message.request, message.body
        for number in list(sitting.queues):
            sitting.look(number)
        sitting.see(MessageReceived(request, message.flags, body, tuple(message.fds)))
        if request == _R.SET_FEATURES and len(body) == _U64_SIZE:
            accepted = int.from_bytes(body, "little")
            sitting.see(FeaturesAccepted(accepted & ~_OF_THE_SESSION, _ALL))
        self._before_config(message)
        generation = self.device.config_generation
        note, self._refusal = self.on_violation, ""
        self.on_violation = self._note_refusal(note)
        try:
            answer = super().handle(message)
        finally:
            self.on_violation = note
            sitting.picture.status = int(self.device.status)
            sitting.note_queues()
            if request == _R.RESET_DEVICE or (request == _R.SET_STATUS and not any(body)):
                sitting.note_reset()
        if request == _R.SET_FEATURES and not self._refusal:
            sitting.see(FeaturesAgreed(self.features & ~_OF_THE_SESSION))
        if request == _R.GET_FEATURES and answer is not None:
            offered = int.from_bytes(answer.body, "little")
            sitting.see(FeaturesOffered(offered & ~_OF_THE_SESSION, _ALL))
        if request == _R.GET_CONFIG and answer is not None:
            offset, size, _, data = _config_access(answer.body)
            sitting.see(ConfigRead(offset, size, int.from_bytes(data, "little"), generation))
        sitting.see(MessageAnswered(request, answer.body if answer is not None else None, self._refusal))
        return answer

    def _before_config(self, message: Message) -> None:
        """Configuration space is about to be read or written: by the driver, for all that is known."""
        if len(message.body) < _CONFIG_HEADER.size:
            return
        offset, size, flags, data = _config_access(message.body)
        if message.request == _R.GET_CONFIG:
            self._sitting.game.before_config_read(offset)
        elif message.request == _R.SET_CONFIG and flags == ConfigFlag.WRITABLE and len(data) == size:
            self._sitting.see(ConfigWritten(offset, size, int.from_bytes(data, "little")))

    def _note_refusal(
        self, note: Callable[[FrontEndViolation | DriverViolation], None]
    ) -> Callable[[FrontEndViolation | DriverViolation], None]:
        def noting(violation: FrontEndViolation | DriverViolation) -> None:
            if isinstance(violation, FrontEndViolation):
                self._refusal = str(violation)
            note(violation)

        return noting

    def close(self) -> None:
        """Forget the front end."""
        super().close()
        self._sitting.note_queues()


def _config_access(body: bytes) -> tuple[int, int, int, bytes]:
    offset, size, flags = _CONFIG_HEADER.unpack_from(body)
    return offset, size, flags, body[_CONFIG_HEADER.size :][:size]
