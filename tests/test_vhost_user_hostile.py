"""A front end that breaks the protocol: a name for it, an answer or an end, and the back end serves the next one."""

import os
import socket

import pytest
import trio
from vhost_user_setup import (
    MIB,
    PATIENCE,
    RING_FEATURES,
    USER_BASE,
    FrontEnd,
    R,
    assert_open_fds,
    connect,
    frames,
    make_balloon,
    open_fds,
    ready,
    refused,
    served,
    state,
    u64,
)

from spec import vhost_user as spec
from spec.device import DeviceStatus
from vdev.memory import GuestMemory, MemfdBacking, Region
from vdev.vhost_user.framing import encode
from vdev.vhost_user.server import BackEnd, listen

pytestmark = pytest.mark.usefixtures("no_garbage_of_others")

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


async def test_more_ram_than_there_can_be_is_refused():
    fds = [os.memfd_create("immense") for _ in range(2)]
    for fd in fds:
        os.ftruncate(fd, 4 << 40)
    async with served(make_balloon()) as front_end:
        await ready(front_end)
        regions = [(0, 4 << 40, USER_BASE, 0), (4 << 40, MIB, USER_BASE + (4 << 40), 0)]
        assert "4398047559680 bytes of RAM" in await refused(front_end, R.SET_MEM_TABLE, table(*regions), fds)
        assert await front_end.ask_u64(R.SET_MEM_TABLE, table(regions[0]), fds[:1]) == 0
    for fd in fds:
        os.close(fd)


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
