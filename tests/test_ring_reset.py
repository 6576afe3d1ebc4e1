"""One queue is reset and taken into use again while the others go on (RING_RESET)."""

import numpy as np
import pytest
import trio
import trio.testing
from device_setup import BASE, LyingWire
from echo_setup import AREAS, PLAIN, EchoPair, every_format

from guest_agent.mmio import MmioDriver
from guest_agent.virtqueue.factory import driver_area_size
from spec.mmio import Register
from vdev.errors import DeviceViolation
from vdev.notify import LoopDoorbell
from vdev.schedule import FreeSchedule
from vdev.serve import Gate, serve_queue

RING = driver_area_size(256)


def registers_of(pair, number):
    pair.driver.write(Register.QUEUE_SEL, number)
    return pair.driver.read(Register.QUEUE_READY), pair.driver.read(Register.QUEUE_RESET)


# The registers, step by step


@every_format
def test_ready_and_reset_read_as_the_text_has_them_at_each_step(features):
    pair = EchoPair(features)
    assert registers_of(pair, 0) == (1, 0)
    pair.driver.write(Register.QUEUE_RESET, 1)
    assert registers_of(pair, 0) == (0, 0)
    assert registers_of(pair, 1) == (1, 0)
    pair.make_queue(0, 8)
    assert registers_of(pair, 0) == (1, 0)
    pair.driver.reset()
    assert registers_of(pair, 0) == registers_of(pair, 1) == (0, 0)


@every_format
@pytest.mark.parametrize("size", [1, 2, 4, 16, 256])
def test_a_queue_comes_back_empty_with_another_size_at_another_place(features, size):
    pair = EchoPair(features, size=4)
    for _ in range(7):
        pair.send()
        assert pair.take() == [1]
    pair.driver.reset_queue(0)
    pair.make_queue(0, size, place=3)
    assert pair.device.queues[0].size == size
    for token in range(3 * size + 1):
        pair.send(token=token)
        assert pair.take() == [token]
    assert pair.complaints == []


@every_format
def test_the_other_queue_goes_on_while_one_is_reset(features):
    pair = EchoPair(features)
    for token in range(5):
        pair.send(1, token=token)
        assert pair.take(1) == [token]
    pair.driver.reset_queue(0)
    for token in range(5, 10):
        pair.send(1, token=token)
        assert pair.take(1) == [token]
    pair.make_queue(0, 4)
    pair.send(0, token=20)
    pair.send(1, token=21)
    assert (pair.take(0), pair.take(1)) == ([20], [21])
    assert pair.complaints == []


@every_format
def test_the_memory_of_a_queue_that_was_reset_is_the_drivers_again(features):
    pair = EchoPair(features)
    pair.device.slow = {0}
    for token in range(3):
        pair.send(token=token)
    pair.driver.reset_queue(0)
    pair.memory.write(AREAS, b"\xa5" * RING)
    pair.device.give_back(0)
    pair.device.handle_all_queues()
    assert pair.memory.read(AREAS, RING) == b"\xa5" * RING
    assert pair.complaints == []


@every_format
def test_buffers_that_were_out_are_forgotten_with_the_queue(features):
    pair = EchoPair(features, size=4)
    pair.device.slow = {0}
    for token in range(4):
        pair.send(token=token)
    assert len(pair.device.kept[0]) == 4
    pair.driver.reset_queue(0)
    pair.make_queue(0, 4)
    pair.device.give_back(0)
    assert pair.take() == []
    # All four descriptors are there again, and none is taken for one that is still out.
    pair.device.slow = set()
    for token in range(4, 12):
        pair.send(token=token)
        assert pair.take() == [token]
    assert pair.complaints == []


@every_format
def test_a_queue_that_was_never_ready_can_be_reset(features):
    pair = EchoPair(features)
    pair.driver.reset()
    pair.driver.acknowledge_device()
    pair.driver.accept_features(features)
    pair.driver.reset_queue(0)
    pair.make_queue(0, 4)
    pair.driver.drive()
    pair.send()
    assert pair.take() == [1]
    assert pair.complaints == []


