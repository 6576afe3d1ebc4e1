"""Whether a device serves a ring, or has nothing to do with it: no used element, no byte in a buffer, no call."""

from vdev.check.bench.arena import FILL
from vdev.check.bench.bench import Bench
from vdev.check.bench.ring import Posted, Ring
from vdev.check.verdict import TargetHung

__all__ = ["LeftAlone", "expect_served", "post_plain"]


def post_plain(bench: Bench, ring: Ring, count: int = 1) -> list[Posted]:
    """Post and publish `count` plain requests; nobody is told of them."""
    posted = [ring.post(bench.traffic.plain(bench)) for _ in range(count)]
    ring.publish()
    return posted


def expect_served(bench: Bench, ring: Ring, statement: str, how: str) -> None:
    """Hold it against `statement` that a plain request is carried out; `how` says when, for people."""
    [posted] = post_plain(bench, ring)
    ring.kick()
    try:
        used = ring.wait_used()
    except TargetHung as hung:
        bench.fail(statement, expected=f"a buffer used {how}", observed=str(hung), shown=ring.show_areas())
    bench.expect(
        used.id == posted.head,
        statement,
        expected=f"buffer {posted.head} used {how}",
        observed=f"buffer {used.id}",
        shown=[ring.show_used(used)],
    )


class LeftAlone:
    """Remembers how a ring and buffers in it stand, so that it can be said later whether a device was there."""

    def __init__(self, bench: Bench, ring: Ring, posted: list[Posted]) -> None:
        self._bench = bench
        self._ring = ring
        self._posted = posted
        self._calls = bench.control.call_count(ring.number)

    def expect(self, statement: str, when: str) -> None:
        """Hold it against `statement` that nothing has been done since; `when` says in which state that is so."""
        bench, ring = self._bench, self._ring
        used = ring.used_now()
        bench.expect(
            not used,
            statement,
            expected=f"no used buffer {when}",
            observed=f"{len(used)} used, the first with id {used[0].id if used else 0}",
            shown=[ring.show_used(element) for element in used[:1]],
        )
        for posted in self._posted:
            written = ring.written(posted)
            bench.expect(
                written == bytes([FILL]) * len(written),
                statement,
                expected=f"no byte of a buffer written {when}",
                observed="device-writable bytes changed",
                shown=[
                    bench.memory.show(part.address, part.size, "buffer") for part in posted.segments if part.writable
                ],
            )
        calls = bench.control.call_count(ring.number) - self._calls
        bench.expect(
            not calls,
            statement,
            expected=f"no used buffer notification {when}",
            observed=f"{calls} notifications",
        )
