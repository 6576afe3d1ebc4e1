"""Checks of ring bases over vhost-user: where a ring was stopped, and where it goes on."""

from spec.device import Feature
from vdev.check.bench.bench import Bench
from vdev.check.bench.ring import Ring
from vdev.check.device.left_alone import expect_served, post_plain
from vdev.check.device.vhost_steps import VHOST
from vdev.check.registry import BOTH, RingFormat, check
from vdev.check.verdict import TargetHung

_S = "vhost-user.back-end."
_SIZE = 16
_SPLIT = (RingFormat.SPLIT,)
_PACKED = (RingFormat.PACKED,)


def _used_laps(bench: Bench) -> Ring:
    """Return a ring that was gone round more than once."""
    bench.start(size=_SIZE)
    ring = bench.ring()
    for _ in range(_SIZE + 5):
        bench.exchange(ring)
    return ring


@check("bases.split-counts-what-was-taken", covers=[_S + "base.1", _S + "base.5"], formats=_SPLIT, carriers=VHOST)
def split_counts_what_was_taken(bench: Bench) -> None:
    """The base of a split ring is the available index up to which it was processed, past the ring's size."""
    ring = _used_laps(bench)
    base = bench.front_end.get_base(ring.number)
    bench.expect(base == ring.base, _S + "base.1", expected=f"base {ring.base:#x}", observed=f"{base:#x}")


@check("bases.packed-has-both-places", covers=[_S + "base.2", _S + "base.5"], formats=_PACKED, carriers=VHOST)
def packed_has_both_places(bench: Bench) -> None:
    """The base of a packed ring has the next available and the next used place, and their wrap counters."""
    ring = _used_laps(bench)
    base = bench.front_end.get_base(ring.number)
    bench.expect(base == ring.base, _S + "base.2", expected=f"base {ring.base:#010x}", observed=f"{base:#010x}")


@check("bases.split-goes-on-anywhere", covers=[_S + "base.3"], formats=_SPLIT, carriers=VHOST)
def split_goes_on_anywhere(bench: Bench) -> None:
    """A split ring begins at the base that it is given, and its index wraps from 65535 to 0."""
    bench.start(size=_SIZE, bases={bench.traffic.queue: 65530})
    for turn in range(_SIZE):
        expect_served(bench, bench.ring(), _S + "base.3", f"as request {turn + 1} from base 65530 on")


@check("bases.packed-goes-on-anywhere", covers=[_S + "base.4"], formats=_PACKED, carriers=VHOST)
def packed_goes_on_anywhere(bench: Bench) -> None:
    """A packed ring begins at the base that it is given, in a lap of either kind, and goes over its end."""
    for lap in (1, 0):
        start = lap << 15 | _SIZE - 3
        bench.start(size=_SIZE, bases={bench.traffic.queue: start})
        for turn in range(_SIZE):
            how = f"as request {turn + 1} from place {_SIZE - 3} with wrap counter {lap} on"
            expect_served(bench, bench.ring(), _S + "base.4", how)


@check("bases.what-was-taken-is-given-back", covers=[_S + "base.6"], formats=BOTH, carriers=VHOST)
def what_was_taken_is_given_back(bench: Bench) -> None:
    """Each buffer that a base counts as taken is used by the time that GET_VRING_BASE is answered."""
    bench.start(features=_in_flight(bench))
    ring = bench.ring()
    for count in (1, 5, 8):
        before = ring.base
        posted = post_plain(bench, ring, count)
        ring.kick()
        base = bench.front_end.get_base(ring.number)
        used = ring.used_now()
        bench.expect(
            base == ring.base,
            _S + "base.6",
            expected=f"a base as far behind {before:#x} as the {len(used)} buffers that were used: {ring.base:#x}",
            observed=f"{base:#x}",
            shown=[ring.show_used(element) for element in used[-1:]],
        )
        ring.resume(base)
        _expect_rest(bench, ring, len(posted) - len(used), _S + "base.7")


def _in_flight(bench: Bench) -> tuple[Feature, ...]:
    """With INDIRECT_DESC more requests fit a ring."""
    return (Feature.INDIRECT_DESC,) if bench.offers(Feature.INDIRECT_DESC) else ()


def _expect_rest(bench: Bench, ring: Ring, count: int, statement: str) -> None:
    if not count:
        return
    try:
        ring.wait_all(count)
    except TargetHung as hung:
        bench.fail(statement, expected=f"{count} buffers more used after the start", observed=str(hung))


@check("bases.nothing-is-lost-or-done-twice", covers=[_S + "base.7"], formats=BOTH, carriers=VHOST)
def nothing_is_lost_or_done_twice(bench: Bench) -> None:
    """Over many stops and starts each buffer is used once."""
    bench.start()
    ring = bench.ring()
    statement = _S + "base.7"
    for turn in range(24):
        outstanding = {posted.head for posted in post_plain(bench, ring, 1 + turn % 5)}
        if turn % 3:
            ring.kick()
        base = ring.stop()
        assert base is not None
        found = ring.used_now()
        ring.resume(base)
        try:
            found += ring.wait_all(len(outstanding) - len(found)) if len(outstanding) > len(found) else []
        except TargetHung as hung:
            bench.fail(statement, expected="every buffer used after the start", observed=str(hung))
        found += ring.used_now()
        heads = [used.id for used in found]
        bench.expect(
            sorted(heads) == sorted(outstanding),
            statement,
            expected=f"each of the buffers {sorted(outstanding)} used once",
            observed=f"used were {heads}",
            shown=ring.show_areas(),
        )
