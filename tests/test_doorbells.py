"""Both doorbells keep the one promise: rings fold into a count, none is lost, and a waiter wakes."""

import os

import pytest
import trio
import trio.testing

from vdev.notify import Doorbell, EventfdDoorbell, LoopDoorbell


@pytest.fixture(params=[LoopDoorbell, EventfdDoorbell])
def doorbell(request):
    bell: Doorbell = request.param()
    yield bell
    bell.close()


def test_rings_fold_into_one_count(doorbell):
    assert doorbell.take() == 0
    for _ in range(3):
        doorbell.ring()
    assert doorbell.take() == 3
    assert doorbell.take() == 0


async def test_a_ring_before_the_wait_is_not_lost(doorbell):
    doorbell.ring()
    doorbell.ring()
    with trio.fail_after(5):
        assert await doorbell.wait_rung() == 2
    assert doorbell.take() == 0


async def test_a_waiter_wakes_once_for_each_time_it_finds_rings(doorbell):
    counts = []

    async def listen():
        while sum(counts) < 6:
            counts.append(await doorbell.wait_rung())

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            for burst in (1, 2, 3):
                await trio.testing.wait_all_tasks_blocked(0.01)
                for _ in range(burst):
                    doorbell.ring()
    assert counts == [1, 2, 3]


async def test_nobody_wakes_without_a_ring(doorbell):
    doorbell.ring()
    doorbell.take()
    with trio.move_on_after(0.02) as scope:
        await doorbell.wait_rung()
    assert scope.cancelled_caught


async def test_a_cancelled_waiter_takes_no_ring_with_it(doorbell):
    with trio.move_on_after(0.02):
        await doorbell.wait_rung()
    doorbell.ring()
    with trio.fail_after(5):
        assert await doorbell.wait_rung() == 1


async def test_an_eventfd_rung_through_another_descriptor_wakes_the_waiter():
    bell = EventfdDoorbell()
    other = EventfdDoorbell(os.dup(bell.fileno()))
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bell.wait_rung)
            await trio.testing.wait_all_tasks_blocked(0.01)
            other.ring()
    other.close()
    bell.ring()  # its own descriptor lives on
    assert bell.take() == 1
    bell.close()


async def test_closing_an_eventfd_wakes_its_waiter_with_an_error():
    bell = EventfdDoorbell()

    async def close():
        await trio.testing.wait_all_tasks_blocked(0.01)
        bell.close()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(close)
            with pytest.raises(trio.ClosedResourceError):
                await bell.wait_rung()
    assert bell.fileno() == -1
    bell.close()
