"""Rings, dirty logs and areas for buffers in flight that a front end cannot mean: each is refused by name."""

import os

import pytest
from vhost_user_setup import (
    MIB,
    RING_FEATURES,
    USER_BASE,
    R,
    assert_open_fds,
    frames,
    make_balloon,
    open_fds,
    ready,
    refused,
    served,
    state,
    u64,
    wait_event,
    wait_until,
)

from spec import vhost_user as spec
from spec.device import DeviceStatus
from spec.inflight import SPLIT_INFLIGHT

pytestmark = pytest.mark.usefixtures("no_garbage_of_others")


def address(**fields):
    good = {"index": 0, "flags": 0, "descriptor": 0x10000, "available": 0x11000, "used": 0x12000, "log": 0}
    merged = good | fields
    for name in ("descriptor", "available", "used"):
        merged[name] += USER_BASE
    return spec.VRING_ADDRESS.build(merged)


@pytest.mark.parametrize("area", ["descriptor", "available", "used"])
async def test_a_ring_outside_ram_is_refused(area):
    async with served(make_balloon()) as front_end:
        await ready(front_end)
        for where in (16 * MIB, -USER_BASE, (1 << 64) - 1 - USER_BASE):
            violation = await refused(front_end, R.SET_VRING_ADDR, address(**{area: where}))
            assert "is in no region" in violation
            assert "queue 0" in violation


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"descriptor": 0x10008}, "not a multiple of 16"),
        ({"available": 0x11001}, "not a multiple of 2"),
        ({"used": 0x12002}, "not a multiple of 4"),
        ({"descriptor": 16 * MIB - 16}, "not wholly in RAM"),
        ({"used": 16 * MIB - 4}, "not wholly in RAM"),
    ],
)
async def test_a_ring_that_no_ring_can_be_is_told_through_its_err_descriptor(fields, what):
    device = make_balloon()
    async with served(device) as front_end:
        await ready(front_end)
        await front_end.start_ring(0, enable=False)
        await front_end.stop_ring(0)
        await front_end.send(R.SET_VRING_ADDR, address(**fields))
        await front_end.send(R.SET_VRING_KICK, u64(0), [front_end.kicks[0]])
        await front_end.send(R.SET_VRING_ENABLE, state(0, 1))
        assert await wait_event(front_end.errs[0]) == 1
        await front_end.settle()
        statistics = front_end.back_end.statistics
        assert what in statistics.queues[0].last_error
        assert not statistics.queues[0].is_served
        assert statistics.driver_violation_count == 1
        assert await front_end.ask_u64(R.GET_STATUS) == DeviceStatus.DEVICE_NEEDS_RESET
        # The front end resets the device and sets the ring up as it should have.
        assert await front_end.ask_u64(R.RESET_DEVICE) == 0
        await front_end.send(R.SET_FEATURES, u64(RING_FEATURES | 1 << spec.PROTOCOL_FEATURES))
        await front_end.start_ring(0)
        await front_end.settle()
        assert device.running


async def test_a_broken_device_that_is_reset_by_its_status_reads_as_reset_until_it_breaks_again():
    device = make_balloon()
    async with served(device) as front_end:
        await ready(front_end)
        for _ in range(2):
            await front_end.start_ring(0, enable=False)
            await front_end.stop_ring(0)
            await front_end.send(R.SET_VRING_ADDR, address(descriptor=16 * MIB - 16))
            await front_end.send(R.SET_VRING_KICK, u64(0), [front_end.kicks[0]])
            await front_end.send(R.SET_VRING_ENABLE, state(0, 1))
            assert await wait_event(front_end.errs[0]) == 1
            assert await front_end.ask_u64(R.GET_STATUS) & DeviceStatus.DEVICE_NEEDS_RESET
            await front_end.stop_ring(0)
            await front_end.send(R.SET_STATUS, u64(0))
            assert await front_end.ask_u64(R.GET_STATUS) == 0
            await front_end.send(R.SET_STATUS, u64(DeviceStatus.ACKNOWLEDGE))
            assert await front_end.ask_u64(R.GET_STATUS) == DeviceStatus.ACKNOWLEDGE
        await front_end.start_ring(0)
        await front_end.settle()
        assert device.running


