"""Checks of a disk with several request queues."""

from typing import TYPE_CHECKING

from spec.block import CONFIG, BlockFeature, RequestType
from spec.layout import offset_of
from vdev.check.device.block_disk import BLOCK, Disk, name_of_status
from vdev.check.registry import BOTH, check

if TYPE_CHECKING:
    from vdev.check.bench.bench import Bench

_MOST = 16
"""Queues that are set up at once, however many there are."""
_SIZE = 8


@check(
    "block-queues.each-serves",
    covers=["block.device.described.num-queues"],
    formats=BOTH,
    types=BLOCK,
    features=[BlockFeature.MQ],
)
def each_serves(bench: "Bench") -> None:
    """Every queue that num_queues counts answers requests, the last one first."""
    told = int.from_bytes(bench.control.read_config(offset_of(CONFIG, "num_queues"), 2), "little")
    bench.expect(
        told > 0,
        "block.device.described.num-queues",
        expected="num_queues at least 1, as MQ is offered",
        observed="num_queues 0",
    )
    count = min(told, _MOST)
    disk = Disk(bench, BlockFeature.MQ, queues=dict.fromkeys(range(count), _SIZE))
    wanted = disk.read(0, disk.unit_sectors)
    for number in reversed(range(count)):
        answer = disk.ask(RequestType.IN, 0, to_read=disk.unit, queue=number)
        bench.expect(
            answer.is_ok and answer.data == wanted,
            "block.device.described.num-queues",
            expected=f"OK and what sector 0 holds, in queue {number} of {told}",
            observed=f"status {name_of_status(answer.status)}, "
            f"{'the same' if answer.data == wanted else 'other'} bytes",
            shown=answer.shown(),
        )
