"""Rings of real Linux drivers, recorded byte for byte (tests/peers/capture.py), read by construct and by our queues."""

import os
from contextlib import contextmanager

import numpy as np
import pytest
from construct import GreedyRange
from peers.capture import DIRECTORY, load

from spec.balloon import COMMAND_ID_SIZE, FIRST_COMMAND_ID, STATISTIC, BalloonQueue, StatisticTag
from spec.block import REQUEST_HEADER, RequestType
from spec.device import Feature
from spec.packed_ring import EVENT_SUPPRESSION, PACKED_DESCRIPTOR, PackedFlag
from spec.split_ring import DESCRIPTOR, USED_ELEMENT, DescriptorFlag, available_ring, used_ring
from vdev.memory import GuestMemory, MemfdBacking, Region
from vdev.virtqueue.factory import make_device_queue
from vdev.virtqueue.queue import QueueAddresses, QueueState

CAPTURES = sorted(DIRECTORY.glob("*.json"))
RAM_SIZE = 2 << 30

each_capture = pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)


class Ring:
    """One queue of a capture, read with the declarations of ``spec`` and nothing else of ours."""

    def __init__(self, capture, number):
        self.number = number
        self.features = capture["features"]
        self.packed = bool(self.features >> Feature.RING_PACKED & 1)
        self.in_order = bool(self.features >> Feature.IN_ORDER & 1)
        self.setup = capture["queues"][number]
        self.size = self.setup["size"]
        self.moments = [moment for moment in capture["moments"] if moment["queue"] == number]

    def available(self, moment):
        """What the driver has made available and the device has not taken: (head, readable, writable) each."""
        return list(self._packed_available(moment) if self.packed else self._split_available(moment))

    def _split_available(self, moment):
        ring = available_ring(self.size).parse(moment["driver"])
        for place in range(moment["next_avail"], moment["next_avail"] + (ring.idx - moment["next_avail"]) % 0x10000):
            head = index = ring.ring[place % self.size]
            descriptors = []
            while True:
                descriptors.append(DESCRIPTOR.parse(moment["descriptor"][16 * index :]))
                if not descriptors[-1].flags & DescriptorFlag.NEXT:
                    break
                index = descriptors[-1].next
            if descriptors[0].flags & DescriptorFlag.INDIRECT:
                descriptors = self._split_table(moment["buffers"][descriptors[0].addr])
            yield (head, *segments(descriptors))

    def _split_table(self, table):
        """The chain in an indirect table: it begins with the first entry, and NEXT leads on."""
        entries = GreedyRange(DESCRIPTOR).parse(table)
        chain = [entries[0]]
        while chain[-1].flags & DescriptorFlag.NEXT:
            chain.append(entries[chain[-1].next])
        return chain

    def _packed_available(self, moment):
        place = moment["next_avail"]
        ring = GreedyRange(PACKED_DESCRIPTOR).parse(moment["descriptor"])
        while self._is_available(ring[place & 0x7FFF], place >> 15):
            descriptors = []
            while True:
                descriptors.append(ring[place & 0x7FFF])
                place = place + 1 if (place & 0x7FFF) + 1 < self.size else (place >> 15 ^ 1) << 15
                if not descriptors[-1].flags & PackedFlag.NEXT:
                    break
            head = descriptors[-1].id
            if descriptors[0].flags & PackedFlag.INDIRECT:
                descriptors = GreedyRange(PACKED_DESCRIPTOR).parse(moment["buffers"][descriptors[0].addr])
            yield (head, *segments(descriptors))

    @staticmethod
    def _is_available(descriptor, wrap):
        return (bool(descriptor.flags & PackedFlag.AVAIL), bool(descriptor.flags & PackedFlag.USED)) == (wrap, not wrap)

    def used(self, before, moment):
        """(offset in its area, bytes, head, written size) of what the device used from one moment to a later one."""
        if not self.packed:
            count = (moment["next_used"] - before["next_used"]) % 0x10000
            for place in range(before["next_used"], before["next_used"] + count):
                offset = 4 + 8 * (place % self.size)
                element = moment["device"][offset : offset + 8]
                parsed = USED_ELEMENT.parse(element)
                yield offset, element, parsed.id, parsed.len
            return
        ring = GreedyRange(PACKED_DESCRIPTOR).parse(moment["descriptor"])
        place = before["next_used"]
        while place != moment["next_used"]:
            descriptor, wrap, offset = ring[place & 0x7FFF], place >> 15, 16 * (place & 0x7FFF)
            is_used = bool(descriptor.flags & PackedFlag.AVAIL) == bool(descriptor.flags & PackedFlag.USED) == wrap
            if is_used:
                yield offset, moment["descriptor"][offset : offset + 16], descriptor.id, descriptor.len
            place = place + 1 if (place & 0x7FFF) + 1 < self.size else (wrap ^ 1) << 15

    @contextmanager
    def queue(self, moment):
        """Our device's side of this queue, standing where it stood, over RAM that holds what the moment holds."""
        backing = MemfdBacking(RAM_SIZE)
        memory = GuestMemory([Region(0, backing)])
        try:
            for area in ("descriptor", "driver", "device"):
                memory.write(self.setup[area], moment[area])
            for address, content in moment["buffers"].items():
                memory.write(address, content)
            addresses = QueueAddresses(*(self.setup[name] for name in ("size", "descriptor", "driver", "device")))
            queue = make_device_queue(memory, self.number, addresses, self.features)
            queue.restore(
                QueueState(
                    next_avail=moment["next_avail"],
                    next_used=moment["next_used"],
                    outstanding=tuple(moment["outstanding"]),
                    descriptor_counts=tuple(moment["descriptor_counts"]),
                )
            )
            yield queue, memory
        finally:
            backing.close()


