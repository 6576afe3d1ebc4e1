"""A driver that breaks the rules of requests: a status where one can be written, a named violation where not."""

import pytest
from block_setup import BARE_FEATURES, DATA, DISK_SECTORS, SECTOR, BareDisk, content_of, memfd_disk
from device_setup import of_type

from spec import vhost_user
from spec.block import DATA_RANGE, REQUEST_HEADER, BlockFeature, RequestStatus, RequestType
from spec.device import Feature, feature_mask
from tests.vhost_user_setup import R, served
from vdev.devices.block import BlockDevice
from vdev.devices.block.limits import (
    DISCARD_RANGES_MAX,
    DISCARD_SECTORS_MAX,
    SEG_MAX,
    SIZE_MAX,
    ZEROES_RANGES_MAX,
    ZEROES_SECTORS_MAX,
)
from vdev.events import ViolationFound
from vdev.memory import GuestMemory
from vdev.vhost_user.server import BackEnd

IN, OUT, FLUSH, GET_ID = RequestType.IN, RequestType.OUT, RequestType.FLUSH, RequestType.GET_ID
DISCARD, ZEROES = RequestType.DISCARD, RequestType.WRITE_ZEROES
OK, IOERR, UNSUPP = RequestStatus


SPLIT = BARE_FEATURES & ~feature_mask(Feature.RING_PACKED, Feature.IN_ORDER)
PACKED = SPLIT | feature_mask(Feature.RING_PACKED)


@pytest.fixture(params=[(SPLIT, False), (SPLIT, True), (PACKED, False)], ids=["split", "split, as a batch", "packed"])
def disk(request):
    features, as_batch = request.param
    disk = BareDisk(memfd_disk(bytes(range(256)) * 2 * DISK_SECTORS), features=features)
    if as_batch:
        disk.device._take_few = disk.device._take_many
    yield disk
    disk.device.close()


def ranges(*entries):
    return b"".join(DATA_RANGE.build({"sector": s, "num_sectors": n, "flags": f}) for s, n, f in entries)


CASES = {
    "a read behind the end": (IN, DISK_SECTORS, b"", SECTOR, IOERR),
    "a read across the end": (IN, DISK_SECTORS - 1, b"", 2 * SECTOR, IOERR),
    "a read at the end of numbers": (IN, 2**64 - 1, b"", SECTOR, IOERR),
    "a read of half a sector": (IN, 0, b"", 256, IOERR),
    "a read of more than a sector": (IN, 0, b"", 513, IOERR),
    "a write behind the end": (OUT, DISK_SECTORS, b"x" * SECTOR, 0, IOERR),
    "a write of half a sector": (OUT, 0, b"x" * 256, 0, IOERR),
    "a read with data to write": (IN, 0, b"x" * SECTOR, 0, IOERR),
    "a write with room to read into": (OUT, 0, b"", SECTOR, IOERR),
    "a segment beyond size_max": (IN, 0, b"", SIZE_MAX + SECTOR, IOERR),
    "an id into too little": (GET_ID, 0, b"", 19, IOERR),
    "an id with data to write": (GET_ID, 0, b"x" * 20, 0, IOERR),
    "a type that nobody knows": (77, 0, b"", 0, UNSUPP),
    "a type beyond 16 bits": (0x1_0000, 0, b"", SECTOR, UNSUPP),
    "a lifetime": (RequestType.GET_LIFETIME, 0, b"", 24, UNSUPP),
    "a secure erase": (RequestType.SECURE_ERASE, 0, ranges((0, 1, 0)), 0, UNSUPP),
    "a zone report": (16, 0, b"", SECTOR, UNSUPP),
    "a discard with unmap": (DISCARD, 0, ranges((0, 1, 1)), 0, UNSUPP),
    "a discard with an unknown flag": (DISCARD, 0, ranges((0, 1, 2)), 0, UNSUPP),
    "zeroes with an unknown flag": (ZEROES, 0, ranges((0, 1, 0), (0, 1, 0x8000_0001)), 0, UNSUPP),
    "a discard behind the end": (DISCARD, 0, ranges((DISK_SECTORS, 1, 0)), 0, IOERR),
    "zeroes across the end": (ZEROES, 0, ranges((0, 1, 0), (DISK_SECTORS - 1, 2, 0)), 0, IOERR),
    "zeroes at the end of numbers": (ZEROES, 0, ranges((2**64 - 1, 1, 0)), 0, IOERR),
    "a discard of too many sectors": (DISCARD, 0, ranges((0, DISCARD_SECTORS_MAX + 1, 0)), 0, IOERR),
    "zeroes for too many sectors": (ZEROES, 0, ranges((0, ZEROES_SECTORS_MAX + 1, 0)), 0, IOERR),
    "too many ranges to discard": (DISCARD, 0, ranges(*[(0, 1, 0)] * (DISCARD_RANGES_MAX + 1)), 0, IOERR),
    "too many ranges to zero": (ZEROES, 0, ranges(*[(0, 1, 0)] * (ZEROES_RANGES_MAX + 1)), 0, IOERR),
    "no range": (DISCARD, 0, b"", 0, IOERR),
    "half a range": (ZEROES, 0, ranges((0, 1, 0))[:15], 0, IOERR),
    "an empty read": (IN, 0, b"", 0, OK),
    "an empty write": (OUT, 5, b"", 0, OK),
    "a range of no sector": (ZEROES, 0, ranges((3, 0, 1)), 0, OK),
    "a flush with data": (FLUSH, 9, b"x" * 40, 0, OK),
    "an id into more than enough": (GET_ID, 0, b"", 30, OK),
}


