"""A front end over a real socket, a device behind it: what the session promises while all goes well."""

import resource
import socket

import pytest
import trio
import trio.lowlevel
import trio.testing
from device_setup import recorded_events
from vhost_user_setup import (
    RING_FEATURES,
    FrontEnd,
    R,
    assert_open_fds,
    connect,
    frames,
    inflate,
    make_balloon,
    open_fds,
    served,
    start_balloon,
    state,
    u64,
    wait_until,
)

from guest_agent.virtqueue.packed import PackedDriverQueue
from spec import vhost_user as spec
from spec.device import Feature, feature_mask
from spec.vhost_user import BackEndRequest
from vdev.errors import BackEndViolation
from vdev.events import FrontEndConnected, FrontEndGone, KickHandled, ViolationFound
from vdev.vhost_user.framing import MessageDecoder
from vdev.vhost_user.server import BackEnd, listen

pytestmark = pytest.mark.usefixtures("no_garbage_of_others")


async def test_a_balloon_is_inflated_over_a_real_unix_socket(tmp_path):
    before = open_fds()
    device = make_balloon()
    back_end = BackEnd(device)
    with listen(tmp_path / "balloon.sock") as listener:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(back_end.serve, listener)
            front_end = FrontEnd(connect(tmp_path / "balloon.sock"))
            await start_balloon(front_end)
            used = await inflate(front_end, 300, 301, 302)
            assert used.written_size == 0
            assert device.inflation.inflated_count == 3
            [inflate_queue, *_] = back_end.statistics.queues
            assert (inflate_queue.kick_count, inflate_queue.call_count, inflate_queue.chain_count) == (1, 1, 1)
            front_end.close()
            await wait_until(lambda: not back_end.statistics.is_connected)
            nursery.cancel_scope.cancel()
    del front_end
    assert_open_fds(before)


async def restart(front_end, *numbers, base=None):
    """Stop rings and start them where they stood, or from `base`, as a front end does for a guest that is paused."""
    bases = {number: await front_end.stop_ring(number) for number in numbers}
    await front_end.send(R.SET_FEATURES, u64(front_end.features | 1 << spec.PROTOCOL_FEATURES))
    for number in numbers:
        await front_end.start_ring(number, base=bases[number] if base is None else base)
    await front_end.settle()
    return bases


@pytest.mark.parametrize("told_status", [False, True])
async def test_a_guest_that_is_paused_finds_its_device_as_it_left_it(told_status):
    device = make_balloon()
    async with served(device) as front_end:
        await start_balloon(front_end)
        await inflate(front_end, 300, 301)
        if told_status:  # as QEMU does when its user stops the guest
            await front_end.send(R.SET_STATUS, u64(0))
        assert await restart(front_end, 0, 1) == {0: 1, 1: 0}
        assert device.inflation.inflated_count == 2
        await inflate(front_end, 302)
        assert device.inflation.inflated_count == 3


async def test_a_driver_that_begins_anew_finds_a_device_that_was_reset():
    device = make_balloon()
    async with served(device) as front_end:
        await start_balloon(front_end)
        await inflate(front_end, 300, 301)
        for number in (0, 1):
            await front_end.stop_ring(number)
            front_end.queue(number)
        for number in (0, 1):
            await front_end.start_ring(number)
        await front_end.settle()
        assert device.inflation.inflated_count == 0
        await inflate(front_end, 300)
        assert device.inflation.inflated_count == 1


async def test_a_front_end_comes_back_again_and_again():
    before = open_fds()
    device = make_balloon()
    back_end = BackEnd(device)
    for turn in range(1, 4):
        async with served(device, back_end=back_end) as front_end:
            await start_balloon(front_end)
            await inflate(front_end, 300, 301)
            assert device.inflation.inflated_count == 2
        assert device.status == 0
        assert back_end.statistics.front_end_count == turn
    del front_end
    assert_open_fds(before)


async def test_a_packed_ring_is_served_and_goes_on_from_its_base():
    device = make_balloon()
    async with served(device) as front_end:
        await front_end.negotiate(RING_FEATURES | feature_mask(Feature.RING_PACKED, Feature.EVENT_IDX))
        await front_end.share_memory()
        for number in (0, 1):
            front_end.queue(number, size=5, make=PackedDriverQueue)
            await front_end.start_ring(number, base=0x8000_8000)
        await front_end.settle()
        for page in range(300, 307):
            await inflate(front_end, page)
        bases = await restart(front_end, 0, 1)
        assert bases == {0: 0x0002_0002, 1: 0x8000_8000}
        await inflate(front_end, 310)
        assert device.inflation.inflated_count == 8


async def test_a_ring_without_a_kick_descriptor_is_looked_at_again_and_again():
    device = make_balloon()
    async with served(device) as front_end:
        await front_end.negotiate()
        await front_end.share_memory()
        front_end.queue(0)
        await front_end.start_ring(0, enable=False)
        await front_end.send(R.SET_VRING_KICK, u64(spec.NO_FD))
        await front_end.send(R.SET_VRING_ENABLE, state(0, 1))
        await front_end.settle()
        for turn in range(3):
            front_end.memory.write(0x80000, frames(300 + turn))
            front_end.queues[0].add([(0x80000, 4)], [], 1)
            front_end.queues[0].publish()
            await front_end.wait_call(0)
        assert device.inflation.inflated_count == 3


