"""Checks of the balloon's statistics queue."""

from typing import TYPE_CHECKING

from spec.balloon import STATISTIC, BalloonFeature, BalloonQueue, StatisticTag
from vdev.check.device.balloon_bench import BALLOON, Balloon
from vdev.check.registry import BOTH, check

if TYPE_CHECKING:
    from vdev.check.bench.bench import Bench

_STATISTICS = [BalloonFeature.STATS_VQ]
_UNKNOWN = (0x40, 0x8000, 0xFFFF)
_VALUE = 0x0123_4567_89AB_C000


def _entries(*tags: int) -> bytes:
    return b"".join(STATISTIC.build({"tag": tag, "val": _value_of(tag)}) for tag in tags)


def _value_of(tag: int) -> int:
    return _VALUE + tag


@check(
    "balloon-statistics.odd-buffers-are-taken",
    covers=["balloon.device.statistics.1", "balloon.device.statistics.2"],
    formats=BOTH,
    types=BALLOON,
    features=_STATISTICS,
)
def odd_buffers_are_taken(bench: "Bench") -> None:
    """Entries with tags that nobody knows, and in any order, do not keep the balloon from working."""
    for tags, statement in (
        (_UNKNOWN, "balloon.device.statistics.1"),
        ((5, 0x40, 4), "balloon.device.statistics.1"),
        (tuple(reversed(StatisticTag)), "balloon.device.statistics.2"),
        ((4, 0, 5), "balloon.device.statistics.2"),
    ):
        if bench.rings:
            bench.reconnect()
        balloon = Balloon(bench, BalloonFeature.STATS_VQ)
        balloon.give(BalloonQueue.STATISTICS, _entries(*tags))
        is_whole = _still_works(balloon)
        bench.expect(
            is_whole,
            statement,
            expected=f"a balloon that works after statistics with the tags {', '.join(map(hex, tags))}",
            observed="an inflate request that is not answered any more",
        )


def _still_works(balloon: Balloon) -> bool:
    ring = balloon.bench.ring(balloon.numbers[BalloonQueue.INFLATE])
    ring.post(balloon.bench.traffic.plain(balloon.bench))
    ring.publish()
    ring.kick()
    balloon.bench.survives()
    return bool(ring.used_now())


@check(
    "balloon-statistics.values-are-understood",
    covers=["balloon.device.statistics.1", "balloon.device.statistics.2"],
    formats=BOTH,
    types=BALLOON,
    features=_STATISTICS,
)
def values_are_understood(bench: "Bench") -> None:
    """The host knows the values of the tags that have names, whatever stands between them and in any order."""
    balloon = Balloon(bench, BalloonFeature.STATS_VQ)
    bench.host("figures")
    known = [StatisticTag.TOTAL_MEMORY, StatisticTag.SWAP_IN, StatisticTag.FREE_MEMORY]
    balloon.give(BalloonQueue.STATISTICS, _entries(0x40, known[0], 0xFFFF, *known[1:], 0x8000))
    wanted = {tag.name.lower(): _value_of(tag) for tag in known}
    balloon.wait_figure(
        "statistics",
        lambda found: set(wanted) <= set(found),
        "balloon.device.statistics.1",
        expected=f"{', '.join(wanted)} known to the host",
    )
    balloon.wait_figure(
        "statistics",
        lambda found: {name: found.get(name) for name in wanted} == wanted,
        "balloon.device.statistics.2",
        expected=f"{wanted}",
    )


@check(
    "balloon-statistics.buffer-is-kept",
    covers=["balloon.device.described.statistics-buffer"],
    formats=BOTH,
    types=BALLOON,
    features=_STATISTICS,
)
def buffer_is_kept(bench: "Bench") -> None:
    """The statistics buffer comes back when the host asks for new statistics, once, and not before."""
    balloon = Balloon(bench, BalloonFeature.STATS_VQ)
    bench.host("figures")
    ring = bench.ring(balloon.numbers[BalloonQueue.STATISTICS])
    for number in range(3):
        balloon.give(BalloonQueue.STATISTICS, _entries(*StatisticTag))
        balloon.inflate(balloon.pages(1))
        early = ring.used_now()
        bench.expect(
            not early,
            "balloon.device.described.statistics-buffer",
            expected="the statistics buffer kept until the host asks",
            observed=f"used length {early[0].length}, after a later inflate request" if early else "",
        )
        bench.host("statistics-request")
        used = ring.wait_used()
        bench.expect(
            used.length == 0,
            "balloon.device.described.statistics-buffer",
            expected=f"the buffer back with length 0 at request {number + 1}",
            observed=f"used length {used.length}",
        )