def segments(descriptors):
    """(readable, writable) of a chain's descriptors, (address, size) each."""
    return tuple(
        tuple((one.addr, one.len) for one in descriptors if bool(one.flags & DescriptorFlag.WRITE) == writable)
        for writable in (False, True)
    )


def rings(path):
    capture = load(path)
    return [Ring(capture, number) for number in capture["queues"]]


def posted(ring):
    return [moment for moment in ring.moments if moment["when"] == "posted"]


def popped(queue):
    while (chain := queue.pop()) is not None:
        yield chain.head, tuple(map(tuple, chain.readable)), tuple(map(tuple, chain.writable))


@each_capture
def test_our_queue_takes_from_a_recorded_ring_what_its_bytes_say(path):
    chain_count = 0
    for ring in rings(path):
        for moment in posted(ring):
            expected = ring.available(moment)
            assert expected
            chain_count += len(expected)
            with ring.queue(moment) as (queue, _):
                assert list(popped(queue)) == expected
            with ring.queue(moment) as (queue, _):
                taken = []
                while len(batch := queue.pop_batch()):
                    taken += [
                        (chain.head, tuple(map(tuple, chain.readable)), tuple(map(tuple, chain.writable)))
                        for chain in batch
                    ]
                assert taken == expected
    assert chain_count > 2


@each_capture
def test_a_recorded_ring_has_a_used_entry_for_what_was_taken_and_ours_has_the_same_bytes(path):
    entry_count = 0
    for ring in rings(path):
        for before, after in zip(ring.moments, ring.moments[1:], strict=False):
            if (before["when"], after["when"]) != ("posted", "used"):
                continue
            entries = list(ring.used(before, after))
            written = {head: size for _, _, head, size in entries}
            with ring.queue(before) as (queue, memory):
                taken = {
                    head: sum(size for _, size in writable)
                    for head, _, writable in popped(queue)
                    if head not in after["outstanding"]
                }
                heads = list(taken)
                if ring.in_order:
                    # A buffer without an entry was written completely, and stands before one that has an entry.
                    while heads and heads[-1] not in written:
                        del heads[-1]
                else:
                    # What the driver posted while the device was at work is in the later moment only.
                    assert set(heads) <= set(written)
                if not heads:
                    continue
                queue.push_batch(np.array(heads), np.array([written.get(head, taken[head]) for head in heads]))
                area = ring.setup["descriptor" if ring.packed else "device"]
                entry_count += len(heads)
                for offset, content, head, _ in entries:
                    if head not in heads:
                        break
                    assert memory.read(area + offset, len(content)) == content
    assert entry_count > 0