@pytest.mark.parametrize("size", [0, 3, 257, 0xFFFF_FFFF])
async def test_a_size_that_no_ring_can_have_is_refused(size):
    async with served(make_balloon()) as front_end:
        await ready(front_end)
        if size == 3:  # only a packed ring can have it: a split one fails when it is taken into use
            await front_end.start_ring(0, size=3)
            assert await wait_event(front_end.errs[0]) == 1
        else:
            assert "a size of" in await refused(front_end, R.SET_VRING_NUM, state(0, size))


async def test_a_base_that_the_ring_cannot_have_is_named():
    async with served(make_balloon()) as front_end:
        await ready(front_end)
        await front_end.start_ring(0, base=0x10000, enable=False)
        assert "not a 16-bit number" in await refused(front_end, R.SET_VRING_ENABLE, state(0, 1))
        await front_end.stop_ring(0)
        await front_end.start_ring(0, base=1000)
        assert await wait_event(front_end.errs[0]) == 1
        await front_end.settle()
        assert "is to go on from 1000" in front_end.back_end.statistics.queues[0].last_error


@pytest.mark.parametrize("request_", [R.SET_VRING_KICK, R.SET_VRING_CALL, R.SET_VRING_ERR], ids=lambda r: r.name)
async def test_a_ring_s_descriptor_is_what_the_message_says(request_, tmp_path):
    before = open_fds()
    async with served(make_balloon()) as front_end:
        await ready(front_end)
        kick = os.eventfd(0)
        file = os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR)
        assert "no file descriptor came along" in await refused(front_end, request_, u64(0))
        assert "a file descriptor came along" in await refused(front_end, request_, u64(spec.NO_FD), [kick])
        assert "not 0 to 1" in await refused(front_end, request_, u64(0), [kick, kick])
        assert "unknown bits" in await refused(front_end, request_, u64(1 << 9), [kick])
        assert "there are 5 queues" in await refused(front_end, request_, u64(200), [kick])
        assert "a file is no event" in await refused(front_end, request_, u64(0), [file])
        os.close(file)
        os.close(kick)
    del front_end
    assert_open_fds(before)


async def test_a_kick_pipe_whose_other_end_is_closed_is_an_error_of_the_ring():
    async with served(make_balloon()) as front_end:
        await ready(front_end)
        await front_end.start_ring(0)
        reader, writer = os.pipe()
        await front_end.send(R.SET_VRING_KICK, u64(0), [reader])
        os.close(reader)
        os.close(writer)
        assert await wait_event(front_end.errs[0]) == 1
        assert "its other end is closed" in front_end.back_end.statistics.queues[0].last_error
        # A good one instead, and the ring goes on.
        await front_end.send(R.SET_VRING_KICK, u64(0), [front_end.kicks[0]])
        await front_end.settle()
        front_end.post(0, frames(300))
        await front_end.wait_call(0)


async def test_a_call_that_nobody_can_take_does_not_hold_the_back_end():
    async with served(make_balloon()) as front_end:
        await ready(front_end)
        await front_end.start_ring(0)
        full = os.eventfd(0)
        os.eventfd_write(full, 0xFFFF_FFFF_FFFF_FFFE)
        await front_end.send(R.SET_VRING_CALL, u64(0), [full])
        os.close(full)
        for turn in (1, 2):
            front_end.post(0, frames(300 + turn))
            await wait_until(lambda: front_end.queues[0].collect() is not None)
        reader, writer = os.pipe()
        os.close(reader)
        await front_end.send(R.SET_VRING_CALL, u64(0), [writer])
        os.close(writer)
        await front_end.settle()
        front_end.post(0, frames(300))
        assert await wait_event(front_end.errs[0]) == 1
        assert "call: it cannot be written" in front_end.back_end.statistics.queues[0].last_error


