"""A front end that breaks the protocol: a name for it, an answer or an end, and the back end serves the next one."""

import os
import socket

import pytest
import trio

from spec import vhost_user as spec
from spec.device import DeviceStatus
from tests.vhost_user_setup import (
    MIB,
    PATIENCE,
    RING_FEATURES,
    USER_BASE,
    FrontEnd,
    R,
    assert_open_fds,
    connect,
    frames,
    open_fds,
    served,
    state,
    u64,
    wait_event,
    wait_until,
)
from vdev.devices.balloon import BalloonDevice
from vdev.memory import GuestMemory, MemfdBacking, Region
from vdev.vhost_user.framing import encode
from vdev.vhost_user.server import BackEnd, listen

NOT_A_MESSAGE = {
    "no version": spec.HEADER.build({"request": 1, "flags": 0, "size": 0}),
    "another version": spec.HEADER.build({"request": 1, "flags": 2, "size": 0}),
    "unknown flags": spec.HEADER.build({"request": 1, "flags": 0x101, "size": 0}),
    "a huge payload": spec.HEADER.build({"request": 2, "flags": 1, "size": 0xFFFF_FFFF}),
    "a reply": encode(R.GET_FEATURES, is_reply=True),
    "a short payload": encode(R.SET_FEATURES, b"1234567"),
    "a long payload": encode(R.SET_FEATURES, b"123456789"),
    "a payload where there is none": encode(R.SET_OWNER, b"1"),
    "an unknown request": encode(99),
    "a request of nobody here": encode(R.POSTCOPY_ADVISE),
    "a ring that there is not": encode(R.SET_VRING_NUM, state(5, 64)),
    "a ring far away": encode(R.GET_VRING_BASE, state(0xFFFF_FFFF, 0)),
    "a kick before features": encode(R.SET_VRING_KICK, u64(spec.NO_FD)),
    "random bytes": bytes(range(7, 60)),
}


def make_balloon():
    return BalloonDevice(GuestMemory.absent())


async def assert_served(back_end):
    """See that the back end serves an honest front end from beginning to end."""
    async with served(back_end.device, back_end=back_end) as front_end:
        await front_end.negotiate()
        await front_end.share_memory()
        front_end.queue(0)
        await front_end.start_ring(0)
        await front_end.settle()
        front_end.post(0, frames(300))
        await front_end.wait_call(0)
        assert front_end.queues[0].collect() is not None


@pytest.mark.parametrize("message", NOT_A_MESSAGE.values(), ids=NOT_A_MESSAGE)
async def test_a_bad_message_ends_the_connection_and_the_next_one_is_served(message):
    before = open_fds()
    back_end = BackEnd(make_balloon())
    async with served(back_end.device, back_end=back_end) as front_end:
        await front_end.send_bytes(message)
        assert await front_end.is_closed()
        assert back_end.statistics.front_end_violation_count == 1
        assert back_end.statistics.last_violation.startswith("front end's fault: ")
    del front_end
    await assert_served(back_end)
    assert_open_fds(before)


HONEST = encode(R.SET_FEATURES, u64(RING_FEATURES))


@pytest.mark.parametrize("size", range(len(HONEST)))
async def test_a_front_end_that_goes_inside_a_message_is_forgotten(size):
    before = open_fds()
    back_end = BackEnd(make_balloon())
    async with served(back_end.device, back_end=back_end) as front_end:
        await front_end.send_bytes(HONEST[:size], [0, 1] if size else [])
    assert back_end.statistics.front_end_violation_count == (size > 0)
    del front_end
    assert_open_fds(before)


class Counting(FrontEnd):
    """Goes away after `limit` messages."""

    def __init__(self, sock, *, limit):
        super().__init__(sock)
        self.left = limit

    async def send_bytes(self, data, fds=()):
        if not self.left:
            raise Gone
        self.left -= 1
        await super().send_bytes(data, fds)


class Gone(Exception):
    pass


