"""Checks of the file descriptors of a ring over vhost-user: kick, call and error."""

from spec.vhost_user import PROTOCOL_FEATURES
from vdev.check.bench.bench import Bench
from vdev.check.bench.fate import Fate
from vdev.check.bench.ring import Segment
from vdev.check.device.left_alone import expect_served, post_plain
from vdev.check.device.vhost_steps import VHOST, round_trip, start_raw
from vdev.check.registry import BOTH, check
from vdev.check.target import ConnectionClosed
from vdev.check.verdict import TargetHung

_S = "vhost-user.back-end."


@check("events.polled-without-a-descriptor", covers=[_S + "kick.1"], formats=BOTH, carriers=VHOST)
def polled_without_a_descriptor(bench: Bench) -> None:
    """A ring that was given no kick descriptor is looked at by itself."""
    ring = start_raw(bench)
    bench.front_end.set_kick(ring.number, fd=False)
    if bench.front_end.features >> PROTOCOL_FEATURES & 1:
        bench.front_end.enable(ring.number)
    for turn in range(3):
        # It has come to rest, if it ever does.
        round_trip(bench)
        post_plain(bench, ring)
        try:
            ring.wait_used()
        except TargetHung as hung:
            bench.fail(_S + "kick.1", expected=f"buffer {turn + 1} used without a kick", observed=str(hung))


def _expect_called(bench: Bench, statement: str, when: str) -> None:
    ring = bench.ring()
    before = bench.control.call_count(ring.number)
    bench.exchange(ring)
    try:
        bench.control.wait_call(ring.number, before)
    except TargetHung as hung:
        bench.fail(statement, expected=f"the call descriptor signalled {when}", observed=str(hung))


@check("events.used-buffers-are-called", covers=[_S + "call.1"], formats=BOTH, carriers=VHOST)
def used_buffers_are_called(bench: Bench) -> None:
    """A used buffer is signalled at the call descriptor."""
    bench.start()
    for turn in range(3):
        _expect_called(bench, _S + "call.1", f"for used buffer {turn + 1}")


@check("events.works-without-calls", covers=[_S + "call.2"], formats=BOTH, carriers=VHOST)
def works_without_calls(bench: Bench) -> None:
    """A ring that was given no call descriptor is processed all the same."""
    bench.start()
    ring = bench.ring()
    bench.exchange(ring)
    bench.front_end.set_call(ring.number, fd=False)
    for turn in range(2):
        try:
            expect_served(bench, ring, _S + "call.2", f"as request {turn + 1} of a ring without a call descriptor")
        except ConnectionClosed as closed:
            bench.fail(
                _S + "call.2", expected="a ring that is processed without a call descriptor", observed=str(closed)
            )


@check("events.another-call-descriptor", covers=[_S + "call.3", _S + "ring.11"], formats=BOTH, carriers=VHOST)
def another_call_descriptor(bench: Bench) -> None:
    """While a ring is processed its call descriptor can be another one, which is then the one that is signalled."""
    bench.start()
    _expect_called(bench, _S + "call.1", "for a used buffer")
    bench.front_end.set_call(bench.ring().number)
    _expect_called(bench, _S + "call.3", "after another one was set")


@check("events.no-error-without-one", covers=[_S + "err.2"], formats=BOTH, carriers=VHOST)
def no_error_without_one(bench: Bench) -> None:
    """The error descriptor is not signalled for requests that are as they should be."""
    bench.start()
    ring = bench.ring()
    for _ in range(3):
        bench.exchange(ring)
    ring.stop()
    errors = bench.front_end.errors(ring.number)
    bench.expect(not errors, _S + "err.2", expected="no signal of the error descriptor", observed=f"{errors}")


@check(
    "events.an-error-is-signalled",
    covers=[_S + "err.1", "hostile.device.alive", "hostile.device.memory"],
    formats=BOTH,
    carriers=VHOST,
    hostile=True,
)
def an_error_is_signalled(bench: Bench) -> None:
    """A ring that is not processed for what stands in it has its error descriptor signalled."""
    bench.start()
    ring = bench.ring()
    ring.post(segments=[Segment(bench.memory.outside(), 64, True)])
    ring.publish()
    ring.kick()
    fate = bench.survives()
    if fate is Fate.USED:
        bench.not_applicable("the buffer was used, so the back end sees no error of the ring")
    if fate is Fate.CLOSED:
        bench.inconclusive("the back end closed the connection, and nobody can say for what")
    errors = bench.front_end.errors(ring.number)
    bench.expect(
        errors > 0,
        _S + "err.1",
        expected="the error descriptor signalled for a buffer outside of guest RAM",
        observed=f"none, and the buffer was not used: {fate.value}",
    )
