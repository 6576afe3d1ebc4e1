"""The vhost-user framing: a stream in any pieces gives the same messages or the same violation, and no other error."""

from typing import Any

from spec.vhost_user import FRONT_END_REQUESTS, FrontEndRequest
from vdev.errors import BackEndViolation, FrontEndViolation
from vdev.vhost_user.framing import Message, MessageDecoder, parse_payload, request_name

__all__ = ["fuzz_framing"]


def fuzz_framing(data: bytes) -> None:
    """Decode what follows the first byte, whole and in pieces of that size, then parse each payload."""
    step, stream = (data[0] if data else 0) or 1, data[1:]
    whole, in_pieces = _decode(stream, len(stream) or 1), _decode(stream, step)
    described = [(message.request, message.flags, message.body) for message in whole[0]]
    assert described == [(message.request, message.flags, message.body) for message in in_pieces[0]]
    assert whole[1] == in_pieces[1]
    for message in whole[0]:
        _parse(message)


def _decode(stream: bytes, step: int) -> tuple[list[Message], str | None]:
    decoder = MessageDecoder(FrontEndViolation, FrontEndRequest)
    messages: list[Message] = []
    try:
        for place in range(0, len(stream), step):
            # One message's bytes at a time, as a socket is read: so what came before a violation is not lost with it.
            piece = stream[place : place + step]
            while piece:
                part, piece = piece[: decoder.wanted_size], piece[decoder.wanted_size :]
                messages += decoder.feed(part)
        decoder.end()
    except FrontEndViolation as violation:
        return messages, str(violation)
    finally:
        decoder.close()
    return messages, None


def _parse(message: Message) -> list[Any]:
    name = request_name(FrontEndRequest, message.request) or ""
    parsed: list[Any] = []
    if message.request not in set(FrontEndRequest):
        return parsed
    shape = FRONT_END_REQUESTS.get(FrontEndRequest(message.request))
    if shape is None:
        return parsed
    for as_reply in (False, True):
        violation = BackEndViolation if as_reply else FrontEndViolation
        try:
            parsed.append(parse_payload(message, shape, name, violation, as_reply=as_reply))
        except violation:
            continue
    return parsed