async def a_whole_session(front_end):
    await front_end.negotiate()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        await front_end.send(R.SET_BACKEND_REQ_FD, fds=[theirs.fileno()])
    await front_end.share_memory()
    log = os.memfd_create("log")
    os.ftruncate(log, 4096)
    try:
        await front_end.ask(R.SET_LOG_BASE, spec.LOG.build({"size": 4096, "offset": 0}), [log])
        await front_end.send(R.SET_LOG_FD, fds=[log])
        size = {"mmap_size": 4096, "mmap_offset": 0, "queue_count": 1, "queue_size": 64}
        await front_end.send(R.SET_INFLIGHT_FD, spec.INFLIGHT.build(size), [log])
    finally:
        os.close(log)
    for number in (0, 1):
        front_end.queue(number)
        await front_end.start_ring(number)
    reader, writer = os.pipe()
    try:
        await front_end.stop_ring(0)
        await front_end.stop_ring(1)
        transfer = spec.DEVICE_STATE_TRANSFER.build({"direction": 1, "phase": 0})
        await front_end.ask(R.SET_DEVICE_STATE_FD, transfer, [reader])
    finally:
        os.close(reader)
        os.close(writer)
    await front_end.settle()


@pytest.mark.parametrize("limit", range(29))
async def test_a_front_end_may_go_between_any_two_messages(limit):
    before = open_fds()
    back_end = BackEnd(make_balloon())
    async with served(back_end.device, back_end=back_end, make=Counting, limit=limit) as front_end:
        try:
            await a_whole_session(front_end)
        except Gone:
            pass
        else:
            assert front_end.left == 0, f"the whole session is {limit - front_end.left} messages"
    assert back_end.device.memory.page_count == 0
    assert back_end.device.status == 0
    del front_end
    assert_open_fds(before)


async def test_more_descriptors_than_a_message_takes_are_closed():
    before = open_fds()
    back_end = BackEnd(make_balloon())
    for count in (1, 8, 9, 253):
        async with served(back_end.device, back_end=back_end) as front_end:
            await front_end.send(R.SET_OWNER, fds=[0] * count)
            assert await front_end.is_closed()
        del front_end
    assert back_end.statistics.front_end_violation_count == 4
    assert_open_fds(before)


async def ready(front_end):
    await front_end.negotiate()
    await front_end.share_memory()
    front_end.queue(0)


async def refused(front_end, request, body=b"", fds=()):
    """Send a bad message; return the violation that it was. The connection goes on."""
    before = front_end.back_end.statistics.front_end_violation_count
    assert await front_end.ask_u64(request, body, fds) & 0xFF
    assert front_end.back_end.statistics.front_end_violation_count == before + 1
    return front_end.back_end.statistics.last_violation


def table(*regions):
    fields = ("guest_address", "size", "user_address", "mmap_offset")
    return spec.MEMORY_TABLE.build(
        {"region_count": len(regions), "regions": [dict(zip(fields, region, strict=True)) for region in regions]}
    )


