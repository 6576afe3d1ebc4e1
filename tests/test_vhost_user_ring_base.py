"""A packed ring begins where its front end says. User-mode Linux always says 0: then the ring itself knows better."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from peers import guest
from peers.back_end import ServedBalloon, serving
from peers.have import have
from ring_setup import make_ends
from vhost_user_setup import frames, served

from guest_agent.virtqueue.packed import PackedDriverQueue
from spec.device import Feature, feature_mask
from vdev.devices.balloon import BalloonDevice
from vdev.memory import GuestMemory
from vdev.vhost_user.ring_base import ring_base
from vdev.vhost_user.vring import Vring, VringAddresses

PACKED = feature_mask(Feature.VERSION_1, Feature.RING_PACKED)
FRESH = 0x8000_8000


class Ring:
    """Both ends of a packed ring of ``size`` descriptors, and what a front end tells of it: always 0."""

    def __init__(self, size, **features):
        self.ends = make_ends(size, packed=True, indirect=False, **features)
        addresses = self.ends.device.addresses
        areas = VringAddresses(addresses.descriptor, addresses.driver, addresses.device, None)
        self.vring = Vring(0, size=size, addresses=areas, base=0)

    @property
    def base(self):
        return ring_base(self.vring, self.ends.memory, packed=True)

    def add(self, length):
        """Make a chain of so many descriptors available."""
        self.ends.driver.add([(0x1000, 8)] * length, [], 1)
        self.ends.driver.publish()

    def use(self):
        """Have the device use everything, as one batch, and the driver collect it."""
        heads = self.ends.device.pop_batch().heads
        self.ends.device.push_batch(heads, np.zeros(len(heads), np.int64))
        while self.ends.driver.collect() is not None:
            pass


@pytest.mark.parametrize("available_count", [0, 1, 4])
def test_a_ring_of_which_nothing_was_used_is_in_its_first_lap(available_count):
    ring = Ring(4)
    for _ in range(available_count):
        ring.add(1)
    assert ring.base == FRESH
    ring.ends.device.start_from(ring.base)
    assert len(ring.ends.device.pop_batch().heads) == available_count


@pytest.mark.parametrize("available_count", [0, 1, 4])
def test_a_ring_whose_first_lap_was_used_is_at_the_beginning_of_its_second(available_count):
    ring = Ring(4)
    for _ in range(4):
        ring.add(1)
        ring.use()
    assert ring.ends.device.ring_base() == 0
    for _ in range(available_count):
        ring.add(1)
    assert ring.base == 0
    ring.ends.restart_device()
    assert len(ring.ends.device.pop_batch().heads) == available_count


def test_a_first_descriptor_that_only_a_chain_of_the_lap_before_went_through_is_not_taken_for_a_new_one():
    ring = Ring(4)
    for lengths in ((1, 1, 1, 1), (1, 1, 1, 2), (1, 1, 1)):
        for length in lengths:
            ring.add(length)
            ring.use()
    # It looks as if nobody had used it, in the first lap.
    first = ring.ends.memory.read(ring.ends.device.addresses.descriptor, 16)
    assert first[14:] == b"\x80\x00"
    assert ring.ends.device.ring_base() == ring.base == 0


@given(st.integers(1, 6), st.booleans(), st.lists(st.tuples(st.integers(1, 6), st.booleans()), max_size=60))
def test_wherever_a_ring_stands_at_0_it_is_believed(size, in_order, steps):
    ring = Ring(size, in_order=in_order)
    used = False
    for length, use in steps:
        if length <= ring.ends.driver.free_count:
            ring.add(length)
        if not used:
            assert ring.base == FRESH
        if use:
            used |= bool(ring.ends.device.has_available())
            ring.use()
        if used and ring.ends.device.ring_base() == 0:
            assert ring.base == 0


def test_other_bases_a_split_ring_and_a_ring_nobody_can_read_are_left_as_they_were_told():
    ring = Ring(4)
    for base in (None, 0x8002_8003, 2, FRESH):
        ring.vring.base = base
        assert ring.base == base
    ring.vring.base = 0
    assert ring_base(ring.vring, ring.ends.memory, packed=False) == 0
    ring.vring.addresses = None
    assert ring.base == 0
    ring.vring.addresses = VringAddresses(1 << 40, 0, 0, None)
    assert ring.base == 0


def test_a_base_without_a_used_side_is_a_fresh_rings_until_something_was_used():
    ring = Ring(4)
    ring.vring.base = 0x8000
    assert ring.base == FRESH
    ring.add(1)
    assert ring.base == FRESH
    ring.use()
    assert ring.base == 0x8000


async def test_a_device_works_for_a_front_end_that_always_says_0_and_again_for_its_next_driver():
    device = BalloonDevice(GuestMemory.absent())
    async with served(device) as front_end:
        await front_end.negotiate(PACKED)
        await front_end.share_memory()
        for _ in range(2):
            for number in (0, 1):
                front_end.memory.write(0x10000 * (number + 1), bytes(0x4000))
                front_end.queue(number, make=PackedDriverQueue)
                await front_end.start_ring(number, base=0)
            for page in (300, 301):
                front_end.post(0, frames(page))
                await front_end.wait_call(0)
                assert front_end.queues[0].collect() is not None
            # Counted anew: the second driver found a device that was reset.
            assert device.inflation.inflated_count == 2
            for number in (0, 1):
                await front_end.stop_ring(number)
    assert device.violation is None


@pytest.mark.process
@pytest.mark.peer_uml
@pytest.mark.parametrize("features", [(), (Feature.EVENT_IDX, Feature.INDIRECT_DESC)], ids=["plain", "event index"])
async def test_user_mode_linux_gives_its_free_memory_over_packed_rings(features, tmp_path):
    balloon = ServedBalloon(Feature.RING_PACKED, *features)
    command = have(lambda: guest.user_mode_linux(f"{tmp_path}/s:5"))
    async with serving(balloon.device, tmp_path / "s"), guest.boot(command) as running:
        assert balloon.device.has_feature(Feature.RING_PACKED)
        free = (await running.memory())["MemFree"]
        hinted = sum(end - first for first, end in await balloon.hints()) * 4096
        assert 0.85 * free <= hinted <= free
        await balloon.inflate(64 << 20)
        await balloon.inflate(0)
