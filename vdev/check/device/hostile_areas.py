"""Rings where no ring can be; and at both ends of RAM, where one can."""

from dataclasses import replace

from vdev.check.bench.arena import Place
from vdev.check.bench.bench import Bench
from vdev.check.bench.control import RingAreas
from vdev.check.device.hostile_steps import begin
from vdev.check.device.plain_requests import answer_all, make_available, most_at_once
from vdev.check.registry import BOTH, RingFormat, check
from vdev.check.target import ConnectionClosed
from vdev.check.verdict import Inconclusive

_COVERS = ("hostile.device.alive", "hostile.device.memory")
_PARTS = ("descriptor", "driver", "device")


@check(
    "areas.anywhere-in-ram",
    covers=["split.device.described.queue-size", "packed.device.described.queue-size"],
    formats=BOTH,
)
def anywhere_in_ram(bench: Bench) -> None:
    """Rings above 4 GiB work like others."""
    for place in (Place.LOW, Place.HIGH):
        bench.start(place=place)
        ring = bench.ring()
        answer_all(bench, ring, make_available(bench, ring, most_at_once(bench, ring)))


def _offer_ring_at(bench: Bench, areas: RingAreas) -> None:
    queue = bench.traffic.queue
    others = {number: size for number, size in bench.traffic.queues(bench).items() if number != queue}
    begin(bench, queues=others, drive=False)
    bench.done(f"queue {queue} has its parts at {areas}")
    try:
        bench.control.set_up_queue(queue, areas)
        bench.control.run()
        bench.control.kick(queue)
    except (Inconclusive, ConnectionClosed) as refusal:
        bench.done(f"so far: {refusal}")
        return
    bench.survives()


def _good_areas(bench: Bench) -> RingAreas:
    size = 16
    descriptor = bench.memory.allocate(16 * size, align=16, data=bytes(16 * size), what="descriptors")
    driver = bench.memory.allocate(6 + 2 * size, align=4, data=bytes(6 + 2 * size), what="driver area")
    device = bench.memory.allocate(6 + 8 * size, align=4, data=bytes(6 + 8 * size), what="device area")
    return RingAreas(size, descriptor.address, driver.address, device.address)


@check("hostile.area-outside-ram", covers=_COVERS, formats=BOTH, hostile=True)
def area_outside_ram(bench: Bench) -> None:
    """A ring one of whose three parts is where there is no RAM."""
    for part in _PARTS:
        _offer_ring_at(bench, replace(_good_areas(bench), **{part: bench.memory.outside() & ~0xFFF}))


@check("hostile.area-over-the-end-of-ram", covers=_COVERS, formats=BOTH, hostile=True)
def area_over_the_end_of_ram(bench: Bench) -> None:
    """A ring one of whose parts begins in RAM and ends behind it: any but the smallest."""
    last = bench.memory.allocate(16, align=16, what="last bytes of RAM", place=Place.LAST)
    end = last.address + last.size
    for part in _PARTS if bench.format is RingFormat.SPLIT else _PARTS[:1]:
        areas = _good_areas(bench)
        _offer_ring_at(bench, replace(areas, **{part: end - (16 if part == "descriptor" else 4)}))


@check("hostile.area-not-aligned", covers=_COVERS, formats=BOTH, hostile=True)
def area_not_aligned(bench: Bench) -> None:
    """A ring one of whose three parts is at an odd address."""
    for part in _PARTS:
        areas = _good_areas(bench)
        _offer_ring_at(bench, replace(areas, **{part: getattr(areas, part) - 1}))
