"""Checks of vhost-user messages as messages: replies, acknowledgements, and how they are cut out of the stream."""

import socket
from collections.abc import Callable, Iterator
from itertools import pairwise

from spec.vhost_user import CONFIG, LOG_ALL, U64, FrontEndRequest, ProtocolFeature
from vdev.check.bench.bench import Bench
from vdev.check.device.vhost_steps import VHOST, is_open_after, round_trip, wait_read
from vdev.check.registry import check
from vdev.check.target import ConnectionClosed
from vdev.vhost_user.framing import encode

_R = FrontEndRequest
_F = ProtocolFeature
_UNKNOWN_REQUEST = 0x7777


def _questions(bench: Bench) -> Iterator[tuple[FrontEndRequest, bytes, int]]:
    """Yield each request that has a reply of its own and needs nothing: its number, its payload, its reply's size."""
    front_end = bench.front_end
    yield _R.GET_FEATURES, b"", U64.sizeof()
    if not front_end.offered_protocol_features:
        return
    yield _R.GET_PROTOCOL_FEATURES, b"", U64.sizeof()
    for feature, request in (
        (_F.MQ, _R.GET_QUEUE_NUM),
        (_F.CONFIGURE_MEM_SLOTS, _R.GET_MAX_MEM_SLOTS),
        (_F.STATUS, _R.GET_STATUS),
    ):
        if front_end.has(feature):
            yield request, b"", U64.sizeof()
    if front_end.has(_F.CONFIG):
        body: bytes = CONFIG.build({"offset": 0, "size": 4, "flags": 0, "payload": bytes(4)})
        yield _R.GET_CONFIG, body, len(body)


@check(
    "messages.replies-have-their-form",
    covers=["vhost-user.back-end.reply.1", "vhost-user.back-end.reply.3"],
    carriers=VHOST,
)
def replies_have_their_form(bench: Bench) -> None:
    """Each request with a reply of its own gets one with its number, the reply flag, version 1, and the right size."""
    bench.control.begin()
    for request, body, size in _questions(bench):
        reply = bench.front_end.ask(request, body)
        bench.expect(
            len(reply.body) == size,
            "vhost-user.back-end.reply.3",
            expected=f"{size} bytes in the reply to {request.name}",
            observed=f"{len(reply.body)} bytes: {reply.body.hex(' ')}",
        )


@check(
    "messages.replies-come-in-order",
    covers=["vhost-user.back-end.reply.2", "vhost-user.back-end.framing.2"],
    carriers=VHOST,
)
def replies_come_in_order(bench: Bench) -> None:
    """Requests that arrive in one piece are all answered, once each, in their order."""
    bench.control.begin()
    questions = [*_questions(bench)] * 3
    bench.front_end.send_bytes(b"".join(encode(request, body) for request, body, _ in questions))
    for request, _, _ in questions:
        reply = bench.front_end.receive(after=request.name)
        bench.expect(
            reply.request == request,
            "vhost-user.back-end.reply.2",
            expected=f"the reply to {request.name}",
            observed=f"a reply to request {reply.request}",
        )
    _expect_nothing_waits(bench, "vhost-user.back-end.reply.2", "every reply once")


def _expect_nothing_waits(bench: Bench, statement: str, expected: str) -> None:
    """Hold it against a statement that nothing comes before the reply to another question."""
    bench.front_end.send(_R.GET_FEATURES)
    reply = bench.front_end.receive(after="GET_FEATURES")
    bench.expect(
        reply.request == _R.GET_FEATURES,
        statement,
        expected=expected,
        observed=f"message {reply.request} besides: {reply.body.hex(' ')}",
    )


def _harmless_features(bench: Bench) -> bytes:
    body: bytes = U64.build({"value": bench.offered & ~(1 << LOG_ALL)})
    return body


@check("messages.nothing-unasked", covers=["vhost-user.back-end.reply.4"], carriers=VHOST)
def nothing_unasked(bench: Bench) -> None:
    """A request without a reply of its own is not answered when no acknowledgement was asked for."""
    front_end = bench.front_end
    front_end.negotiate_protocol_features()
    front_end.send(_R.SET_OWNER)
    front_end.send(_R.SET_FEATURES, _harmless_features(bench))
    _expect_nothing_waits(bench, "vhost-user.back-end.reply.4", "no answer to requests that have none")


@check("messages.in-pieces", covers=["vhost-user.back-end.framing.1"], carriers=VHOST)
def in_pieces(bench: Bench) -> None:
    """Messages that arrive in parts, cut inside headers and payloads, are understood as if they came whole."""
    statement = "vhost-user.back-end.framing.1"
    raw = encode(_R.SET_FEATURES, _harmless_features(bench)) + encode(_R.GET_FEATURES)
    parts = [raw[begin:end] for begin, end in pairwise((0, 1, 7, 12, 15, 20, 21, len(raw)))]
    try:
        for part in parts:
            bench.front_end.send_bytes(part)
            wait_read(bench)
        reply = bench.front_end.receive(after="GET_FEATURES, sent in parts")
    except ConnectionClosed as closed:
        bench.fail(statement, expected="a reply to GET_FEATURES", observed=str(closed))
    bench.expect(
        reply.request == _R.GET_FEATURES and U64.parse(reply.body).value == bench.offered,
        statement,
        expected=f"the features {bench.offered:#x}",
        observed=f"message {reply.request}: {reply.body.hex(' ')}",
    )


# Acknowledgements


_ACKNOWLEDGED = (
    "vhost-user.back-end.reply-ack.1",
    "vhost-user.back-end.error.3",
    "vhost-user.back-end.owner.1",
    "vhost-user.back-end.channel.1",
    "vhost-user.back-end.num.1",
)


