"""Bugs of what a buffer names: which pages, how much of them, and where they end."""

import os
import struct

import numpy as np
from device_setup import BareBalloon, frames
from historical_bugs_setup import MIB, PAGE, Altered, Bug, begin_migration

from spec.balloon import BalloonQueue, StatisticTag
from vdev.devices.balloon import Hinting, inflation, statistics
from vdev.devices.balloon.reporting import Reporting
from vdev.devices.balloon.statistics import Statistics
from vdev.errors import FrontEndViolation
from vdev.memory import GuestMemory, MemfdBacking, PageRanges, PrivateBacking, Region
from vdev.vhost_user.dirty_bitmap import DirtyBitmap
from vdev.virtqueue.chain import Chain, ChainBatch

HINTS, REPORTS, STATISTICS = BalloonQueue.FREE_PAGE, BalloonQueue.REPORTING, BalloonQueue.STATISTICS


def asked(**options):
    """Return a device that takes hints, and the migration that they are for."""
    bare = BareBalloon(**options)
    migration = begin_migration(bare.memory, bare.device.hinting)
    bare.echo(bare.device.hinting.command_id)
    return bare, migration


class FirstSegmentOnly(Bug):
    """Of a buffer of several blocks only the first was taken; the others were sent, or worse, counted."""

    name = "first segment only"
    symptom = "pages that were hinted are still to send"

    def check(self):
        bare, migration = asked()
        bare.hint((4 * MIB, PAGE), (8 * MIB, 2 * PAGE), (5 * MIB, PAGE))
        left = [page for page in (1024, 2048, 2049, 1280) if page in migration.to_send]
        assert not left, f"pages that were hinted are still to send: {left}"
        assert migration.to_send.count == bare.memory.page_count - 4, "more left than was hinted"

    def put_back(self, monkeypatch):
        handle = Hinting.handle

        def first_only(hinting, queue):
            def pop_batch(limit=None):
                return ChainBatch.of(
                    [Chain(one.head, one.readable[:1], one.writable[:1]) for one in queue.pop_batch(limit)]
                )

            return handle(hinting, Altered(queue, pop_batch=pop_batch))

        monkeypatch.setattr(Hinting, "handle", first_only)


class UsedLengthOfOne(Bug):
    """A hint was given back as if a byte of it had been written, which made its first page dirty again."""

    name = "used length of one"
    symptom = "the hinted page 1024 is to send again"

    def __init__(self):
        self.memory = None

    def check(self):
        bare, migration = asked()
        self.memory = bare.memory
        bare.queues[HINTS].collect_batch()
        bare.hint((4 * MIB, 2 * PAGE))
        assert 1024 not in migration.to_send, "the hint was not taken"
        migration.merge()
        assert 1024 not in migration.to_send, "the hinted page 1024 is to send again: it counts as written"
        assert bare.queues[HINTS].collect_batch().written_sizes.tolist() == [0], "the buffer came back as written to"

    def put_back(self, monkeypatch):
        handle = Hinting.handle

        def with_length_of_one(hinting, queue):
            popped = []

            def pop_batch(limit=None):
                popped.append(queue.pop_batch(limit))
                return popped[-1]

            def push_batch(heads, sizes):
                queue.push_batch(heads, sizes + (popped[-1].writable_sizes() > 0))
                # What a queue does that marks by used length what was mapped for the device to write.
                for chain in popped[-1]:
                    for segment in chain.writable[:1]:
                        self.memory.mark_written(segment.address, 1)

            return handle(hinting, Altered(queue, pop_batch=pop_batch, push_batch=push_batch))

        monkeypatch.setattr(Hinting, "handle", with_length_of_one)