async def test_a_ring_that_breaks_the_text_is_told_through_its_err_descriptor():
    device = make_balloon()
    async with served(device) as front_end:
        await ready(front_end)
        await front_end.start_ring(0)
        await front_end.settle()
        front_end.memory.write(front_end.queues[0].addresses.driver, b"\0\0\1\0\xff\xff")  # head 65535
        front_end.kick(0)
        assert await wait_event(front_end.errs[0]) == 1
        assert "head 65535 in a table of 64" in front_end.back_end.statistics.queues[0].last_error
        assert device.status & DeviceStatus.DEVICE_NEEDS_RESET
        assert front_end.back_end.statistics.driver_violation_count == 1
        await front_end.settle()  # the session goes on


@pytest.mark.parametrize(
    ("size", "offset", "what"),
    [
        (0, 0, "not inside its file"),
        (8192, 0, "not inside its file"),
        (4096, 4096, "not inside its file"),
        (1 << 63, 1 << 63, "not inside its file"),
        (64, 0, "does not reach up to 0x1000000"),
    ],
)
async def test_a_log_that_cannot_be_is_refused(size, offset, what):
    before = open_fds()
    async with served(make_balloon()) as front_end:
        await ready(front_end)
        log = os.memfd_create("log")
        os.ftruncate(log, 4096)
        assert what in await refused(front_end, R.SET_LOG_BASE, spec.LOG.build({"size": size, "offset": offset}), [log])
        os.close(log)
    del front_end
    assert_open_fds(before)


async def test_ram_that_grows_beyond_the_log_is_refused():
    async with served(make_balloon()) as front_end:
        await ready(front_end)
        log = os.memfd_create("log")
        os.ftruncate(log, 4096)
        assert await front_end.ask_u64(R.SET_LOG_BASE, spec.LOG.build({"size": 512, "offset": 0}), [log]) == 0
        os.close(log)
        bits = RING_FEATURES | 1 << spec.PROTOCOL_FEATURES | 1 << spec.LOG_ALL
        assert await front_end.ask_u64(R.SET_FEATURES, u64(bits)) == 0
        region = {"guest_address": 16 * MIB, "size": MIB, "user_address": 0, "mmap_offset": 0}
        body = spec.SINGLE_REGION.build({"region": region})
        violation = await refused(front_end, R.ADD_MEM_REG, body, front_end.table_fds)
        assert "does not reach up to 0x1100000" in violation


INFLIGHT = {"mmap_size": 8192, "mmap_offset": 0, "queue_count": 1, "queue_size": 64}


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"queue_count": 0}, "0 queues"),
        ({"queue_count": 6}, "6 queues"),
        ({"queue_size": 257}, "of 257 descriptors"),
        ({"mmap_size": 64}, "an area of 64 bytes"),
        ({"mmap_offset": 4096}, "beyond the end"),
        ({"mmap_size": 1 << 63}, "beyond the end"),
    ],
)
async def test_an_area_for_buffers_in_flight_that_cannot_be_is_refused(fields, what):
    async with served(make_balloon()) as front_end:
        await ready(front_end)
        area = os.memfd_create("area")
        os.ftruncate(area, 8192)
        assert what in await refused(front_end, R.SET_INFLIGHT_FD, spec.INFLIGHT.build(INFLIGHT | fields), [area])
        os.close(area)


@pytest.mark.parametrize(
    ("head", "what"),
    [
        ({"version": 2, "descriptor_count": 64}, "version 2"),
        ({"version": 1, "descriptor_count": 63}, "for 63 descriptors"),
        ({"version": 1, "descriptor_count": 64, "used_idx": 3, "last_batch_head": 999}, "999 is no descriptor"),
    ],
)
async def test_an_area_that_no_back_end_wrote_is_refused_when_its_ring_is_enabled(head, what):
    async with served(make_balloon()) as front_end:
        await ready(front_end)
        area = os.memfd_create("area")
        os.ftruncate(area, 8192)
        fields = {"features": 0, "last_batch_head": 0, "used_idx": 0} | head
        os.pwrite(area, SPLIT_INFLIGHT.build(fields), 0)
        assert await front_end.ask_u64(R.SET_INFLIGHT_FD, spec.INFLIGHT.build(INFLIGHT), [area]) == 0
        os.close(area)
        await front_end.start_ring(0, enable=False)
        assert what in await refused(front_end, R.SET_VRING_ENABLE, state(0, 1))
