"""A served device's state moves to another back end (DEVICE_STATE)."""

import os

import pytest
import trio
from vhost_user_setup import (
    MIB,
    PATIENCE,
    RING_FEATURES,
    R,
    assert_open_fds,
    inflate,
    make_balloon,
    open_fds,
    served,
    start_balloon,
    u64,
)

from guest_agent.virtqueue.split import SplitDriverQueue
from spec import vhost_user as spec
from spec.device import Feature, feature_mask

pytestmark = pytest.mark.usefixtures("no_garbage_of_others")

# A state that moves


async def save(front_end):
    """Return the state that the back end gives."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    body = spec.DEVICE_STATE_TRANSFER.build({"direction": 0, "phase": 0})
    assert await front_end.ask_u64(R.SET_DEVICE_STATE_FD, body, [writer]) == spec.NO_FD
    os.close(writer)
    state = b""
    with trio.fail_after(PATIENCE):
        while True:
            try:
                piece = os.read(reader, 1 << 16)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(reader)
                continue
            if not piece:
                break
            state += piece
    os.close(reader)
    assert await front_end.ask_u64(R.CHECK_DEVICE_STATE) == 0
    return state


async def load(front_end, state):
    reader, writer = os.pipe()
    body = spec.DEVICE_STATE_TRANSFER.build({"direction": 1, "phase": 0})
    assert await front_end.ask_u64(R.SET_DEVICE_STATE_FD, body, [reader]) == spec.NO_FD
    os.close(reader)
    assert os.write(writer, state) == len(state)
    os.close(writer)
    return await front_end.ask_u64(R.CHECK_DEVICE_STATE)


@pytest.mark.parametrize("ram_is_told_first", [False, True])
async def test_a_device_s_state_moves_to_another_back_end(ram_is_told_first):
    before = open_fds()
    source, destination = make_balloon(), make_balloon()
    async with served(source) as front_end:
        await start_balloon(front_end)
        await inflate(front_end, 300, 301, 302)
        source.set_target(77)
        bases = {number: await front_end.stop_ring(number) for number in (0, 1)}
        saved = await save(front_end)
        ram = front_end.memory.read(0, 16 * MIB)
        queues = front_end.queues
    async with served(destination) as front_end:
        front_end.memory.write(0, ram)
        if ram_is_told_first:
            await front_end.negotiate()
            await front_end.share_memory()
            assert await load(front_end, saved) == 0
        else:  # as QEMU does, which tells the rest when the guest goes on
            await front_end.send(R.SET_PROTOCOL_FEATURES, u64(await front_end.ask_u64(R.GET_PROTOCOL_FEATURES)))
            assert await load(front_end, saved) == 0
            front_end.features = RING_FEATURES
            await front_end.send(R.SET_FEATURES, u64(RING_FEATURES | 1 << spec.PROTOCOL_FEATURES))
            await front_end.share_memory()
        for number, queue in queues.items():
            driver = SplitDriverQueue.attach(front_end.memory, number, 0x10000 * (number + 1))
            assert driver.addresses == queue.addresses
            front_end.queues[number] = driver
            await front_end.start_ring(number, base=bases[number])
        await front_end.settle()
        assert destination.inflation.inflated_count == 3
        assert int(destination.config["num_pages"]) == 77
        await inflate(front_end, 303)
        assert sorted(destination.inflation.inflated.nonzero()[0]) == [300, 301, 302, 303]
    del front_end, driver, queue, queues
    assert_open_fds(before)


async def test_a_state_with_other_features_than_are_agreed_is_refused():
    async with served(make_balloon()) as front_end:
        await front_end.negotiate(RING_FEATURES | feature_mask(Feature.EVENT_IDX))
        await front_end.share_memory()
        front_end.queue(0)
        await front_end.start_ring(0)
        await front_end.stop_ring(0)
        saved = await save(front_end)
    async with served(make_balloon()) as front_end:
        await front_end.negotiate()
        assert await load(front_end, saved) & 0xFF
        assert "are agreed" in front_end.back_end.statistics.last_violation


async def test_a_state_without_a_driver_moves_and_the_driver_comes_at_the_destination():
    async with served(make_balloon()) as front_end:
        await front_end.send(R.SET_PROTOCOL_FEATURES, u64(await front_end.ask_u64(R.GET_PROTOCOL_FEATURES)))
        front_end.back_end.device.set_target(5)
        saved = await save(front_end)
    for features_first in (True, False):
        async with served(make_balloon()) as front_end:
            if features_first:
                await front_end.negotiate()
                assert await load(front_end, saved) == 0
            else:
                await front_end.send(R.SET_PROTOCOL_FEATURES, u64(await front_end.ask_u64(R.GET_PROTOCOL_FEATURES)))
                assert await load(front_end, saved) == 0
                await front_end.negotiate()
            await front_end.share_memory()
            front_end.queue(0)
            await front_end.start_ring(0)
            await front_end.settle()
            await inflate(front_end, 300)
            assert int(front_end.back_end.device.config["num_pages"]) == 5