@pytest.mark.parametrize(("kind", "sector", "to_write", "to_read", "expected"), CASES.values(), ids=CASES.keys())
def test_a_request_that_cannot_be_done_gets_its_status_and_changes_nothing(
    disk, kind, sector, to_write, to_read, expected
):
    before = content_of(disk.file)
    status, written, _ = disk.request(kind, sector, to_write=to_write, to_read=to_read)
    assert status is expected
    assert written == (21 if kind is GET_ID and expected is OK else 1)
    assert content_of(disk.file) == before
    assert disk.device.running
    assert len(of_type(disk.seen, ViolationFound)) == disk.device.failed_count == (expected is not OK)
    assert disk.request(IN, 1, to_read=SECTOR)[0] is OK


def test_a_read_only_disk_fails_every_change():
    disk = BareDisk(memfd_disk(read_only=True))
    before = content_of(disk.file)
    assert disk.request(OUT, 0, to_write=b"x" * SECTOR)[0] is IOERR
    assert content_of(disk.file) == before
    assert disk.request(DISCARD, to_write=ranges((0, 1, 0)))[0] is UNSUPP
    disk.device.close()


def test_a_request_of_too_many_segments_fails():
    disk = BareDisk(size=256)
    for count, expected in ((SEG_MAX, OK), (SEG_MAX + 1, IOERR)):
        header = disk.place(REQUEST_HEADER.build({"type": IN, "reserved": 0, "sector": 0}))
        data = [(DATA + 0x1_0000 + 4096 * n, SECTOR) for n in range(count)]
        status = disk.place(b"\xee")
        disk.send([(header, 16)], [*data, (status, 1)])
        assert disk.memory.read(status, 1)[0] == expected
    disk.device.close()


def test_without_negotiated_limits_only_the_size_of_the_whole_counts():
    features = BARE_FEATURES & ~feature_mask(BlockFeature.SIZE_MAX, BlockFeature.SEG_MAX)
    disk = BareDisk(memfd_disk(bytes(16 << 20)), features=features, size=256)
    most = SEG_MAX * SIZE_MAX
    for size, expected in ((SIZE_MAX * 2, OK), (most + SECTOR, IOERR)):
        header = disk.place(REQUEST_HEADER.build({"type": IN, "reserved": 0, "sector": 0}))
        status = disk.place(b"\xee")
        half = size // 2 // SECTOR * SECTOR
        disk.send([(header, 16)], [(0, half), (0, size - half), (status, 1)])
        assert disk.memory.read(status, 1)[0] == expected
    disk.device.close()


def header_of(kind, sector=0):
    return REQUEST_HEADER.build({"type": kind, "reserved": 0, "sector": sector})


FRAMINGS = {
    "header and data in one": lambda h, d: [(h, 7), (h + 7, 9), (d, 3), (d + 3, SECTOR - 3)],
    "an empty piece in front": lambda h, d: [(h, 0), (h, 16), (d, 0), (d, SECTOR)],
    "one byte each": lambda h, d: [*((h + n, 1) for n in range(16)), (d, SECTOR)],
}


@pytest.mark.parametrize("frame", FRAMINGS.values(), ids=FRAMINGS.keys())
@pytest.mark.parametrize("indirect", [False, True])
def test_a_write_may_be_framed_in_any_way(disk, frame, indirect):
    header, data, status = disk.place(header_of(OUT, 9)), disk.place(b"w" * SECTOR), disk.place(b"\xee")
    assert disk.send(frame(header, data), [(status, 0), (status, 1)], indirect=indirect) == 1
    assert disk.memory.read(status, 1)[0] == OK
    assert content_of(disk.file)[9 * SECTOR : 10 * SECTOR] == b"w" * SECTOR


