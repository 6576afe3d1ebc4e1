"""From a message to its handler and to an answer, as the table in `vdev.vhost_user.phases` has it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from spec.vhost_user import CONFIG, FRONT_END_REQUESTS, NO_FD, U64, FrontEndRequest, ProtocolFeature, RequestShape
from vdev.errors import FrontEndViolation
from vdev.vhost_user.framing import Message, parse_payload, request_name
from vdev.vhost_user.phases import RULES, Phase, Refusal

__all__ = ["Answer", "Dispatch", "Handler", "SessionFacts"]

_FAILURE = 1
_NO_SUCH_RANGE: bytes = CONFIG.build({"offset": 0, "size": 0, "flags": 0, "payload": b""})

_OFFER_SUFFICES = frozenset({FrontEndRequest.GET_QUEUE_NUM})
"""Legal once the feature was offered; the others need it agreed."""


class Answer(NamedTuple):
    """The reply to a request: its payload, and file descriptors that are closed when it has been sent."""

    request: int
    body: bytes
    fds: tuple[int, ...] = ()


Handler = Callable[[Any, Message], bytes | Answer | None]
"""Does what a message says; gets its payload, parsed, and the message. It returns a reply's payload, if there is one.

It raises FrontEndViolation for what cannot be, and is then as before.
"""


class SessionFacts(Protocol):
    """What decides whether a message is legal."""

    protocol_features: int | None

    @property
    def phase(self) -> Phase:
        """How far the session is."""
        ...

    @property
    def offered_protocol_features(self) -> int:
        """The mask of protocol features that can be agreed."""
        ...

    def is_started(self, index: int) -> bool:
        """Say whether a ring is started. Raises FrontEndViolation if there is none with this index."""
        ...


class Dispatch:
    """Hands messages to `handlers` while they are legal by the `facts`."""

    def __init__(self, handlers: Mapping[int, Handler], facts: SessionFacts) -> None:
        self._handlers = handlers
        self._facts = facts

    def obey(self, message: Message) -> Answer | None:
        """Do what a message says; returns the reply that it has by itself or asked for. Raises FrontEndViolation."""
        name = request_name(FrontEndRequest, message.request) or ""
        if message.is_reply:
            raise FrontEndViolation("Communication", "a reply, and nothing was asked", request=name)
        handler = self._handlers.get(message.request)
        if handler is None:
            raise FrontEndViolation("Front-end message types", "not spoken here", request=name)
        request = FrontEndRequest(message.request)
        shape, rule = FRONT_END_REQUESTS[request], RULES[request]
        self._check_feature(request, shape)
        if self._facts.phase not in rule.phases:
            raise FrontEndViolation("Communication", "not legal now", request=name, state=self._facts.phase.value)
        payload = parse_payload(message, shape, name, FrontEndViolation)
        if rule.ring_stopped and self._facts.is_started(payload.index):
            raise FrontEndViolation("Ring states", "the ring is started", request=name, queue=payload.index)
        result = handler(payload, message)
        if isinstance(result, Answer):
            return result
        if result is not None:
            return Answer(request, result)
        return self._acknowledgement(message, 0)

    def _check_feature(self, request: FrontEndRequest, shape: RequestShape) -> None:
        if shape.needs is None:
            return
        facts = self._facts
        has = facts.offered_protocol_features if request in _OFFER_SUFFICES else facts.protocol_features or 0
        if not has >> shape.needs & 1:
            raise FrontEndViolation(
                "Protocol features", f"needs {shape.needs.name}, which is not agreed", request=request.name
            )

    def placed(self, violation: FrontEndViolation, message: Message) -> FrontEndViolation:
        """Return the violation with its message and the session's phase, if it lacks them."""
        if violation.request is not None:
            return violation
        return FrontEndViolation(
            violation.statement,
            violation.message,
            request=request_name(FrontEndRequest, message.request),
            state=self._facts.phase.value,
            queue=violation.queue,
        )

    def refusal(self, message: Message) -> Answer | None:
        """Return how a message is told that it was refused, None where that cannot be said."""
        request = FrontEndRequest(message.request) if message.request in self._handlers else None
        refusal = RULES[request].refusal if request is not None else Refusal.ACKNOWLEDGED
        if message.is_reply or refusal is Refusal.CLOSED:
            return None
        if request is not None and refusal is not Refusal.ACKNOWLEDGED:
            needs = FRONT_END_REQUESTS[request].needs
            if needs is not None and self._has(needs):
                body = _NO_SUCH_RANGE if refusal is Refusal.EMPTY else U64.build({"value": NO_FD | _FAILURE})
                return Answer(request, body)
        return self._acknowledgement(message, _FAILURE)

    def _acknowledgement(self, message: Message, value: int) -> Answer | None:
        if message.needs_reply and self._has(ProtocolFeature.REPLY_ACK):
            return Answer(message.request, U64.build({"value": value}))
        return None

    def _has(self, feature: ProtocolFeature) -> bool:
        return bool((self._facts.protocol_features or 0) >> feature & 1)
