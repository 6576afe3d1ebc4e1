"""Checks of a vhost-user session: its features, its owner, its queues, and the one after it."""

from spec.device import Feature, feature_mask
from spec.vhost_user import U64, FrontEndRequest, ProtocolFeature, protocol_feature_mask
from vdev.check.bench.bench import Bench
from vdev.check.device.left_alone import expect_served, post_plain
from vdev.check.device.vhost_steps import VHOST, need_disabled_rings, settle, start_raw, unwritten
from vdev.check.registry import check
from vdev.check.target import ConnectionClosed

_R = FrontEndRequest
_F = ProtocolFeature
_MOST_QUEUES = 0x8000


def _u64(value: int) -> bytes:
    body: bytes = U64.build({"value": value})
    return body


@check("session.features-at-any-time", covers=["vhost-user.back-end.features.1"], carriers=VHOST)
def features_at_any_time(bench: Bench) -> None:
    """GET_FEATURES has the same answer when a session begins, when features are agreed, and while rings are served."""
    first = bench.offered
    for step in (bench.control.begin, bench.start):
        step()
        again = bench.front_end.ask_fields(_R.GET_FEATURES).value
        bench.expect(
            again == first,
            "vhost-user.back-end.features.1",
            expected=f"the features {first:#x} as before",
            observed=f"{again:#x}",
        )


@check(
    "session.protocol-features-first",
    covers=["vhost-user.back-end.features.2"],
    carriers=VHOST,
    protocol_features=[_F.REPLY_ACK],
)
def protocol_features_first(bench: Bench) -> None:
    """Protocol features are asked for and agreed before anything else, and hold from then on."""
    statement = "vhost-user.back-end.features.2"
    front_end = bench.front_end
    try:
        front_end.send(_R.GET_PROTOCOL_FEATURES)
        offered = U64.parse(front_end.reply_to(_R.GET_PROTOCOL_FEATURES).body).value
        front_end.negotiate_protocol_features(offered & protocol_feature_mask(_F.REPLY_ACK))
        reply = front_end.ask(_R.SET_OWNER, need_reply=True)
    except ConnectionClosed as closed:
        bench.fail(statement, expected="protocol features before SET_FEATURES", observed=str(closed))
    bench.expect(
        not any(reply.body),
        statement,
        expected="SET_OWNER acknowledged, as REPLY_ACK was agreed before SET_FEATURES",
        observed=reply.body.hex(" "),
    )


@check("session.enabled-without-protocol-features", covers=["vhost-user.back-end.features.3"], carriers=VHOST)
def enabled_without_protocol_features(bench: Bench) -> None:
    """After SET_FEATURES without bit 30 a ring is served as soon as it is started."""
    bench.front_end.negotiate_protocol_features(0)
    bench.start()
    expect_served(bench, bench.ring(), "vhost-user.back-end.features.3", "without SET_VRING_ENABLE")


@check(
    "session.bit-30-need-not-be-accepted",
    covers=["vhost-user.back-end.features.4"],
    carriers=VHOST,
    protocol_features=[_F.REPLY_ACK],
)
def bit_30_need_not_be_accepted(bench: Bench) -> None:
    """A protocol feature that was agreed holds although SET_FEATURES leaves bit 30 out."""
    front_end = bench.front_end
    front_end.negotiate_protocol_features(front_end.offered_protocol_features & protocol_feature_mask(_F.REPLY_ACK))
    accepted = bench.offered & feature_mask(Feature.VERSION_1)
    reply = front_end.ask(_R.SET_FEATURES, _u64(accepted), need_reply=True)
    bench.expect(
        not any(reply.body),
        "vhost-user.back-end.features.4",
        expected=f"SET_FEATURES {accepted:#x} acknowledged",
        observed=reply.body.hex(" "),
    )
    front_end.ask(_R.SET_OWNER, need_reply=True)


@check(
    "session.in-band-needs-its-friends",
    covers=["vhost-user.back-end.protocol-features.1"],
    carriers=VHOST,
    protocol_features=[_F.INBAND_NOTIFICATIONS],
)
def in_band_needs_its_friends(bench: Bench) -> None:
    """The connection ends when in-band notifications are agreed to alone."""
    front_end = bench.front_end
    front_end.send(_R.SET_PROTOCOL_FEATURES, _u64(protocol_feature_mask(_F.INBAND_NOTIFICATIONS)))
    try:
        front_end.ask(_R.GET_FEATURES)
    except ConnectionClosed:
        return
    bench.fail(
        "vhost-user.back-end.protocol-features.1",
        expected="a closed connection, as REPLY_ACK and BACKEND_REQ are missing",
        observed="a reply to GET_FEATURES",
    )


@check("session.mq-is-offered", covers=["vhost-user.back-end.protocol-features.2"], carriers=VHOST)
def mq_is_offered(bench: Bench) -> None:
    """MQ is among the protocol features."""
    offered = bench.front_end.offered_protocol_features
    if not offered:
        bench.not_applicable("there are no protocol features")
    bench.expect(
        bool(offered >> _F.MQ & 1),
        "vhost-user.back-end.protocol-features.2",
        expected="MQ (0) among the protocol features",
        observed=f"{offered:#x}",
    )


@check(
    "session.queue-num-counts-queues",
    covers=["vhost-user.back-end.queue-num.1"],
    carriers=VHOST,
    protocol_features=[_F.MQ],
)
def queue_num_counts_queues(bench: Bench) -> None:
    """GET_QUEUE_NUM tells of at least the queues that the device needs."""
    bench.start(drive=False)
    count = bench.front_end.ask_fields(_R.GET_QUEUE_NUM).value
    needed = max(bench.rings) + 1
    bench.expect(
        needed <= count <= _MOST_QUEUES,
        "vhost-user.back-end.queue-num.1",
        expected=f"{needed} to {_MOST_QUEUES} queues",
        observed=f"{count}",
    )


@check("session.reset-owner-keeps-the-session", covers=["vhost-user.back-end.owner.2"], carriers=VHOST)
def reset_owner_keeps_the_session(bench: Bench) -> None:
    """After RESET_OWNER rings that are enabled again go on."""
    statement = "vhost-user.back-end.owner.2"
    bench.start()
    ring = bench.ring()
    bench.exchange(ring)
    result = bench.front_end.acknowledged(_R.RESET_OWNER)
    bench.expect(result is not None, statement, expected="a session that goes on", observed="the connection was closed")
    need_disabled_rings(bench)
    try:
        bench.front_end.enable(ring.number)
        expect_served(bench, ring, statement, "after RESET_OWNER and SET_VRING_ENABLE")
    except ConnectionClosed as closed:
        bench.fail(statement, expected="a session that goes on after RESET_OWNER", observed=str(closed))


@check(
    "session.another-begins-anew",
    covers=["vhost-user.back-end.ring.8", "vhost-user.back-end.reconnect.1"],
    carriers=VHOST,
)
def another_begins_anew(bench: Bench) -> None:
    """A second session begins with rings that are disabled, whatever the first one did."""
    bench.start()
    bench.exchange(bench.ring())
    bench.reconnect()
    ring = start_raw(bench)
    need_disabled_rings(bench)
    bench.front_end.set_kick(ring.number)
    posted = post_plain(bench, ring)
    settle(bench, ring)
    unwritten(bench, ring, posted, "vhost-user.back-end.ring.8", "while a new session has not enabled its ring")
    bench.front_end.enable(ring.number)
    ring.kick()
    ring.wait_used()