@each_capture
def test_both_sides_areas_read_and_build_to_the_same_bytes(path):
    for ring in rings(path):
        for moment in ring.moments:
            if ring.packed:
                layouts = (GreedyRange(PACKED_DESCRIPTOR), EVENT_SUPPRESSION, EVENT_SUPPRESSION)
            else:
                layouts = (GreedyRange(DESCRIPTOR), available_ring(ring.size), used_ring(ring.size))
            for area, layout in zip(("descriptor", "driver", "device"), layouts, strict=True):
                assert layout.build(layout.parse(moment[area])) == moment[area]


def contents(ring):
    """(what the device may read, sizes that it may write) of each chain of a queue."""
    for moment in posted(ring):
        for _, readable, writable in ring.available(moment):
            yield b"".join(moment["buffers"].get(address, b"")[:size] for address, size in readable), writable


@each_capture
def test_the_recorded_requests_make_sense(path):
    by_number = {ring.number: list(contents(ring)) for ring in rings(path)}
    if path.stem.endswith("-entropy"):
        assert all(not content and len(writable) == 1 for content, writable in by_number[0])
    elif path.stem.endswith("-block"):
        for content, writable in by_number[0]:
            header = REQUEST_HEADER.parse(content)
            assert header.type in set(RequestType)
            assert writable[-1][1] == 1
    else:
        assert sorted(by_number) == [0, 1, 2, 3, 4]
        for number in (BalloonQueue.INFLATE, BalloonQueue.DEFLATE):
            for content, writable in by_number[number]:
                frames = np.frombuffer(content, "<u4")
                assert not writable
                assert 1 <= len(frames) <= 256
                assert frames.max() < RAM_SIZE >> 12
        for content, _ in by_number[BalloonQueue.STATISTICS]:
            told = {entry.tag: entry.val for entry in GreedyRange(STATISTIC).parse(content)}
            assert len(told) * STATISTIC.sizeof() == len(content)
            # The driver's first buffer is empty: its figures come when the device asks.
            assert set(told) <= set(range(16))
            if told:
                assert 128 << 20 < told[StatisticTag.TOTAL_MEMORY] <= 512 << 20
        hinting = by_number[BalloonQueue.FREE_PAGE]
        ids = [int.from_bytes(content, "little") for content, writable in hinting if not writable]
        assert ids[0] == FIRST_COMMAND_ID
        assert all(len(content) == COMMAND_ID_SIZE for content, writable in hinting if not writable)
        assert {size for _, writable in hinting for _, size in writable} == {4 << 20}
        for content, writable in by_number[BalloonQueue.REPORTING]:
            assert not content
            assert all(address % 4096 == size % 4096 == 0 for address, size in writable)


def test_each_queue_is_there_in_each_format_posted_and_used():
    seen = set()
    for path in CAPTURES:
        capture = load(path)
        bits = (Feature.RING_PACKED, Feature.EVENT_IDX, Feature.INDIRECT_DESC, Feature.IN_ORDER)
        ring_format = tuple(feature.name for feature in bits if capture["features"] >> feature & 1)
        seen |= {(capture["device"], ring_format, moment["queue"], moment["when"]) for moment in capture["moments"]}
    suppression = ("EVENT_IDX", "INDIRECT_DESC")
    formats = [(), suppression, (*suppression, "IN_ORDER")]
    formats += [("RING_PACKED", *ring_format) for ring_format in formats]
    for device, queue_count in (("block", 1), ("entropy", 1), ("balloon", 5)):
        for ring_format in formats:
            if device == "balloon" and "IN_ORDER" in ring_format:
                # The kernel that knows IN_ORDER has a balloon driver that wants no indirect tables.
                ring_format = tuple(name for name in ring_format if name != "INDIRECT_DESC")
            for queue in range(queue_count):
                for when in ("posted", "used"):
                    assert (device, ring_format, queue, when) in seen


def test_the_captures_are_small():
    assert sum(os.path.getsize(path) for path in CAPTURES) < 512 << 10
