"""Checks of IN_ORDER: in which order buffers come back, one by one or one element for several."""

from spec.device import Feature
from vdev.check.bench.bench import Bench
from vdev.check.bench.ring import Used
from vdev.check.device.plain_requests import expect_answer, is_split, most_at_once, of_format
from vdev.check.registry import BOTH, check

_IN_ORDER = (Feature.IN_ORDER,)


@check("in-order.oldest-first", covers=["reserved.device.5"], formats=BOTH, features=_IN_ORDER)
def oldest_first(bench: Bench) -> None:
    """Buffers come back in the order in which they were made available."""
    for ids_backwards in (False, True):
        bench.start(features=_IN_ORDER)
        ring = bench.ring()
        count = most_at_once(bench, ring)
        backwards = ids_backwards and not is_split(bench)
        posted = [
            ring.post(bench.traffic.plain(bench), head=count - 1 - number if backwards else None)
            for number in range(count)
        ]
        order = [one.head for one in posted]
        ring.publish()
        ring.kick()
        used = ring.wait_all(count)
        named = [one.id for one in used]
        bench.expect(
            set(named) <= set(order) and named == sorted(named, key=order.index),
            "reserved.device.5",
            expected=f"the order {order}",
            observed=f"{named}",
            shown=[ring.show_used(one) for one in used],
        )


@check(
    "in-order.one-for-several",
    covers=["split.device.described.in-order-batch", "packed.device.described.in-order-batch"],
    formats=BOTH,
    features=_IN_ORDER,
)
def one_for_several(bench: Bench) -> None:
    """A used element stands where the first of its buffers began, and all of them were used."""
    bench.start(features=_IN_ORDER)
    ring = bench.ring()
    most = most_at_once(bench, ring)
    statement = of_format(
        bench, split="split.device.described.in-order-batch", packed="packed.device.described.in-order-batch"
    )
    for count in (most, 1, most - 1, most):
        posted = [ring.post(bench.traffic.plain(bench)) for _ in range(count)]
        ring.publish()
        ring.kick()
        used = ring.wait_all(count)
        bench.expect(
            sum(one.buffers for one in used) == count,
            statement,
            expected=f"elements for {count} buffers",
            observed=f"for {sum(one.buffers for one in used)}",
            shown=[ring.show_used(one) for one in used],
        )
        told = {one.id: one for one in used}
        for one in posted:
            # One that was passed over counts as used completely.
            passed_over = Used(one.head, one.request.writable_size if one.request else 0, 0)
            if one.head in told:
                expect_answer(bench, ring, one, told[one.head], statement)
            elif one.request is not None:
                complaint = one.request.check(ring.written(one), passed_over.length)
                bench.expect(
                    complaint is None,
                    statement,
                    expected=f"buffer {one.head}, which was passed over, to be used completely",
                    observed=complaint or "it",
                )