class PartialPagesDiscarded(Bug):
    """Of a page of which a part was free the whole was given to the operating system."""

    name = "partial pages discarded"
    symptom = "bytes that were not reported are gone"

    def check(self):
        backing = MemfdBacking(16 * MIB)
        try:
            bare = BareBalloon(memory=GuestMemory([Region(0, backing)]))
            bare.memory.bytes_view(4 * MIB, MIB)[:] = 0xA5
            bare.send(REPORTS, writable=[(4 * MIB + 512, 2 * PAGE), (4 * MIB + 8 * PAGE, PAGE - 1)])
            kept = bare.memory.bytes_view(4 * MIB, MIB).copy()
            assert not kept[PAGE : 2 * PAGE].any(), "the whole page inside the report was kept"
            kept[PAGE : 2 * PAGE] = 0xA5
            assert (kept == 0xA5).all(), f"bytes that were not reported are gone: {int((kept != 0xA5).sum())}"
        finally:
            backing.close()

    def put_back(self, monkeypatch):
        def outwards(memory, addresses, sizes):
            first = addresses // np.uint64(PAGE)
            return PageRanges(first.astype(np.int64), -(-(addresses + sizes).astype(np.int64) // PAGE))

        monkeypatch.setattr(GuestMemory, "page_ranges_inside", outwards)


class UnalignedDiscard(Bug):
    """A report's address went to the operating system as it was, which refuses one that begins no page."""

    name = "unaligned discard"
    raises = OSError
    symptom = "Invalid argument"

    def check(self):
        bare = BareBalloon()
        bare.memory.bytes_view(4 * MIB, MIB)[:] = 0xA5
        bare.send(REPORTS, writable=[(4 * MIB + 512, PAGE)])
        assert bare.memory.read(4 * MIB, 2 * PAGE) == b"\xa5" * 2 * PAGE, "a page went away of which a part was free"
        assert len(bare.queues[REPORTS].collect_batch().heads) == 1, "the report was not acknowledged"

    def put_back(self, monkeypatch):
        def discard_as_named(reporting, queue, *, poisoned):
            batch = queue.pop_batch()
            for address, size in zip(batch.addresses.tolist(), batch.sizes.tolist(), strict=True):
                region, offset = self.memory.locate(address, size)
                region.backing.give_back(offset, size)
            queue.push_batch(batch.heads, np.zeros(len(batch), np.int64))

        made = BareBalloon.__init__

        def noted(bare, **options):
            made(bare, **options)
            self.memory = bare.memory

        monkeypatch.setattr(BareBalloon, "__init__", noted)
        monkeypatch.setattr(Reporting, "handle", discard_as_named)


class SignExtendedFrames(Bug):
    """A page frame number of 2^31 and up became negative, and the page another one, or none."""

    name = "page numbers sign-extended"
    symptom = "outside RAM"

    def check(self):
        start = 0x8000_0000 * PAGE
        bare = BareBalloon(memory=GuestMemory([Region(start, PrivateBacking(16 * MIB))]))
        bare.send(BalloonQueue.INFLATE, frames(0x8000_0000 + 1024))
        assert bare.device.violation is None, str(bare.device.violation)
        assert np.flatnonzero(bare.device.inflation.inflated).tolist() == [1024], "another page is in the balloon"

    def put_back(self, monkeypatch):
        monkeypatch.setattr(inflation, "_FRAME", np.dtype([("pfn", "<i4")]))


class HugeStatistics(Bug):
    """A statistics buffer as large as a descriptor can say, 4 GiB, kept the host busy entry by entry."""

    name = "statistics of 4 GiB"
    symptom = "bytes of statistics were read"

    def check(self):
        bare = BareBalloon()
        size = 1_000_000
        bare.queues[STATISTICS].add([(0, size)] * 2, [], 0)
        bare.publish(STATISTICS)
        assert bare.device.memory_statistics.answer_count == 0, f"{2 * size} bytes of statistics were read"
        assert bare.is_broken, "nobody was told"

    def put_back(self, monkeypatch):
        monkeypatch.setattr(statistics, "_MOST_ENTRIES", 1 << 32)


class SecondStatisticsBuffer(Bug):
    """A second buffer took the place of the one that the device kept, which then never came back."""

    name = "second statistics buffer lost"
    symptom = "of 2 buffers 1 can come back"

    def check(self):
        bare = BareBalloon()
        first = bare.send(STATISTICS, struct.pack("<HQ", StatisticTag.FREE_MEMORY, 1))
        bare.send(STATISTICS, struct.pack("<HQ", StatisticTag.FREE_MEMORY, 2))
        if bare.device.violation is None:
            bare.device.request_statistics()
            count = len(bare.queues[STATISTICS].collect_batch().heads)
            assert count == 2, f"of 2 buffers {count} can come back, and nobody was told"
        assert bare.device.memory_statistics.kept_head == first, "the first buffer is forgotten"

    def put_back(self, monkeypatch):
        handle = Statistics.handle

        def forgetful(kept, chain, queue):
            kept.kept_head = None
            handle(kept, chain, queue)

        monkeypatch.setattr(Statistics, "handle", forgetful)


class HintPastRam(Bug):
    """A hint went on past the last page, and the host cleared bits that the bitmap does not have."""

    name = "hint past the end of RAM"
    raises = IndexError
    symptom = "of 4096"

    def check(self):
        bare, migration = asked()
        bare.hint((16 * MIB - PAGE, 2 * PAGE))
        assert bare.is_broken, "nobody was told"
        assert migration.to_send.count == bare.memory.page_count, "a hint that is wrong was taken"
        bits = int(np.bitwise_count(migration.to_send.words).sum())
        assert migration.to_send.count == bits, "the count of what is left is wrong"

    def put_back(self, monkeypatch):
        def unchecked(memory, addresses, sizes):
            first = (addresses // np.uint64(PAGE)).astype(np.int64)
            return PageRanges(first, first + (sizes // np.uint64(PAGE)).astype(np.int64))

        monkeypatch.setattr(GuestMemory, "page_ranges_inside", unchecked)
        # Every buffer's queue looks, too, before a device sees it.
        monkeypatch.setattr(GuestMemory, "contains", lambda memory, address, size: True)
        monkeypatch.setattr(GuestMemory, "contains_many", lambda memory, at, sizes: np.ones(len(at), np.bool_))


class RegionWithoutBitmap(Bug):
    """Part of RAM had no bits in the migration's bitmap, and the host touched them.

    Here all of RAM is in the migrator's set. A log that a vhost-user front end sends is where RAM can be without bits.
    """

    name = "region without a bitmap"
    symptom = "no bit for it"

    def check(self):
        memory = GuestMemory([Region(0, PrivateBacking(MIB)), Region(1 << 30, PrivateBacking(MIB))])
        fd = os.memfd_create("log")
        os.ftruncate(fd, PAGE)
        log = DirtyBitmap(memory, fd, PAGE, 0)
        try:
            log.check_covers(max(region.end for region in memory.regions))
        except FrontEndViolation:
            return
        else:
            memory.page_marks = log
            memory.write(1 << 30, b"needed")
            logged = np.unpackbits(np.frombuffer(os.pread(fd, PAGE, 0), np.uint8)).sum()
            assert logged == 1, "a page was written, and the log has no bit for it"
        finally:
            log.close()

    def put_back(self, monkeypatch):
        monkeypatch.setattr(DirtyBitmap, "check_covers", lambda log, end: None)


BUGS = (
    FirstSegmentOnly(),
    UsedLengthOfOne(),
    PartialPagesDiscarded(),
    UnalignedDiscard(),
    SignExtendedFrames(),
    HugeStatistics(),
    SecondStatisticsBuffer(),
    HintPastRam(),
    RegionWithoutBitmap(),
)
