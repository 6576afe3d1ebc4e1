"""Driver and device on two processes that truly race: no buffer, byte, kick or call is lost."""

import random
import sys
from functools import partial

import numpy as np
import pytest
import trio
from ring_setup import AREA, make_features

from guest_agent.virtqueue import attach_driver_queue, driver_area_size, make_driver_queue
from tests import ring_device_process
from vdev.memory import GuestMemory, MemfdBacking, Region
from vdev.notify import EventfdDoorbell

BUFFER_COUNT = 6000
SIZE = 32


@pytest.mark.process
@pytest.mark.parametrize("event_idx", [False, True])
@pytest.mark.parametrize("in_order", [False, True])
@pytest.mark.parametrize(("packed", "size"), [(False, 32), (True, 32), (True, 29)])
async def test_two_processes_lose_no_buffer_and_no_notification(packed, size, in_order, event_idx, record_property):
    features = make_features(packed=packed, event_idx=event_idx, in_order=in_order)
    backing = MemfdBacking(AREA + driver_area_size(size, 4))
    memory = GuestMemory([Region(0, backing)])
    driver = make_driver_queue(memory, 0, size, AREA, features, indirect_capacity=4)
    kick, call = EventfdDoorbell(), EventfdDoorbell()
    fds = [backing.fd, kick.fileno(), call.fileno()]
    arguments = [fds[0], backing.size, *fds[1:], features, BUFFER_COUNT, *driver.addresses]
    command = [sys.executable, ring_device_process.__file__, *map(str, arguments)]
    # A lost notification shows as both sides waiting for ever.
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(trio.run_process, command, pass_fds=fds))
            kicks, calls = await drive(memory, driver, kick, call)
    record_property("kicks", kicks)
    record_property("calls", calls)
    assert driver.free_count == size


async def drive(memory, driver, kick, call):
    """Send BUFFER_COUNT buffers and check what comes back; returns how often each side rang."""
    generator = random.Random(driver.size)
    # Each token in flight has 64 bytes to itself: 16 to read, 16 to write.
    places = [64 * place for place in range(driver.size)]
    sent, added, received, kicks, calls = {}, 0, 0, 0, 0
    while received < BUFFER_COUNT:
        for _ in range(generator.randint(0, 12)):
            if added == BUFFER_COUNT or not places or driver.free_count < 4:
                break
            added += 1
            address = places.pop()
            data = added.to_bytes(16, "little")
            memory.write(address, data)
            sent[added] = (address, data)
            readable = [(address, 7), (address + 7, 9)]
            driver.add(readable, [(address + 32, 16)], added, indirect=generator.random() < 0.5)
        driver.publish()
        if driver.should_kick():
            kicks += 1
            kick.ring()

        used = driver.collect_batch(generator.choice([None, 3]))
        for token, written_size in zip(used.tokens.tolist(), used.written_sizes.tolist(), strict=True):
            address, data = sent.pop(token)
            assert written_size == 16
            assert memory.read(address + 32, 16) == data[::-1]
            places.append(address)
        received += len(used.tokens)
        blocked = added == BUFFER_COUNT or not places or driver.free_count < 4
        if not len(used.tokens) and blocked and received < BUFFER_COUNT:
            calls += await call.wait_rung()
        if generator.random() < 0.1:
            driver.disable_calls()
            driver.enable_calls()
    assert not sent
    return kicks, calls


@pytest.mark.parametrize("packed", [False, True])
def test_the_driver_reads_its_own_layout_from_any_mapping(packed):
    backing = MemfdBacking(AREA + driver_area_size(SIZE))
    features = make_features(packed=packed)
    driver = make_driver_queue(GuestMemory([Region(0, backing)]), 0, SIZE, AREA, features)
    driver.add([(0, 1)], [], 1)
    other = attach_driver_queue(GuestMemory([Region(0, MemfdBacking(backing.size, backing.fd))]), 0, AREA)
    assert (other.free_count, other.addresses) == (SIZE - 1, driver.addresses)
    other.add_batch(np.zeros(2, np.uint64), np.ones(2, np.uint64), writable=True, tokens=np.arange(2, dtype=np.uint64))
    assert driver.free_count == SIZE - 3
