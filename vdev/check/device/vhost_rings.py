"""Checks of the states of rings over vhost-user: stopped and started, disabled and enabled."""

from spec.vhost_user import ProtocolFeature
from vdev.check.bench.bench import Bench
from vdev.check.device.left_alone import LeftAlone, expect_served, post_plain
from vdev.check.device.vhost_steps import VHOST, need_disabled_rings, round_trip, settle, start_raw, unwritten
from vdev.check.registry import BOTH, check
from vdev.check.verdict import TargetHung

_F = ProtocolFeature
_S = "vhost-user.back-end."


@check("rings.stopped-at-first", covers=[_S + "ring.1"], formats=BOTH, carriers=VHOST)
def stopped_at_first(bench: Bench) -> None:
    """A ring that is enabled, and was never started, is not processed."""
    ring = start_raw(bench)
    need_disabled_rings(bench)
    still = LeftAlone(bench, ring, post_plain(bench, ring))
    bench.front_end.enable(ring.number)
    settle(bench, ring)
    still.expect(_S + "ring.1", "before SET_VRING_KICK")


@check(
    "rings.started-and-enabled",
    covers=[_S + "ring.2", _S + "ring.9", _S + "kick.2"],
    formats=BOTH,
    carriers=VHOST,
)
def started_and_enabled(bench: Bench) -> None:
    """A ring that is started, then enabled, is processed whenever the descriptor that it was given last is kicked."""
    bench.start()
    ring = bench.ring()
    expect_served(bench, ring, _S + "ring.2", "of a ring that was started and enabled")
    bench.exchange(ring, statement=_S + "ring.9")
    bench.done("stop the ring, and start it with another kick descriptor")
    ring.resume(ring.stop() or 0)
    for turn in range(2):
        round_trip(bench)
        expect_served(bench, ring, _S + "kick.2", f"after kick {turn + 1} of another descriptor")


@check("rings.enabled-and-started", covers=[_S + "ring.7"], formats=BOTH, carriers=VHOST)
def enabled_and_started(bench: Bench) -> None:
    """A ring that was enabled while it was stopped is processed once it is started."""
    ring = start_raw(bench)
    need_disabled_rings(bench)
    bench.front_end.enable(ring.number)
    bench.front_end.set_kick(ring.number)
    expect_served(bench, ring, _S + "ring.7", "of a ring that was enabled before it was started")


@check("rings.what-is-there-is-done-without-a-kick", covers=[_S + "ring.3"], formats=BOTH, carriers=VHOST)
def what_is_there_is_done_without_a_kick(bench: Bench) -> None:
    """Buffers that are available when a ring is started are used although nobody kicks."""
    ring = start_raw(bench)
    post_plain(bench, ring)
    bench.front_end.set_kick(ring.number)
    if bench.front_end.features >> 30 & 1:
        bench.front_end.enable(ring.number)
    try:
        ring.wait_used()
    except TargetHung as hung:
        bench.fail(_S + "ring.3", expected="the buffer used after SET_VRING_KICK", observed=str(hung))


@check(
    "rings.get-base-stops",
    covers=[_S + "ring.4", _S + "suspended.1", _S + "suspended.2", _S + "suspended.4"],
    formats=BOTH,
    carriers=VHOST,
)
def get_base_stops(bench: Bench) -> None:
    """After GET_VRING_BASE no buffer is used, nothing is written and nobody is called, and messages are answered."""
    bench.start()
    ring = bench.ring()
    bench.exchange(ring)
    for number in bench.rings:
        bench.front_end.get_base(number)
    still = LeftAlone(bench, ring, post_plain(bench, ring))
    settle(bench, ring)
    still.expect(_S + "ring.4", "after GET_VRING_BASE")
    round_trip(bench)


@check(
    "rings.no-message-while-suspended",
    covers=[_S + "suspended.3"],
    carriers=VHOST,
    protocol_features=[_F.BACKEND_REQ],
)
def no_message_while_suspended(bench: Bench) -> None:
    """While all rings are stopped the back end says nothing over its channel."""
    bench.start()
    bench.exchange(bench.ring())
    for number in bench.rings:
        bench.front_end.get_base(number)
    channel = bench.front_end.channel
    assert channel is not None
    for message in channel.waiting():
        message.close()
    if bench.front_end.has(_F.CONFIG):
        bench.front_end.get_config(0, 4)
    round_trip(bench)
    said = channel.waiting()
    bench.expect(
        not said,
        _S + "suspended.3",
        expected="no message over the back end's channel while all rings are stopped",
        observed=f"{len(said)}, the first of type {said[0].request if said else 0}",
    )


@check("rings.start-again", covers=[_S + "ring.5"], formats=BOTH, carriers=VHOST)
def start_again(bench: Bench) -> None:
    """A ring that was stopped goes on where it stood, with what came meanwhile."""
    bench.start()
    ring = bench.ring()
    for _ in range(3):
        bench.exchange(ring)
        base = ring.stop()
        assert base is not None
        [posted] = post_plain(bench, ring)
        ring.resume(base)
        try:
            used = ring.wait_used()
        except TargetHung as hung:
            bench.fail(_S + "ring.5", expected="what came meanwhile used after another start", observed=str(hung))
        bench.expect(
            used.id == posted.head,
            _S + "ring.5",
            expected=f"buffer {posted.head} used after another start",
            observed=f"buffer {used.id}",
            shown=[ring.show_used(used)],
        )


@check("rings.disabled-has-no-effect", covers=[_S + "ring.6"], formats=BOTH, carriers=VHOST)
def disabled_has_no_effect(bench: Bench) -> None:
    """A ring that is started and not enabled gives nothing to the guest."""
    ring = start_raw(bench)
    need_disabled_rings(bench)
    bench.front_end.set_kick(ring.number)
    posted = post_plain(bench, ring)
    settle(bench, ring)
    bench.front_end.get_base(ring.number)
    unwritten(bench, ring, posted, _S + "ring.6", "while the ring is disabled")


@check("rings.disabled-and-enabled-again", covers=[_S + "ring.10"], formats=BOTH, carriers=VHOST)
def disabled_and_enabled_again(bench: Bench) -> None:
    """SET_VRING_ENABLE takes effect while a ring is started, both ways."""
    bench.start()
    need_disabled_rings(bench)
    ring = bench.ring()
    bench.exchange(ring)
    bench.front_end.enable(ring.number, False)
    posted = post_plain(bench, ring)
    settle(bench, ring)
    unwritten(bench, ring, posted, _S + "ring.10", "after the ring was disabled")
    bench.front_end.enable(ring.number)
    ring.kick()
    try:
        ring.wait_used()
    except TargetHung as hung:
        bench.fail(_S + "ring.10", expected="the ring processed after it was enabled again", observed=str(hung))
    expect_served(bench, ring, _S + "ring.10", "after the ring was enabled again")