BAD_TABLES = {
    "overlap for the guest": (
        [(0, MIB, USER_BASE, 0), (MIB // 2, MIB, USER_BASE + 8 * MIB, 0)],
        "the regions at 0x0 and 0x80000 overlap",
    ),
    "overlap for the front end": (
        [(0, MIB, USER_BASE, 0), (MIB, MIB, USER_BASE + 4096, 0)],
        "overlap at the front end's address",
    ),
    "beyond the file": ([(0, 32 * MIB, USER_BASE, 0)], "beyond the end of its file"),
    "beyond the file by its offset": ([(0, 16 * MIB, USER_BASE, 4096)], "beyond the end of its file"),
    "an offset past all": ([(0, MIB, USER_BASE, (1 << 64) - 4096)], "beyond the end of its file"),
    "past 2^64 for the guest": ([((1 << 64) - 4096, MIB, USER_BASE, 0)], "past 2^64"),
    "past 2^64 for the front end": ([(0, MIB, (1 << 64) - 4096, 0)], "past 2^64"),
    "an offset that is no page": ([(0, MIB, USER_BASE, 512)], "cannot be mapped"),
    "an address that is no page": ([(8, MIB, USER_BASE, 0)], "does not begin a page"),
    "no size": ([(0, 0, USER_BASE, 0)], "is empty"),
    "fewer files than regions": ([(0, MIB, USER_BASE, 0)] * 3, "3 regions with"),
    "fewer regions than files": ([], "0 regions with 1"),
}


@pytest.mark.parametrize("case", BAD_TABLES)
async def test_a_memory_table_that_cannot_be_is_refused_and_the_old_one_stays(case):
    before = open_fds()
    regions, what = BAD_TABLES[case]
    async with served(make_balloon()) as front_end:
        await ready(front_end)
        await front_end.start_ring(0)
        fds = front_end.table_fds * (2 if len(regions) == 2 else 1)
        assert what in await refused(front_end, R.SET_MEM_TABLE, table(*regions), fds)
        device = front_end.back_end.device
        assert device.memory.size == 16 * MIB
        assert not device.status & DeviceStatus.DEVICE_NEEDS_RESET
    del front_end, device
    assert_open_fds(before)


async def test_memory_that_is_no_memory_is_refused():
    reader, writer = os.pipe()
    read_only = os.open("/proc/self/exe", os.O_RDONLY)
    async with served(make_balloon()) as front_end:
        await ready(front_end)
        for fd, what in ((reader, "beyond the end"), (read_only, "cannot be mapped"), (writer, "beyond the end")):
            violation = await refused(front_end, R.SET_MEM_TABLE, table((0, 4096, USER_BASE, 0)), [fd])
            assert what in violation
    for fd in (reader, writer, read_only):
        os.close(fd)


async def test_nine_regions_in_one_table_end_the_connection():
    async with served(make_balloon()) as front_end:
        await front_end.negotiate()
        regions = [(slot * MIB, MIB, USER_BASE + slot * MIB, 0) for slot in range(9)]
        await front_end.send(R.SET_MEM_TABLE, table(*regions), front_end.table_fds * 8)
        assert await front_end.is_closed()


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
        os.pwrite(area, spec.SPLIT_INFLIGHT.build(fields), 0)
        assert await front_end.ask_u64(R.SET_INFLIGHT_FD, spec.INFLIGHT.build(INFLIGHT), [area]) == 0
        os.close(area)
        await front_end.start_ring(0, enable=False)
        assert what in await refused(front_end, R.SET_VRING_ENABLE, state(0, 1))


TRANSFER = {"direction": 1, "phase": 0}


async def load(front_end, data):
    """Load `data` as the device's state; return what the check answers."""
    reader, writer = os.pipe()
    transfer = spec.DEVICE_STATE_TRANSFER.build(TRANSFER)
    assert await front_end.ask_u64(R.SET_DEVICE_STATE_FD, transfer, [reader]) == spec.NO_FD
    os.close(reader)
    await trio.to_thread.run_sync(write_all, writer, data)
    os.close(writer)
    return await front_end.ask_u64(R.CHECK_DEVICE_STATE)


def write_all(fd, data):
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BrokenPipeError:
            return


def a_state(**fields):
    device = make_balloon()
    return spec.BACK_END_STATE.build({"regions": [], "device": device.save()} | fields)


BAD_STATES = {
    "nothing": b"",
    "garbage": b"garbage" * 1000,
    "a magic and nothing else": b"vdevbe1\0",
    "a device cut short": a_state()[:-5],
    "RAM of half of what there can be": a_state(regions=[{"guest_address": 0, "size": 1 << 63}]),
    "RAM that overlaps": a_state(regions=[{"guest_address": 0, "size": 8192}] * 2),
    "RAM of half a page": a_state(regions=[{"guest_address": 0, "size": 2048}]),
    "RAM without end": a_state(regions=[{"guest_address": (1 << 64) - 4096, "size": 8192}]),
    "another device": a_state(device=bytes(200)),
    "more than a state can be": bytes(65 << 20),
}


@pytest.mark.parametrize("known_ram", [False, True])
@pytest.mark.parametrize("data", BAD_STATES.values(), ids=BAD_STATES)
async def test_a_state_that_cannot_be_loaded_is_an_error_and_the_device_works_on(data, known_ram):
    before = open_fds()
    back_end = BackEnd(make_balloon())
    async with served(back_end.device, back_end=back_end) as front_end:
        await front_end.negotiate()
        if known_ram:
            await front_end.share_memory()
        assert await load(front_end, data) & 0xFF
        assert "the transfer is failed" in back_end.statistics.last_violation
        if not known_ram:
            await front_end.share_memory()
        assert await front_end.ask_u64(R.SET_FEATURES, u64(RING_FEATURES | 1 << spec.PROTOCOL_FEATURES)) == 0
        front_end.queue(0)
        await front_end.start_ring(0)
        await front_end.settle()
        assert back_end.device.running
    del front_end
    assert_open_fds(before)


@pytest.mark.parametrize("fields", [{"direction": 2}, {"phase": 1}])
async def test_a_transfer_of_another_kind_is_refused(fields):
    async with served(make_balloon()) as front_end:
        await ready(front_end)
        reader, writer = os.pipe()
        body = spec.DEVICE_STATE_TRANSFER.build(TRANSFER | fields)
        assert "is not a valid" in await refused(front_end, R.SET_DEVICE_STATE_FD, body, [reader])
        os.close(reader)
        os.close(writer)
        assert "there was no transfer" in await refused(front_end, R.CHECK_DEVICE_STATE)


async def test_a_front_end_that_does_not_take_the_state_gets_an_error():
    before = open_fds()
    async with served(make_balloon()) as front_end:
        await ready(front_end)
        reader, writer = os.pipe()
        os.close(reader)
        body = spec.DEVICE_STATE_TRANSFER.build({"direction": 0, "phase": 0})
        assert await front_end.ask_u64(R.SET_DEVICE_STATE_FD, body, [writer]) == spec.NO_FD
        os.close(writer)
        assert await front_end.ask_u64(R.CHECK_DEVICE_STATE) & 0xFF
        assert "Broken pipe" in front_end.back_end.statistics.last_violation
    del front_end
    assert_open_fds(before)


async def test_a_second_front_end_waits_for_the_first_to_go(tmp_path):
    back_end = BackEnd(make_balloon())
    with listen(tmp_path / "sock") as listener:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(back_end.serve, listener)
            first, second = FrontEnd(connect(tmp_path / "sock")), FrontEnd(connect(tmp_path / "sock"))
            await first.settle()
            await second.send(R.GET_FEATURES)
            await first.settle()
            assert back_end.statistics.front_end_count == 1
            first.close()
            assert (await second.receive()).request == R.GET_FEATURES
            assert back_end.statistics.front_end_count == 2
            second.close()
            nursery.cancel_scope.cancel()


async def test_a_cancelled_server_closes_everything(tmp_path):
    before = open_fds()
    back_end = BackEnd(make_balloon())
    with listen(tmp_path / "sock") as listener:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(back_end.serve, listener)
            front_end = FrontEnd(connect(tmp_path / "sock"))
            await ready(front_end)
            await front_end.start_ring(0)
            await front_end.settle()
            nursery.cancel_scope.cancel()
    assert await front_end.is_closed()
    front_end.close()
    del front_end
    assert_open_fds(before)


async def test_several_regions_are_served_and_forgotten():
    before = open_fds()
    memory = GuestMemory([Region(slot * 2 * MIB, MemfdBacking(MIB)) for slot in range(8)])
    async with served(make_balloon(), memory=memory) as front_end:
        await ready(front_end)
        await front_end.start_ring(0)
        with trio.fail_after(PATIENCE):
            await front_end.settle()
        assert front_end.back_end.device.memory.size == 8 * MIB
    del front_end, memory
    assert_open_fds(before)
