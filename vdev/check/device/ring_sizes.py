"""Checks of queue sizes: the smallest, the largest, and those in between, each filled and gone round."""

from vdev.check.bench.bench import Bench
from vdev.check.device.plain_requests import (
    answer_all,
    cut_into,
    expect_answer,
    fewest_pieces,
    is_split,
    make_available,
    most_at_once,
    of_format,
    one_request,
)
from vdev.check.registry import BOTH, check

_ODD_SIZES = (3, 5, 7, 31, 33)


def _largest(bench: Bench) -> int:
    """Return the largest size of the queue of plain requests: what the device says, else what its type is used to."""
    queue = bench.traffic.queue
    return bench.control.queue_size_max(queue) or bench.traffic.queues(bench)[queue]


def _go_round_and_fill(bench: Bench, size: int) -> None:
    bench.start(queues={**bench.traffic.queues(bench), bench.traffic.queue: size})
    ring = bench.ring()
    bench.done(f"a queue of {size}: filled, and gone round")
    # One alone, so that what follows begins in the middle and goes over the end.
    one_request(bench, ring)
    for _ in range(3):
        answer_all(bench, ring, make_available(bench, ring, most_at_once(bench, ring)))


@check(
    "size.each-that-is-allowed",
    covers=["split.device.described.queue-size", "packed.device.described.queue-size"],
    formats=BOTH,
)
def each_that_is_allowed(bench: Bench) -> None:
    """Queues of 1, 2, 4 and so on descriptors, in a packed ring of 3, 5, 7 and so on, work up to the last place."""
    largest = _largest(bench)
    fewest = fewest_pieces(bench.traffic.plain(bench))
    sizes = [1 << power for power in range(largest.bit_length()) if 1 << power <= min(largest, 32)]
    if not is_split(bench):
        sizes += [size for size in _ODD_SIZES if size <= largest]
    for size in sizes:
        if size >= fewest:
            _go_round_and_fill(bench, size)


@check(
    "size.largest",
    covers=["split.device.described.queue-size", "packed.device.described.queue-size"],
    formats=BOTH,
)
def largest(bench: Bench) -> None:
    """A queue of the largest size that the device allows works, up to its last place."""
    _go_round_and_fill(bench, min(_largest(bench), 1024))


@check(
    "size.chain-fills-the-queue",
    covers=["split.device.described.chain", "packed.device.described.framing"],
    formats=BOTH,
)
def chain_fills_the_queue(bench: Bench) -> None:
    """A chain may have as many elements as the queue has descriptors."""
    for size in (2, 4, 16):
        if size < fewest_pieces(bench.traffic.plain(bench)):
            continue
        bench.start(queues={**bench.traffic.queues(bench), bench.traffic.queue: size})
        ring = bench.ring()
        for _ in range(3):
            request = bench.traffic.plain(bench)
            posted = ring.post(request, cuts=cut_into(request, size))
            ring.publish()
            ring.kick()
            used = ring.wait_used()
            statement = of_format(bench, split="split.device.described.chain", packed="packed.device.described.framing")
            expect_answer(bench, ring, posted, used, statement)