@every_format
def test_a_queue_between_reset_and_re_enabling_moves_as_it_is(features):
    pair = EchoPair(features)
    pair.send(1)
    pair.driver.reset_queue(0)
    state = pair.wire.registers.save()
    pair.device.reset()
    pair.wire.registers.restore(state)
    assert registers_of(pair, 0) == (0, 0)
    assert pair.take(1) == [1]
    pair.make_queue(0, 4)
    for number in (0, 1):
        pair.send(number, token=5)
        assert pair.take(number) == [5]
    assert pair.complaints == []


# What no driver may do


@every_format
def test_a_reset_forgets_the_set_up_so_that_making_ready_alone_is_no_queue(features):
    pair = EchoPair(features)
    pair.driver.reset_queue(0)
    pair.driver.write(Register.QUEUE_READY, 1)
    assert registers_of(pair, 0) == (0, 0)
    assert pair.driver.needs_reset
    assert "QueueSize 0" in pair.device.violation.message


@every_format
def test_a_kick_of_a_queue_that_was_reset_is_reported_and_not_followed(features):
    pair = EchoPair(features)
    pair.queues[0].add([(0x1000, 16)], [], 1)
    pair.queues[0].publish()
    pair.driver.reset_queue(0)
    pair.driver.notify(0)
    assert pair.complaints == ["a queue that is not ready was kicked"]
    assert pair.device.handled == []
    assert not pair.driver.needs_reset


def test_what_cannot_be_reset_is_reported():
    pair = EchoPair(PLAIN)
    pair.driver.write(Register.QUEUE_SEL, 2)
    pair.driver.write(Register.QUEUE_RESET, 1)
    pair.driver.write(Register.QUEUE_SEL, 0xFFFF_FFFF)
    pair.driver.write(Register.QUEUE_RESET, 1)
    pair.driver.write(Register.QUEUE_SEL, 0)
    pair.driver.write(Register.QUEUE_RESET, 0)
    pair.driver.write(Register.QUEUE_RESET, 3)
    assert pair.complaints == [
        "QueueReset was written for queue 2, which does not exist",
        "QueueReset was written for queue 4294967295, which does not exist",
        "QueueReset was written with 0, not 1",
        "QueueReset was written with 3, not 1",
    ]
    assert registers_of(pair, 0) == (1, 0)
    assert not pair.driver.needs_reset


@every_format
def test_resets_in_every_order_never_break_the_host(features):
    """A driver that resets, makes ready, kicks and writes set-ups as it likes: at worst the device needs a reset."""
    random = np.random.default_rng(6)
    for _ in range(40):
        pair = EchoPair(features)
        for _ in range(60):
            register = [
                Register.QUEUE_SEL,
                Register.QUEUE_RESET,
                Register.QUEUE_READY,
                Register.QUEUE_SIZE,
                Register.QUEUE_NOTIFY,
                Register.QUEUE_DESC_LOW,
                Register.QUEUE_DRIVER_LOW,
                Register.QUEUE_DEVICE_LOW,
            ][random.integers(8)]
            value = [0, 1, 2, 4, 0x1000, AREAS, 0xFFFF_0001][random.integers(7)]
            pair.driver.write(register, value)
            pair.driver.read(Register.QUEUE_READY)
        pair.driver.reset()
        assert pair.device.queues == {}


# A device that does not do it


def test_a_queue_that_stays_ready_after_its_reset_is_named():
    wire = LyingWire(EchoPair(PLAIN).device, {Register.QUEUE_READY: 1})
    with pytest.raises(DeviceViolation, match="a queue is ready after its reset"):
        MmioDriver(wire, BASE).reset_queue(0)


# A ring of the doorbell says nothing of its moment


@pytest.mark.parametrize("made_again", [False, True])
async def test_a_doorbell_that_was_rung_before_the_reset_is_no_fault(made_again):
    pair = EchoPair(PLAIN, defer_kicks=True)
    doorbell, gate = LoopDoorbell(), Gate()
    pair.queues[0].add([(0x1000, 16)], [], 1)
    pair.driver.publish(pair.queues[0])
    doorbell.ring()
    pair.driver.reset_queue(0)
    if made_again:
        pair.make_queue(0, 4)
    gate.open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_queue, pair.device, 0, doorbell, gate, FreeSchedule())
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert pair.device.handled == []
    assert pair.complaints == []