@pytest.mark.parametrize("indirect", [False, True])
@pytest.mark.parametrize("cut", [0, 1, 100, SECTOR])
def test_the_status_may_stand_behind_the_data_in_one_descriptor(disk, indirect, cut):
    header, room = disk.place(header_of(IN, 9)), disk.place(b"\xee" * (SECTOR + 1))
    assert disk.send([(header, 16)], [(room, cut), (room + cut, SECTOR + 1 - cut)], indirect=indirect) == SECTOR + 1
    assert disk.memory.read(room, SECTOR + 1) == content_of(disk.file)[9 * SECTOR : 10 * SECTOR] + b"\0"


@pytest.mark.parametrize(
    ("readable_size", "writable_sizes", "message"),
    [
        (16, [], "without room for its status"),
        (16, [0], "without room for its status"),
        (15, [1], "header has 15 bytes, not 16"),
        (0, [1], "header has 0 bytes"),
    ],
)
def test_a_request_without_header_or_status_is_a_violation(disk, readable_size, writable_sizes, message):
    header, status = disk.place(header_of(IN)), disk.place(b"\xee")
    readable = [(header, readable_size)] if readable_size else []
    assert disk.send(readable, [(status, size) for size in writable_sizes]) is None
    assert disk.transport.needs_reset
    assert message in disk.device.violation.message
    assert disk.device.violation.queue == 0
    assert disk.device.violation.descriptor is not None


def test_what_stood_before_a_violation_in_its_batch_is_answered(disk):
    queue = disk.queues[0]
    statuses = []
    for sector in range(3):
        header, status = disk.place(header_of(FLUSH, sector)), disk.place(b"\xee")
        queue.add([(header, 16)], [(status, 1)], sector)
        statuses.append(status)
    queue.add([(disk.place(header_of(FLUSH)), 16)], [], 9)
    disk.transport.publish(queue)
    assert queue.collect_batch().tokens.tolist() == [0, 1, 2]
    assert [disk.memory.read(status, 1)[0] for status in statuses] == [OK] * 3
    assert disk.transport.needs_reset


def test_a_request_outside_ram_is_the_rings_violation(disk):
    header = disk.place(header_of(IN))
    assert disk.send([(header, 16)], [(1 << 40, SECTOR), (header, 1)]) is None
    assert disk.transport.needs_reset


def test_the_header_is_read_once_and_the_answer_may_overwrite_it(disk):
    at = disk.place(header_of(IN, 9) + bytes(SECTOR))
    assert disk.send([(at, 16)], [(at, SECTOR), (at + 15, 1)]) == SECTOR + 1
    expected = bytearray(content_of(disk.file)[9 * SECTOR : 10 * SECTOR])
    expected[15] = OK
    assert disk.memory.read(at, SECTOR) == expected


def test_a_driver_that_never_rests_is_served_in_turns():
    disk = BareDisk(size=64, features=feature_mask(Feature.VERSION_1))
    queue, device = disk.queues[0], disk.device
    header, status = disk.place(header_of(FLUSH)), disk.place(b"\xee")
    push = type(device.queues[0]).push

    def push_and_ask_for_more(device_queue, head, size):
        push(device_queue, head, size)
        queue.collect_batch()
        queue.add([(header, 16)], [(status, 1)], 1)
        queue.publish()

    queue.add([(header, 16)], [(status, 1)], 1)
    queue.publish()
    device.queues[0].push = push_and_ask_for_more.__get__(device.queues[0])
    assert device.queue_notify(0) is True
    device.close()


async def test_what_one_front_end_stores_over_a_disk_s_capacity_is_not_told_to_the_next():
    file = memfd_disk()
    device = BlockDevice(GuestMemory.absent(), file)
    back_end = BackEnd(device)
    read = vhost_user.CONFIG.build({"offset": 0, "size": 8, "flags": 0, "payload": bytes(8)})
    stored = {"offset": 0, "size": 8, "flags": vhost_user.ConfigFlag.MIGRATION, "payload": b"\xff" * 8}
    store = vhost_user.CONFIG.build(stored)
    async with served(device, back_end=back_end) as front_end:
        await front_end.negotiate()
        before = (await front_end.ask(R.GET_CONFIG, read)).body
        assert await front_end.ask_u64(R.SET_CONFIG, store) == 0
        assert (await front_end.ask(R.GET_CONFIG, read)).body != before
    async with served(device, back_end=back_end) as front_end:
        await front_end.negotiate()
        assert (await front_end.ask(R.GET_CONFIG, read)).body == before
    device.close()
