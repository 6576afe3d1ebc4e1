"""Checks of indirect tables."""

from spec.device import Feature
from spec.packed_ring import PackedFlag
from spec.split_ring import DescriptorFlag
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
    packed_ring,
    split_ring,
)
from vdev.check.device.raw_chains import (
    expect_raw_answer,
    make_head_available,
    offer,
    packed_table,
    segments_of,
    split_table,
    write_flag,
)
from vdev.check.registry import BOTH, RingFormat, check

_INDIRECT = (Feature.INDIRECT_DESC,)
_NEXT, _WRITE = int(DescriptorFlag.NEXT), int(DescriptorFlag.WRITE)
_AS_DESCRIBED = ("split.device.described.indirect", "packed.device.described.indirect")


@check("indirect.each-length", covers=_AS_DESCRIBED, formats=BOTH, features=_INDIRECT)
def each_length(bench: Bench) -> None:
    """Tables of one entry, two, and so on up to the queue size mean what the same chain would mean."""
    bench.start(features=_INDIRECT)
    ring = bench.ring()
    first = bench.traffic.plain(bench)
    most = min(ring.size, len(first.readable) + first.writable_size)
    lengths = sorted({*range(fewest_pieces(first), min(9, most + 1)), most // 2, most - 1, most})
    for length in (length for length in lengths if length >= fewest_pieces(first)):
        request = bench.traffic.plain(bench)
        posted = ring.post(request, cuts=cut_into(request, length), indirect=True)
        bench.done(f"a table of {len(posted.segments)} entries")
        ring.publish()
        ring.kick()
        statement = of_format(bench, split=_AS_DESCRIBED[0], packed=_AS_DESCRIBED[1])
        expect_answer(bench, ring, posted, ring.wait_used(), statement)
        ring.release(posted)


@check("indirect.a-table-for-each-place", covers=_AS_DESCRIBED, formats=BOTH, features=_INDIRECT)
def a_table_for_each_place(bench: Bench) -> None:
    """A table takes one place of the ring: as many tables as the queue has descriptors are used at once."""
    bench.start(features=_INDIRECT)
    ring = bench.ring()
    for _ in range(2):
        answer_all(bench, ring, make_available(bench, ring, ring.size, indirect=True))


@check(
    "indirect.mixed-with-direct",
    covers=["split.device.described.indirect", "packed.device.described.mixed"],
    formats=BOTH,
    features=_INDIRECT,
)
def mixed_with_direct(bench: Bench) -> None:
    """Chains with and without a table may stand in one ring, side by side."""
    bench.start(features=_INDIRECT)
    ring = bench.ring()
    for _ in range(3):
        posted = [
            ring.post(bench.traffic.plain(bench), indirect=number % 2 == 0)
            for number in range(most_at_once(bench, ring))
        ]
        ring.publish()
        ring.kick()
        answer_all(bench, ring, posted)


@check(
    "indirect.write-means-nothing",
    covers=["split.device.indirect.1", "packed.device.described.indirect-write-ignored"],
    formats=BOTH,
    features=_INDIRECT,
)
def write_means_nothing(bench: Bench) -> None:
    """WRITE in the descriptor that refers to a table changes nothing."""
    bench.start(features=_INDIRECT)
    ring = bench.ring()
    request = bench.traffic.plain(bench)
    segments = segments_of(bench, request)
    last = len(segments) - 1
    if is_split(bench):
        table = split_table(
            bench,
            [(*part[:2], write_flag(part) | (_NEXT if at < last else 0), at + 1) for at, part in enumerate(segments)],
        )
    else:
        table = packed_table(bench, [(*part[:2], 0, write_flag(part)) for part in segments])
    make_head_available(ring, table.address, table.size, _WRITE | DescriptorFlag.INDIRECT)
    bench.done("WRITE is set in the descriptor that refers to the table")
    statement = of_format(
        bench, split="split.device.indirect.1", packed="packed.device.described.indirect-write-ignored"
    )
    expect_raw_answer(bench, ring, request, segments, statement)


@check(
    "indirect.behind-direct-ones",
    covers=["split.device.indirect.2"],
    formats=(RingFormat.SPLIT,),
    features=_INDIRECT,
)
def behind_direct_ones(bench: Bench) -> None:
    """A chain may begin with direct descriptors and end with one that refers to a table."""
    for direct_count in (1, 2, 3):
        bench.start(features=_INDIRECT)
        ring = split_ring(bench)
        request = bench.traffic.plain(bench)
        segments = segments_of(bench, request, pieces=4)
        direct, rest = segments[:direct_count], segments[direct_count:]
        if not rest:
            continue
        table = split_table(
            bench,
            [
                (*part[:2], write_flag(part) | (_NEXT if at < len(rest) - 1 else 0), at + 1)
                for at, part in enumerate(rest)
            ],
        )
        for at, part in enumerate(direct):
            ring.store_descriptor(at, part.address, part.size, write_flag(part) | _NEXT, at + 1)
        ring.store_descriptor(direct_count, table.address, table.size, DescriptorFlag.INDIRECT)
        offer(ring, 0)
        bench.done(f"{direct_count} direct descriptors, then one that refers to a table of {len(rest)}")
        expect_raw_answer(bench, ring, request, segments, "split.device.indirect.2")


@check(
    "indirect.next-is-followed",
    covers=["split.device.described.indirect"],
    formats=(RingFormat.SPLIT,),
    features=_INDIRECT,
)
def next_is_followed(bench: Bench) -> None:
    """A chain goes through its table by next, from entry 0 on, and need not use every entry."""
    bench.start(features=_INDIRECT)
    ring = split_ring(bench)
    request = bench.traffic.plain(bench)
    segments = segments_of(bench, request, pieces=3)
    # Entry 0, then from the last entry backwards; entry 1 is nobody's.
    places = [0, *range(len(segments), 1, -1)]
    entries = [(bench.memory.guard(), 1, 0, 0)] * (len(segments) + 1)
    for at, part in enumerate(segments):
        goes_on = at < len(segments) - 1
        entries[places[at]] = (
            part.address,
            part.size,
            write_flag(part) | (_NEXT if goes_on else 0),
            places[at + 1] if goes_on else 0,
        )
    table = split_table(bench, entries)
    make_head_available(ring, table.address, table.size, DescriptorFlag.INDIRECT)
    bench.done(f"a table whose chain goes {places}")
    expect_raw_answer(bench, ring, request, segments, "split.device.described.indirect")


@check(
    "indirect.ids-and-flags-mean-nothing",
    covers=["packed.device.described.indirect-ignored"],
    formats=(RingFormat.PACKED,),
    features=_INDIRECT,
)
def ids_and_flags_mean_nothing(bench: Bench) -> None:
    """In a table's entries only WRITE counts; ids and all other flags are ignored."""
    for others in (PackedFlag.AVAIL | PackedFlag.USED, PackedFlag.NEXT, PackedFlag(0)):
        bench.start(features=_INDIRECT)
        ring = packed_ring(bench)
        request = bench.traffic.plain(bench)
        segments = segments_of(bench, request, pieces=2)
        table = packed_table(bench, [(*part[:2], 0xFFFE, write_flag(part) | others) for part in segments])
        make_head_available(ring, table.address, table.size, PackedFlag.INDIRECT)
        bench.done(f"a table whose entries have the id 0xfffe and the flags {int(others):#06x}")
        expect_raw_answer(bench, ring, request, segments, "packed.device.described.indirect-ignored")
