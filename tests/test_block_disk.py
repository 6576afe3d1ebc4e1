"""A disk is what was written to it: the block device and its driver, joined."""

import os

import numpy as np
import pytest
from block_setup import DATA, DISK_SECTORS, SECTOR, DiskPair, content_of, disk_pair, memfd_disk
from device_setup import of_type

from guest_agent.drivers.block import BLOCK_DRIVER_FEATURES
from guest_agent.virtqueue.queue import NoQueueHere, QueueFull
from spec.block import CONFIG, BlockFeature, RequestStatus, RequestType
from spec.device import Feature, feature_mask
from spec.layout import dtype_of
from vdev.devices.block import BlockDevice, BlockFile
from vdev.devices.block.limits import SEG_MAX, SIZE_MAX
from vdev.errors import SavedStateError, UserError
from vdev.events import RequestFailed, ViolationFound


def noise(size, seed=1):
    return np.random.default_rng(seed).bytes(size)


def without(*bits):
    return BLOCK_DRIVER_FEATURES & ~feature_mask(*bits)


RING_FORMATS = {
    "packed, in order": BLOCK_DRIVER_FEATURES,
    "packed": without(Feature.IN_ORDER),
    "packed, no indirect": without(Feature.IN_ORDER, Feature.INDIRECT_DESC),
    "split": without(Feature.IN_ORDER, Feature.RING_PACKED),
    "split, in order": without(Feature.RING_PACKED),
    "split, no indirect": without(Feature.RING_PACKED, Feature.INDIRECT_DESC),
    "split, no event index": without(Feature.RING_PACKED, Feature.EVENT_IDX),
    "version 1 only": feature_mask(Feature.VERSION_1),
}


@pytest.mark.parametrize("features", RING_FORMATS.values(), ids=RING_FORMATS.keys())
def test_what_is_written_is_in_the_file_and_is_read_back(features):
    data = noise(8 * SECTOR)
    with disk_pair(features=features) as pair:
        assert not pair.write(5, data).failed
        assert content_of(pair.file)[5 * SECTOR : 13 * SECTOR] == data
        assert pair.read(5, len(data), DATA + 0x1003) == data
        assert pair.read(0, 5 * SECTOR) == bytes(5 * SECTOR)


def test_a_transfer_larger_than_the_limits_becomes_several_requests():
    data = noise(SIZE_MAX * 40)
    with disk_pair() as pair:
        assert not pair.write(0, data).failed
        assert pair.device.request_count == 2
        assert pair.read(0, len(data), DATA + len(data)) == data


def test_scattered_segments_of_odd_sizes_are_one_transfer():
    data = noise(3 * SECTOR)
    segments, at = [], DATA
    for size in (1, 511, 700, 0, 4, 320):
        segments.append((at, size))
        at += size + 4096
    with disk_pair() as pair:
        offset = 0
        for address, size in segments:
            pair.memory.write(address, data[offset : offset + size])
            offset += size
        assert not pair.do(pair.driver.submit_write, 9, segments).failed
        assert pair.read(9, len(data), DATA + 0x10_0000) == data


def test_many_requests_go_in_one_batch_and_come_back_with_their_tokens():
    with disk_pair(noise_disk()) as pair:
        for token in range(60):
            pair.driver.submit_read(3 * token, [(DATA + SECTOR * token, SECTOR)], token + 2**63)
        assert pair.wire.kick_count == 0
        done = pair.finish()
        assert [completion.token for completion in done] == [token + 2**63 for token in range(60)]
        assert pair.wire.kick_count == 1
        content = content_of(pair.file)
        for token in range(60):
            at = 3 * token * SECTOR
            assert pair.memory.read(DATA + SECTOR * token, SECTOR) == content[at : at + SECTOR]


def noise_disk(**options):
    return memfd_disk(noise(DISK_SECTORS * SECTOR), **options)


def test_the_id_is_the_serial():
    with disk_pair(serial="0123456789abcdefghij") as pair:
        assert pair.do(pair.driver.submit_get_id).data == b"0123456789abcdefghij"
    with disk_pair(serial="é") as pair:
        assert pair.do(pair.driver.submit_get_id).data == "é".encode()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"serial": "x" * 21}, "longer than 20 bytes"), ({"queue_count": 0}, "1 to 65535 queues, not 0")],
)
def test_a_serial_or_queue_count_that_cannot_be_is_refused(options, message):
    file = memfd_disk()
    with pytest.raises(UserError, match=message):
        BlockDevice(None, file, **options)
    file.close()


