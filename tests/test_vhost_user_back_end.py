"""A front end over a real socket, a device behind it."""

import trio

from spec.balloon import QueueNumbering
from tests.vhost_user_setup import FrontEnd, assert_open_fds, connect, frames, open_fds, wait_until
from vdev.devices.balloon import BalloonDevice
from vdev.memory import GuestMemory
from vdev.vhost_user.server import BackEnd, listen


def make_balloon():
    return BalloonDevice(GuestMemory.absent(), numbering=QueueNumbering.COMPACT)


async def inflate(front_end, *pages):
    """Put pages into the balloon and wait for the used buffer."""
    front_end.post(0, frames(*pages))
    await front_end.wait_call(0)
    return front_end.queues[0].collect()


async def start_balloon(front_end):
    await front_end.negotiate()
    await front_end.share_memory()
    for number in (0, 1):
        front_end.queue(number)
        await front_end.start_ring(number)
    await front_end.settle()


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