@check("reply-ack.legal-requests", covers=_ACKNOWLEDGED, carriers=VHOST, protocol_features=[_F.REPLY_ACK])
def legal_requests(bench: Bench) -> None:
    """Each message of a whole bring-up is acknowledged with 0 when it asks for that."""
    front_end = bench.front_end
    front_end.negotiate_protocol_features()
    _expect_obeyed(bench, "SET_OWNER", front_end.acknowledged(_R.SET_OWNER), "vhost-user.back-end.owner.1")
    if front_end.has(_F.BACKEND_REQ):
        _open_channel(bench)
    bench.reconnect()
    bench.start(drive=False)
    front_end = bench.front_end
    number, areas = bench.ring().number, bench.ring().areas
    steps: dict[str, Callable[[], bool | None]] = {
        "SET_MEM_TABLE": front_end.share_memory,
        "SET_VRING_NUM": lambda: front_end.set_size(number, areas.size),
        "SET_VRING_BASE": lambda: front_end.set_base(number, bench.ring().base),
        "SET_VRING_ADDR": lambda: front_end.set_addresses(number, areas),
        "SET_VRING_CALL": lambda: front_end.set_call(number),
        "SET_VRING_ERR": lambda: front_end.set_err(number),
        "SET_VRING_KICK": lambda: front_end.set_kick(number),
        "SET_VRING_ENABLE": lambda: front_end.enable(number),
    }
    for name, step in steps.items():
        statement = "num" if name == "SET_VRING_NUM" else "reply-ack"
        _expect_obeyed(bench, name, step(), f"vhost-user.back-end.{statement}.1")
    front_end.get_base(number)


def _open_channel(bench: Bench) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        result = bench.front_end.acknowledged(_R.SET_BACKEND_REQ_FD, fds=[theirs.fileno()])
    _expect_obeyed(bench, "SET_BACKEND_REQ_FD", result, "vhost-user.back-end.channel.1")


def _expect_obeyed(bench: Bench, name: str, result: bool | None, statement: str) -> None:
    bench.expect(
        result is not None,
        "vhost-user.back-end.error.3",
        expected=f"a connection that stays, as {name} is legal",
        observed="the connection was closed",
    )
    bench.expect(bool(result), statement, expected=f"the acknowledgement 0 of {name}", observed="another value than 0")


@check(
    "reply-ack.own-reply-is-the-only-one",
    covers=["vhost-user.back-end.reply-ack.3"],
    carriers=VHOST,
    protocol_features=[_F.REPLY_ACK],
)
def own_reply_is_the_only_one(bench: Bench) -> None:
    """A request with a reply of its own that asks for an acknowledgement gets its reply, and nothing else."""
    bench.control.begin()
    for request, body, size in _questions(bench):
        reply = bench.front_end.ask(request, body, need_reply=True)
        bench.expect(
            len(reply.body) == size,
            "vhost-user.back-end.reply-ack.3",
            expected=f"the reply to {request.name}, {size} bytes",
            observed=f"{len(reply.body)} bytes: {reply.body.hex(' ')}",
        )
    _expect_nothing_waits(bench, "vhost-user.back-end.reply-ack.3", "one reply to each")


def _expect_refused(bench: Bench, result: bool | None, statement: str, what: str) -> None:
    if result is not True:
        return
    after = "" if is_open_after(bench) else ", and then a closed connection"
    bench.fail(
        statement,
        expected=f"an acknowledgement other than 0, or a closed connection, for {what}",
        observed=f"the acknowledgement 0{after}",
    )


@check(
    "reply-ack.failure-is-told",
    covers=["vhost-user.back-end.reply-ack.2", "vhost-user.back-end.error.1", "hostile.device.alive"],
    carriers=VHOST,
    protocol_features=[_F.REPLY_ACK],
    hostile=True,
)
def failure_is_told(bench: Bench) -> None:
    """A ring that there is not cannot be set up, and is not said to be."""
    bench.start(drive=False)
    result = bench.front_end.set_size(0x7FFF, 8)
    _expect_refused(bench, result, "vhost-user.back-end.reply-ack.2", "SET_VRING_NUM of ring 32767")


@check(
    "reply-ack.unknown-is-not-success",
    covers=["vhost-user.back-end.reply-ack.4", "vhost-user.back-end.error.1", "hostile.device.alive"],
    carriers=VHOST,
    protocol_features=[_F.REPLY_ACK],
    hostile=True,
)
def unknown_is_not_success(bench: Bench) -> None:
    """A request that there is not is refused, or ends the connection."""
    bench.control.begin()
    front_end = bench.front_end
    front_end.send(_UNKNOWN_REQUEST, need_reply=True)
    try:
        reply = front_end.receive(after="an unknown request")
        result: bool | None = int.from_bytes(reply.body, "little") == 0
    except ConnectionClosed:
        result = None
    _expect_refused(bench, result, "vhost-user.back-end.reply-ack.4", f"the unknown request {_UNKNOWN_REQUEST}")


@check(
    "messages.unknown-is-survived",
    covers=["vhost-user.back-end.error.1", "hostile.device.alive"],
    carriers=VHOST,
    hostile=True,
)
def unknown_is_survived(bench: Bench) -> None:
    """Unknown requests that ask for nothing are ignored, or end the connection."""
    bench.control.begin()
    for request in (0, 46, 255, _UNKNOWN_REQUEST, 0xFFFF_FFFF):
        try:
            bench.front_end.send(request, bytes(8))
        except ConnectionClosed:
            bench.reconnect()
        if not is_open_after(bench):
            bench.reconnect()
            round_trip(bench)