@pytest.mark.parametrize("unmap", [False, True])
def test_zeroes_are_written_without_data(unmap):
    with disk_pair(noise_disk()) as pair:
        before = content_of(pair.file)
        ranges = [(1, 1), (100, 17), (2000, DISK_SECTORS - 2000)]
        assert not pair.do(pair.driver.submit_write_zeroes, ranges, unmap=unmap).failed
        expected = bytearray(before)
        for sector, count in ranges:
            expected[sector * SECTOR : (sector + count) * SECTOR] = bytes(count * SECTOR)
        assert content_of(pair.file) == expected


def test_zeroes_reach_a_file_that_cannot_zero_a_range_itself(monkeypatch):
    monkeypatch.setattr("vdev.devices.block.file.zero_range", lambda *_: False)
    monkeypatch.setattr("vdev.devices.block.file.punch_hole", lambda *_: False)
    with disk_pair(noise_disk()) as pair:
        before = content_of(pair.file)
        assert not pair.do(pair.driver.submit_write_zeroes, [(1, 2000)], unmap=True).failed
        assert content_of(pair.file) == before[:SECTOR] + bytes(2000 * SECTOR) + before[2001 * SECTOR :]
        assert not pair.do(pair.driver.submit_discard, [(0, 8)]).failed


def test_a_discard_gives_the_storage_back():
    with disk_pair(noise_disk()) as pair:
        before = os.fstat(pair.file.fd).st_blocks
        assert not pair.do(pair.driver.submit_discard, [(0, DISK_SECTORS // 2)]).failed
        assert os.fstat(pair.file.fd).st_blocks <= before // 2
        assert (
            content_of(pair.file)[DISK_SECTORS // 2 * SECTOR :]
            == noise(DISK_SECTORS * SECTOR)[DISK_SECTORS // 2 * SECTOR :]
        )


def test_more_ranges_than_a_request_can_have_become_several_requests():
    with disk_pair(noise_disk()) as pair:
        assert not pair.do(pair.driver.submit_write_zeroes, [(2 * n, 1) for n in range(9)]).failed
        assert pair.device.request_count == 3
        assert not any(pair.read(16, SECTOR))
        assert any(pair.read(17, SECTOR))


# Durability


class Watched(BlockFile):
    """A file that counts its flushes."""

    flush_count = 0

    def flush(self):
        self.flush_count += 1
        super().flush()


def watched_disk():
    file = memfd_disk()
    return Watched(file.fd, file.size)


def test_a_flush_reaches_the_file_and_a_write_alone_does_not():
    with disk_pair(watched_disk()) as pair:
        pair.write(0, bytes(SECTOR))
        assert pair.file.flush_count == 0
        assert not pair.do(pair.driver.submit_flush).failed
        assert pair.file.flush_count == 1


def test_without_a_cache_a_batch_of_writes_is_stable_before_it_is_completed():
    with disk_pair(watched_disk()) as pair:
        pair.driver.set_writeback(False)
        for token in range(3):
            pair.driver.submit_write(token, [(DATA, SECTOR)], token)
        assert len(pair.finish()) == 3
        assert pair.file.flush_count == 1
        pair.read(0, SECTOR)
        assert pair.file.flush_count == 1
        pair.driver.set_writeback(True)
        pair.write(0, bytes(SECTOR))
        assert pair.file.flush_count == 1


@pytest.mark.parametrize(
    ("missing", "flushes"),
    [
        ((BlockFeature.FLUSH, BlockFeature.CONFIG_WCE), 1),
        ((BlockFeature.FLUSH,), 1),
        ((BlockFeature.CONFIG_WCE,), 0),
    ],
)
def test_a_driver_that_cannot_flush_gets_stable_writes(missing, flushes):
    with disk_pair(watched_disk(), features=without(*missing)) as pair:
        pair.write(0, bytes(SECTOR))
        assert pair.file.flush_count == flushes
        assert pair.driver.can_flush is (BlockFeature.FLUSH not in missing)


def test_a_flush_that_fails_fails_the_writes_that_waited_for_it():
    class Failing(Watched):
        def flush(self):
            raise OSError(5, "Input/output error")

    file = memfd_disk()
    with disk_pair(Failing(file.fd, file.size)) as pair:
        assert pair.do(pair.driver.submit_flush).status is RequestStatus.IOERR
        pair.driver.set_writeback(False)
        assert pair.write(0, bytes(SECTOR)).status is RequestStatus.IOERR
        pair.read(0, SECTOR)
        assert [event.request for event in of_type(pair.seen, RequestFailed)] == ["FLUSH", "OUT"]


def test_a_reset_forgets_the_cache_mode():
    with disk_pair() as pair:
        pair.driver.set_writeback(False)
        assert pair.transport.read_config(CONFIG)["writeback"] == 0
        pair.transport.reset()
        assert pair.transport.read_config(CONFIG)["writeback"] == 1


def test_a_cache_mode_that_is_none_is_reported():
    with disk_pair() as pair:
        pair.transport.write_config(CONFIG, "writeback", 2)
        assert pair.transport.read_config(CONFIG)["writeback"] == 1
        assert "not 0 or 1" in of_type(pair.seen, ViolationFound)[0].message


# What the driver is told, and what it refuses


def test_the_configuration_says_what_the_disk_is():
    with disk_pair(device_queues=3, queue_count=3) as pair:
        config = pair.transport.read_config(CONFIG)
        assert config["capacity"] == pair.driver.capacity == DISK_SECTORS
        assert (config["size_max"], config["seg_max"]) == (SIZE_MAX, SEG_MAX)
        assert (config["blk_size"], config["num_queues"], config["writeback"]) == (512, 3, 1)
        assert config["max_discard_seg"] * config["max_write_zeroes_seg"] > 0


def test_the_configuration_lies_where_the_text_has_it():
    fields = dtype_of(CONFIG).fields
    offsets = {"capacity": 0, "seg_max": 12, "blk_size": 20, "opt_io_size": 28, "writeback": 32, "num_queues": 34}
    offsets |= {"max_discard_sectors": 36, "max_write_zeroes_sectors": 48, "write_zeroes_may_unmap": 56}
    offsets |= {"max_secure_erase_sectors": 60, "zone_sectors": 72, "model": 92}
    assert {name: fields[name][1] for name in offsets} == offsets
    assert CONFIG.sizeof() == 96


def test_a_read_only_disk_offers_no_change_and_takes_none():
    with disk_pair(noise_disk(read_only=True)) as pair:
        assert pair.driver.read_only
        for submit, arguments in (
            (pair.driver.submit_write, (0, [(DATA, SECTOR)])),
            (pair.driver.submit_discard, ([(0, 1)],)),
            (pair.driver.submit_write_zeroes, ([(0, 1)],)),
        ):
            with pytest.raises(ValueError, match=r"read-only|not negotiated"):
                submit(*arguments, token=1)
        assert pair.read(7, SECTOR) == content_of(pair.file)[7 * SECTOR : 8 * SECTOR]
        assert not pair.do(pair.driver.submit_flush).failed


@pytest.mark.parametrize(
    ("submit", "message"),
    [
        (lambda driver: driver.submit_read(DISK_SECTORS, [(DATA, SECTOR)], 1), "are not on a disk of 4096"),
        (lambda driver: driver.submit_read(-1, [(DATA, SECTOR)], 1), "are not on a disk"),
        (lambda driver: driver.submit_write(0, [(DATA, 100)], 1), "100 bytes are not one or more whole sectors"),
        (lambda driver: driver.submit_write(0, [], 1), "0 bytes"),
        (lambda driver: driver.submit_read(0, [(DATA + 2 * n, 1) for n in range(512)], 1), "do not hold a sector"),
        (lambda driver: driver.submit_discard([(4090, 7)], 1), "are not on a disk"),
        (lambda driver: driver.submit_write_zeroes([], 1), "no sector at all"),
        (lambda driver: driver.submit_flush(1 << 64), "not a 64-bit number"),
        (lambda driver: driver.submit_write_zeroes([(n, 1) for n in range(999)], 1), "descriptors of a queue of 128"),
    ],
)
def test_what_could_never_be_done_is_the_callers_mistake(submit, message):
    with disk_pair() as pair:
        with pytest.raises(ValueError, match=message):
            submit(pair.driver)
        assert pair.driver.queues[0].free_count == 128
        assert pair.finish() == []


def test_a_full_queue_takes_nothing_of_a_request():
    with disk_pair(queue_size=8) as pair:
        for token in range(7):
            pair.driver.submit_read(token, [(DATA, SECTOR)], token)
        pair.memory.write(DATA, bytes(8))
        with pytest.raises(QueueFull):
            pair.driver.submit_write_zeroes([(n, 1) for n in range(5)], 99)
        pair.driver.submit_read(0, [(DATA, SECTOR)], 7)
        assert [completion.token for completion in pair.finish()] == list(range(8))


def test_features_that_were_not_negotiated_are_not_used():
    with disk_pair(features=feature_mask(Feature.VERSION_1)) as pair:
        for submit in (
            lambda: pair.driver.submit_flush(1),
            lambda: pair.driver.submit_discard([(0, 1)], 1),
            lambda: pair.driver.set_writeback(True),
        ):
            with pytest.raises(ValueError, match="was not negotiated"):
                submit()
        # Without SEG_MAX a request has one segment.
        assert not pair.do(pair.driver.submit_read, 0, [(DATA, SECTOR), (DATA + 4096, SECTOR)]).failed
        assert pair.device.request_count == 2


# Several queues


def test_each_queue_is_served_by_itself():
    with disk_pair(noise_disk(), queue_count=4, device_queues=4, defer_kicks=True) as pair:
        for number in range(4):
            pair.driver.submit_read(number, [(DATA + SECTOR * number, SECTOR)], number, queue=number)
        pair.driver.publish()
        assert [kick & 0xFFFF for kick in pair.wire.kicks] == [0, 1, 2, 3]
        pair.device.queue_notify(2)
        assert [completion.token for completion in pair.driver.collect()] == [2]
        pair.wire.deliver_kicks()
        assert [completion.token for completion in pair.driver.collect(queue=3)] == [3]
        assert [completion.token for completion in pair.driver.collect()] == [0, 1]
        assert pair.memory.read(DATA, 4 * SECTOR) == content_of(pair.file)[: 4 * SECTOR]


def test_a_driver_takes_as_many_queues_as_both_want():
    with disk_pair(queue_count=4, device_queues=2) as pair:
        assert len(pair.driver.queues) == 2
    with disk_pair(queue_count=1, device_queues=3) as pair:
        assert len(pair.driver.queues) == 1
        assert pair.device.has_feature(BlockFeature.MQ)
    with disk_pair(queue_count=3, device_queues=3, features=without(BlockFeature.MQ)) as pair:
        assert len(pair.driver.queues) == 1
        assert [pair.device.queue_size_max(number) for number in (0, 1, 5)] == [256, 0, 0]


# Moving


@pytest.mark.parametrize("kicked", [False, True])
def test_requests_under_way_are_answered_after_a_move(kicked):
    with disk_pair(noise_disk(), queue_count=2, device_queues=2, defer_kicks=True) as pair:
        pair.write(50, b"before" + bytes(SECTOR - 6))
        pair.driver.submit_read(0, [(DATA, SIZE_MAX), (DATA + 0x2_0000, 40 * SECTOR)], 11, queue=1)
        pair.driver.submit_read(1, [(DATA + 0x10_0000, SIZE_MAX * 33)], 12)
        pair.driver.submit_get_id(13, queue=1)
        pair.driver.publish()
        if kicked:
            pair.wire.deliver_kicks()
        moved = pair.moved()
        moved.device.handle_all_queues()
        done = {completion.token: completion for completion in moved.driver.collect()}
        assert {token: completion.kind for token, completion in done.items()} == {
            11: RequestType.IN,
            12: RequestType.IN,
            13: RequestType.GET_ID,
        }
        assert done[13].data == b"disk of the test"
        content = content_of(pair.file)
        assert moved.memory.read(DATA, SIZE_MAX) == content[:SIZE_MAX]
        assert moved.memory.read(DATA + 0x10_0000, SIZE_MAX * 33) == content[SECTOR : SECTOR + SIZE_MAX * 33]
        assert moved.write(9, b"after" * 100 + bytes(12)).kind is RequestType.OUT
        assert moved.read(50, 6 + SECTOR - 6)[:6] == b"before"
        assert moved.driver.features == pair.driver.features


def test_the_cache_mode_moves_with_the_disk():
    with disk_pair(watched_disk(), features=without(BlockFeature.FLUSH)) as pair:
        pair.driver.set_writeback(True)
        moved = pair.moved()
        moved.write(0, bytes(SECTOR))
        assert pair.file.flush_count == 0
        moved.driver.set_writeback(False)
        again = moved.moved()
        again.write(0, bytes(SECTOR))
        assert pair.file.flush_count == 1


@pytest.mark.parametrize("change", [{"size": 2048 * SECTOR}, {"read_only": True}, {"queue_count": 2}])
def test_another_disk_does_not_go_on_from_a_saved_one(change):
    with disk_pair() as pair:
        state = pair.device.save()
        file = BlockFile(pair.file.fd, change.get("size", pair.file.size), read_only="read_only" in change)
        other = BlockDevice(pair.memory, file, queue_count=change.get("queue_count", 1))
        with pytest.raises(SavedStateError, match="the saved block does not fit"):
            other.restore(state)


def test_no_area_no_driver():
    with disk_pair() as pair:
        pair.memory.write(0x10_0000, bytes(4096))
        with pytest.raises(NoQueueHere, match="no block driver's area"):
            pair.moved()


def test_a_closed_disk_leaves_no_descriptor_open():
    opened = len(os.listdir("/proc/self/fd"))
    pair = DiskPair()
    pair.close()
    pair.close()
    assert len(os.listdir("/proc/self/fd")) == opened
