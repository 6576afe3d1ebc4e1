"""Checks of the area in which a back end notes the buffers that it works on."""

import os

import numpy as np
import numpy.typing as npt

from spec.inflight import (
    INFLIGHT_VERSION,
    PACKED_INFLIGHT,
    PACKED_INFLIGHT_DESCRIPTOR,
    SPLIT_INFLIGHT,
    SPLIT_INFLIGHT_DESCRIPTOR,
)
from spec.layout import dtype_of
from spec.vhost_user import ProtocolFeature
from vdev.check.bench.bench import Bench
from vdev.check.bench.inflight_area import InflightArea
from vdev.check.bench.ring import Posted, Ring
from vdev.check.bench.split_ring import SplitRing
from vdev.check.device.left_alone import post_plain
from vdev.check.device.vhost_steps import VHOST
from vdev.check.registry import BOTH, RingFormat, check
from vdev.check.verdict import TargetHung

_S = "vhost-user.back-end."
_TRACKED = [ProtocolFeature.INFLIGHT_SHMFD]
_SPLIT = (RingFormat.SPLIT,)


class _Region:
    """The part of an area that a queue has: the head's fields, and an entry for each descriptor."""

    def __init__(self, bench: Bench, area: InflightArea, number: int) -> None:
        is_packed = bench.format is RingFormat.PACKED
        head = dtype_of(PACKED_INFLIGHT if is_packed else SPLIT_INFLIGHT)
        each = dtype_of(PACKED_INFLIGHT_DESCRIPTOR if is_packed else SPLIT_INFLIGHT_DESCRIPTOR)
        stride = area.mmap_size // area.queue_count if number else 0
        data: npt.NDArray[np.uint8] = np.frombuffer(area.data, np.uint8)[stride * number :]
        self.head = data[: head.itemsize].view(head).reshape(())
        self.entries = data[head.itemsize : head.itemsize + area.queue_size * each.itemsize].view(each)


def _start_tracked(bench: Bench) -> tuple[Ring, InflightArea]:
    """Bring everything up but the rings, with an area for them that the back end made."""
    bench.start(drive=False)
    ring = bench.ring()
    area = bench.front_end.get_inflight(1, ring.size)
    return ring, area


def _queue_0_only(bench: Bench) -> None:
    if bench.traffic.queue:
        bench.not_applicable("plain requests go to a queue whose place in the area is the back end's to choose")


@check(
    "inflight.area-is-described", covers=[_S + "inflight.1"], formats=BOTH, carriers=VHOST, protocol_features=_TRACKED
)
def area_is_described(bench: Bench) -> None:
    """GET_INFLIGHT_FD is answered with a file that is as large as said, and has room for what was asked for."""
    ring, area = _start_tracked(bench)
    try:
        region = 16 + 16 * ring.size if bench.format is RingFormat.SPLIT else 32 + 32 * ring.size
        end = area.mmap_offset + area.mmap_size
        file_size = os.fstat(area.fd).st_size
        bench.expect(
            area.mmap_size >= region and file_size >= end,
            _S + "inflight.1",
            expected=f"at least {region} bytes for {ring.size} descriptors, all of them in the file",
            observed=f"{area.mmap_size} bytes at {area.mmap_offset}, in a file of {file_size}",
        )
        bench.expect(
            (area.queue_count, area.queue_size) == (1, ring.size),
            _S + "inflight.1",
            expected=f"an area for 1 queue of {ring.size}",
            observed=f"one for {area.queue_count} of {area.queue_size}",
        )
    finally:
        area.close()


@check(
    "inflight.nothing-is-left-after-use",
    covers=[_S + "inflight.2"],
    formats=BOTH,
    carriers=VHOST,
    protocol_features=_TRACKED,
)
def nothing_is_left_after_use(bench: Bench) -> None:
    """Once all buffers are used the area says its version and size, and that none is in flight."""
    _queue_0_only(bench)
    ring, area = _start_tracked(bench)
    try:
        bench.front_end.set_inflight(area)
        bench.drive()
        for _ in range(ring.size + 3):
            bench.exchange(ring)
        ring.stop()
        region = _Region(bench, area, ring.number)
        version, count = int(region.head["version"]), int(region.head["descriptor_count"])
        marked = np.flatnonzero(region.entries["inflight"]).tolist()
        del region
        bench.expect(
            (version, count) == (INFLIGHT_VERSION, ring.size),
            _S + "inflight.2",
            expected=f"version 1 and {ring.size} entries",
            observed=f"version {version} and {count} entries",
        )
        bench.expect(not marked, _S + "inflight.2", expected="no entry in flight", observed=f"in flight: {marked[:16]}")
    finally:
        area.close()


