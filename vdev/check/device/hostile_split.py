"""Hostile input of a driver with a split ring."""

from spec.device import Feature
from spec.split_ring import DescriptorFlag
from vdev.check.bench.bench import Bench
from vdev.check.device.hostile_steps import begin
from vdev.check.device.plain_requests import one_request, split_ring
from vdev.check.device.raw_chains import make_head_available, offer, split_table
from vdev.check.registry import RingFormat, check

_COVERS = ("hostile.device.alive", "hostile.device.memory")
_SPLIT = (RingFormat.SPLIT,)
_NEXT, _WRITE, _INDIRECT = int(DescriptorFlag.NEXT), int(DescriptorFlag.WRITE), int(DescriptorFlag.INDIRECT)
_TABLE = (Feature.INDIRECT_DESC,)


def _byte(bench: Bench) -> int:
    return bench.memory.allocate(1, data=b"\xff", what="byte").address


@check("hostile.chain-loops", covers=_COVERS, formats=_SPLIT, hostile=True)
def chain_loops(bench: Bench) -> None:
    """Chains that come back to themselves: to their only descriptor, to the first of three, and to the second."""
    for links in ((0,), (1, 2, 0), (1, 2, 1)):
        begin(bench)
        ring = split_ring(bench)
        address = _byte(bench)
        for index, following in enumerate(links):
            ring.store_descriptor(index, address, 1, _NEXT | _WRITE, following)
        offer(ring, 0)
        bench.done(f"a chain of descriptors with next {links}")
        ring.kick()
        bench.survives()


@check("hostile.next-outside-the-table", covers=_COVERS, formats=_SPLIT, hostile=True)
def next_outside_the_table(bench: Bench) -> None:
    """A chain that goes on at a descriptor that the table does not have: just behind it, and far off."""
    for beyond in (0, 0xFFFF):
        begin(bench)
        ring = split_ring(bench)
        make_head_available(ring, _byte(bench), 1, _NEXT | _WRITE, following=beyond or ring.size)
        ring.kick()
        bench.survives()


@check("hostile.head-outside-the-table", covers=_COVERS, formats=_SPLIT, hostile=True)
def head_outside_the_table(bench: Bench) -> None:
    """An available ring that names a descriptor which the table does not have."""
    for beyond in (0, 0xFFFF):
        begin(bench)
        ring = split_ring(bench)
        offer(ring, beyond or ring.size)
        ring.kick()
        bench.survives()


@check("hostile.index-jumps", covers=_COVERS, formats=_SPLIT, hostile=True)
def index_jumps(bench: Bench) -> None:
    """An available index that moves by more than the queue size, and one that moves back."""
    for move in (1, 0x8000, -1):
        begin(bench)
        ring = split_ring(bench)
        one_request(bench, ring)
        step = ring.size + 1 if move == 1 else move
        ring.store_available_index((ring.available_index + step) & 0xFFFF)
        bench.done(f"the available index moves by {step}")
        ring.kick()
        bench.survives()


@check("hostile.head-twice", covers=_COVERS, formats=_SPLIT, hostile=True)
def head_twice(bench: Bench) -> None:
    """The same head twice in the available ring, before the device gave it back."""
    begin(bench)
    ring = split_ring(bench)
    posted = ring.post(bench.traffic.plain(bench))
    offer(ring, posted.head, posted.head)
    ring.kick()
    bench.survives()


@check("hostile.table-loops", covers=_COVERS, formats=_SPLIT, features=_TABLE, hostile=True)
def table_loops(bench: Bench) -> None:
    """An indirect table whose chain comes back to itself."""
    for links in ((0,), (1, 0), (1, 1)):
        begin(bench, features=_TABLE)
        ring = split_ring(bench)
        address = _byte(bench)
        table = split_table(bench, [(address, 1, _NEXT | _WRITE, following) for following in links])
        make_head_available(ring, table.address, table.size, _INDIRECT)
        bench.done(f"a table of entries with next {links}")
        ring.kick()
        bench.survives()


@check("hostile.next-outside-an-indirect-table", covers=_COVERS, formats=_SPLIT, features=_TABLE, hostile=True)
def next_outside_an_indirect_table(bench: Bench) -> None:
    """An indirect table whose chain goes on behind its end, within the queue size and beyond it."""
    for beyond in (1, 0xFFFF):
        begin(bench, features=_TABLE)
        ring = split_ring(bench)
        table = split_table(bench, [(_byte(bench), 1, _NEXT | _WRITE, beyond)])
        make_head_available(ring, table.address, table.size, _INDIRECT)
        ring.kick()
        bench.survives()