async def test_a_kick_that_came_before_the_ring_was_enabled_is_not_lost():
    device = make_balloon()
    async with served(device) as front_end:
        await front_end.negotiate()
        await front_end.share_memory()
        front_end.queue(0)
        await front_end.start_ring(0, enable=False)
        front_end.post(0, frames(300))
        await front_end.settle()
        assert device.inflation.inflated_count == 0
        await front_end.send(R.SET_VRING_ENABLE, state(0, 1))
        await front_end.wait_call(0)
        assert device.inflation.inflated_count == 1


async def test_ram_that_is_told_anew_while_rings_are_served_is_the_ram_that_is_used():
    device = make_balloon()
    async with served(device) as front_end:
        await start_balloon(front_end)
        await inflate(front_end, 300)
        await front_end.share_memory()
        await front_end.settle()
        await inflate(front_end, 301)
        assert device.inflation.inflated_count == 2


# Announcements


class Channel:
    """The front end's end of the back end's channel."""

    def __init__(self):
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)

    def take(self):
        """Return the requests that came."""
        try:
            data = self.ours.recv(4096)
        except BlockingIOError:
            return []
        return [message.request for message in MessageDecoder(BackEndViolation).feed(data)]

    async def give(self, front_end):
        await front_end.send(R.SET_BACKEND_REQ_FD, fds=[self.theirs.fileno()])
        self.theirs.close()

    def close(self):
        self.ours.close()


async def turns(count=20):
    for _ in range(count):
        await trio.lowlevel.checkpoint()


async def test_a_change_is_announced_while_a_ring_is_served_and_at_no_other_time():
    device = make_balloon()
    channel = Channel()
    async with served(device) as front_end:
        await front_end.negotiate()
        await channel.give(front_end)
        config = spec.CONFIG.build({"offset": 0, "size": 16, "flags": 0, "payload": bytes(16)})
        await front_end.ask(R.GET_CONFIG, config)
        await front_end.share_memory()
        front_end.queue(0)
        await front_end.start_ring(0, enable=False)
        await front_end.settle()
        device.set_target(10)
        await turns()
        assert channel.take() == []
        # What changed before is announced when the device begins to run.
        await front_end.send(R.SET_VRING_ENABLE, state(0, 1))
        await front_end.settle()
        await turns()
        assert channel.take() == [BackEndRequest.CONFIG_CHANGE_MSG]
        device.set_target(20)
        await turns()
        assert channel.take() == [BackEndRequest.CONFIG_CHANGE_MSG]
        await front_end.stop_ring(0)
        device.set_target(30)
        await turns()
        assert channel.take() == []
        # The front end reads the change by itself: there is nothing left to tell.
        await front_end.ask(R.GET_CONFIG, config)
        await front_end.start_ring(0)
        await front_end.settle()
        await turns()
        assert channel.take() == []
    channel.close()


async def test_a_front_end_that_reads_no_announcement_gets_the_next_ones_later():
    device = make_balloon()
    channel = Channel()
    channel.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    async with served(device) as front_end:
        await front_end.negotiate()
        await channel.give(front_end)
        await front_end.share_memory()
        front_end.queue(0)
        await front_end.start_ring(0)
        await front_end.settle()
        for target in range(2000):
            device.set_target(target)
            await turns(2)
        seen = channel.take()
        assert 0 < len(seen) < 2000
        await front_end.settle()  # nothing hangs
        await turns()
        assert channel.take()
    channel.close()


async def test_a_front_end_that_closed_its_channel_is_told_nothing_and_served():
    device = make_balloon()
    channel = Channel()
    async with served(device) as front_end:
        await front_end.negotiate()
        await channel.give(front_end)
        channel.close()
        await front_end.share_memory()
        front_end.queue(0)
        await front_end.start_ring(0)
        await front_end.settle()
        device.set_target(5)
        await turns()
        await inflate(front_end, 300)
        assert front_end.back_end.statistics.front_end_violation_count == 0


async def test_front_ends_kicks_and_violations_are_in_the_event_stream():
    emitter, seen = recorded_events()
    back_end = BackEnd(make_balloon(), events=emitter)
    async with served(back_end.device, back_end=back_end) as front_end:
        await start_balloon(front_end)
        await inflate(front_end, 300)
        assert await front_end.ask_u64(R.SET_STATUS, u64(0x100)) == 1
    assert seen == [
        FrontEndConnected("balloon", 1),
        KickHandled(0, 1, 1),
        ViolationFound("balloon", "front end", "Front-end message types", "a status of 0x100"),
        FrontEndGone("balloon", 1),
    ]


async def test_a_server_without_a_free_descriptor_accepts_when_there_is_one_again(tmp_path):
    path = tmp_path / "balloon.sock"
    back_end = BackEnd(make_balloon())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with listen(path) as listener:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(back_end.serve, listener)
            await trio.testing.wait_all_tasks_blocked()
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
            try:
                sock.connect(str(path))
                # Once round the loop: the server has seen that it cannot have the connection.
                await trio.lowlevel.checkpoint()
                await trio.testing.wait_all_tasks_blocked()
                assert not back_end.statistics.is_connected
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            front_end = FrontEnd(sock)
            await front_end.negotiate()
            assert back_end.statistics.is_connected
            front_end.close()
            nursery.cancel_scope.cancel()