def _mark(bench: Bench, area: InflightArea, posted: list[Posted], used_idx: int, counters: list[int]) -> None:
    """Note in the area what a back end would have that took these buffers and died."""
    region = _Region(bench, area, 0)
    region.head["version"], region.head["descriptor_count"] = INFLIGHT_VERSION, area.queue_size
    region.head["used_idx"] = used_idx
    for chain, counter in zip(posted, counters, strict=True):
        region.entries["inflight"][chain.head] = 1
        region.entries["counter"][chain.head] = counter


@check(
    "inflight.what-was-taken-is-done",
    covers=[_S + "inflight.3"],
    formats=_SPLIT,
    carriers=VHOST,
    protocol_features=_TRACKED,
)
def what_was_taken_is_done(bench: Bench) -> None:
    """Buffers that a dead back end had taken are each carried out by the next one, once."""
    _queue_0_only(bench)
    ring, area = _start_tracked(bench)
    try:
        posted = post_plain(bench, ring, 3)
        _mark(bench, area, posted, 0, [9, 7, 8])
        bench.done("note in the area that these three are in flight, and were taken in the order 2, 3, 1")
        assert isinstance(ring, SplitRing)
        for slot in range(3):
            ring.store_available(slot, posted[0].head)
        bench.done("overwrite their places in the available ring, as later buffers would")
        bench.front_end.set_inflight(area)
        bench.drive()
        statement = _S + "inflight.3"
        try:
            used = ring.wait_all(3)
        except TargetHung as hung:
            bench.fail(statement, expected="each buffer in flight used", observed=str(hung), shown=ring.show_areas())
        heads = [element.id for element in used]
        wanted = [posted[1].head, posted[2].head, posted[0].head]
        bench.expect(
            sorted(heads) == sorted(wanted),
            statement,
            expected=f"the buffers {wanted} used once",
            observed=f"{heads}",
            shown=ring.show_areas(),
        )
        _expect_goes_on(bench, ring, statement)
    finally:
        area.close()


def _expect_goes_on(bench: Bench, ring: Ring, statement: str) -> None:
    try:
        bench.exchange(ring, statement=statement)
    except TargetHung as hung:
        bench.fail(statement, expected="the next request carried out", observed=str(hung), shown=ring.show_areas())
    more = ring.used_now()
    bench.expect(not more, statement, expected="each buffer used once", observed=f"used once more: {more}")


@check(
    "inflight.what-was-used-is-not-done-again",
    covers=[_S + "inflight.4"],
    formats=_SPLIT,
    carriers=VHOST,
    protocol_features=_TRACKED,
)
def what_was_used_is_not_done_again(bench: Bench) -> None:
    """A buffer that a back end put into the used ring, and died before it noted that, is not carried out again."""
    _queue_0_only(bench)
    ring, area = _start_tracked(bench)
    try:
        first, second = post_plain(bench, ring, 2)
        _mark(bench, area, [first, second], 0, [1, 2])
        region = _Region(bench, area, 0)
        region.head["last_batch_head"] = first.head
        del region
        element = first.head.to_bytes(4, "little") + bytes(4)
        bench.memory.write(ring.areas.device + 4, element)
        bench.memory.write(ring.areas.device + 2, b"\1\0")
        bench.done(f"put buffer {first.head} into the used ring, with both still noted as in flight")
        bench.front_end.set_inflight(area)
        ring.used_now()
        # What a front end knows of a back end that died is the used ring's index.
        bench.front_end.set_base(ring.number, 1)
        bench.drive()
        statement = _S + "inflight.4"
        try:
            used = ring.wait_used()
        except TargetHung as hung:
            bench.fail(statement, expected=f"buffer {second.head} used", observed=str(hung), shown=ring.show_areas())
        bench.expect(
            used.id == second.head,
            statement,
            expected=f"buffer {second.head} used, and not {first.head} again",
            observed=f"buffer {used.id}",
            shown=[ring.show_used(used)],
        )
        _expect_goes_on(bench, ring, statement)
    finally:
        area.close()
