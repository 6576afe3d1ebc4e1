"""Buffers that a back end took and did not give back are not lost with it: the next one gets them, in order."""

import os
import subprocess
import sys

import numpy as np
import pytest
import trio
import vhost_user_back_end_process
from hypothesis import given
from hypothesis import strategies as st
from vhost_user_back_end_process import Holder
from vhost_user_setup import FrontEnd, R, connect, served, wait_until

from guest_agent.virtqueue.packed import PackedDriverQueue
from guest_agent.virtqueue.split import SplitDriverQueue
from spec import vhost_user as spec
from spec.device import Feature, feature_mask
from vdev.errors import DriverViolation, FrontEndViolation
from vdev.memory import GuestMemory
from vdev.vhost_user.inflight import InflightRegion
from vdev.vhost_user.packed_inflight import PackedInflightQueue
from vdev.vhost_user.split_inflight import SplitInflightQueue
from vdev.virtqueue.factory import make_device_queue
from vdev.virtqueue.queue import QueueAddresses

SPLIT = feature_mask(Feature.VERSION_1, Feature.INDIRECT_DESC)
PACKED = SPLIT | feature_mask(Feature.RING_PACKED)
FORMATS = pytest.mark.parametrize(
    ("features", "make"), [(SPLIT, SplitDriverQueue), (PACKED, PackedDriverQueue)], ids=["split", "packed"]
)
AREA = {"mmap_size": 0, "mmap_offset": 0, "queue_count": 1, "queue_size": 64}


class Keeper:
    """What a front end keeps while its back ends come and go: RAM, a ring in it, and the area."""

    def __init__(self, features, make):
        self.features, self.make = features, make
        self.memory = None
        self.queue = None
        self.area = None
        self.next_address = 0x80000
        self.texts = []

    async def attach(self, front_end, *, base=None):
        """Set a session up, with RAM and area of before if there are any."""
        await front_end.negotiate(self.features)
        if self.memory is None:
            self.memory = front_end.memory
            self.queue = front_end.queue(0, make=self.make)
            reply = await front_end.ask(R.GET_INFLIGHT_FD, spec.INFLIGHT.build(AREA))
            self.description = spec.INFLIGHT.parse(reply.body)
            [self.area] = reply.take_fds()
        front_end.queues[0] = self.queue
        await front_end.share_memory()
        assert await front_end.ask_u64(R.SET_INFLIGHT_FD, spec.INFLIGHT.build(self.description), [self.area]) == 0
        fresh = 0x8000_8000 if self.features == PACKED else 0
        await front_end.start_ring(0, base=fresh if base is None else base)
        await front_end.settle()

    def post(self, *texts, segments=1):
        for text in texts:
            readable = []
            for _ in range(segments):
                self.memory.write(self.next_address, text)
                readable.append((self.next_address, len(text)))
                self.next_address += 64
            self.queue.add(readable, [], len(self.texts))
            self.texts.append(text)
        self.queue.publish()

    def collect(self):
        found = []
        while (used := self.queue.collect()) is not None:
            found.append(self.texts[used.token])
        return found

    def close(self):
        os.close(self.area)
        for region in self.memory.regions:
            region.backing.close()


class Lasting(FrontEnd):
    """Leaves its RAM to the next."""

    def close(self):
        memory, self.memory = self.memory, GuestMemory.absent()
        super().close()
        self.memory = memory


@FORMATS
@pytest.mark.process
async def test_a_killed_back_end_s_buffers_go_to_the_next_one_in_order(features, make, tmp_path):
    keeper = Keeper(features, make)
    path = tmp_path / "sock"
    command = [sys.executable, vhost_user_back_end_process.__file__, str(path)]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    try:
        with trio.fail_after(30):
            assert (await process.stdout.receive_some()).startswith(b"listening")
        front_end = Lasting(connect(path))
        await keeper.attach(front_end)
        found = []

        def all_done(*wanted):
            found.extend(keeper.collect())
            return sorted(found) == sorted(wanted)

        keeper.post(b"keep 0", b"done 1", b"keep 2", b"done 3")
        front_end.kick(0)
        await wait_until(lambda: all_done(b"done 1", b"done 3"))
        keeper.post(b"keep 4", segments=3)
        keeper.post(b"done 5")
        front_end.kick(0)
        await wait_until(lambda: all_done(b"done 1", b"done 3", b"done 5"))
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stdout.aclose()
    front_end.close()
    # Meanwhile the driver goes on.
    keeper.post(b"new 6")
    device = Holder(GuestMemory.absent())
    async with served(device, make=Lasting, memory=keeper.memory) as front_end:
        # No base was told: the front end gives what the used ring shows, which lacks what is in flight.
        await keeper.attach(front_end, base=3 if features == SPLIT else None)
        await wait_until(lambda: len(device.seen) == 4)
        assert device.seen == [b"keep 0", b"keep 2", b"keep 4" * 3, b"new 6"]
        # Head by head, as if the device had finished now.
        for head in device.queues[0].save().outstanding:
            device.queues[0].push(head, 0)
        assert keeper.collect() == [b"keep 0", b"keep 2", b"keep 4", b"new 6"]
        keeper.post(b"done 7")
        front_end.kick(0)
        await wait_until(lambda: keeper.collect() == [b"done 7"])
        assert front_end.back_end.statistics.driver_violation_count == 0
    keeper.close()


@FORMATS
async def test_a_stopped_ring_s_buffers_come_again_when_it_is_started(features, make):
    keeper = Keeper(features, make)
    device = Holder(GuestMemory.absent())
    async with served(device, make=Lasting) as front_end:
        await keeper.attach(front_end)
        keeper.post(b"keep 0", b"done 1", b"keep 2")
        front_end.kick(0)
        await front_end.wait_call(0)
        base = await front_end.stop_ring(0)
        await front_end.start_ring(0, base=base)
        await front_end.settle()
        await wait_until(lambda: len(device.seen) == 5)
        assert device.seen == [b"keep 0", b"done 1", b"keep 2", b"keep 0", b"keep 2"]
    keeper.close()


class Dies(Exception):
    pass


class Crash:
    """A queue in an area, whose back end dies where it is told to."""

    def __init__(self, features, make, size=8):
        self.features, self.size = features, size
        self.memory = GuestMemory.private(1 << 20)
        self.driver = make.create(self.memory, 0, size, 0x1000, features)
        self.area = np.zeros(4096, np.uint8)
        self.chain_count = 0
        self.given_back = []
        self.start(first=True)

    def start(self, *, first=False):
        packed = self.features == PACKED
        driver = self.driver.addresses
        addresses = QueueAddresses(self.size, driver.descriptor, driver.driver, driver.device)
        inner = make_device_queue(self.memory, 0, addresses, self.features)
        if first:
            inner.start_from(0x8000_8000 if packed else 0)
        kind = PackedInflightQueue if packed else SplitInflightQueue
        region = InflightRegion(self.area, self.size, packed=packed)
        self.queue = kind(inner, self, region, self.memory, addresses, indirect=True)

    def die_at(self, when):
        push, push_batch = self.queue.inner.push, self.queue.inner.push_batch

        def dying(step):
            def step_and_die(*arguments):
                if when == "after the driver was told":
                    step(*arguments)
                raise Dies

            return step_and_die

        self.queue.inner.push, self.queue.inner.push_batch = dying(push), dying(push_batch)

    def post(self, *tokens):
        for token in tokens:
            self.driver.add([(0x8000, 16), (0x9000, 16)], [(0xA000, 16)], token)
        self.driver.publish()

    def collect(self):
        found = []
        while (used := self.driver.collect()) is not None:
            found.append(used.token)
        return found

    def pop_all(self):
        heads = []
        while (chain := self.queue.pop()) is not None:
            heads.append(chain.head)
        return heads

    def give_back(self, heads):
        if len(heads) == 1:
            self.queue.push(heads[0], 0)
        else:
            self.queue.push_batch(np.array(heads, np.int64), np.zeros(len(heads), np.int64))


WHEN = pytest.mark.parametrize("when", ["before the driver was told", "after the driver was told"])


@FORMATS
@WHEN
@pytest.mark.parametrize("batch", [1, 2], ids=["one", "a batch"])
def test_a_buffer_is_given_back_once_wherever_the_back_end_dies(features, make, when, batch):
    crash = Crash(features, make, size=16)
    for turn in range(40):
        crash.post(4 * turn, 4 * turn + 1, 4 * turn + 2, 4 * turn + 3)
        heads = crash.pop_all()
        assert len(heads) == 4
        crash.queue.push(heads[2], 0)
        crash.die_at(when)
        victims = heads[:batch] if batch > 1 else heads[3:]
        with pytest.raises(Dies):
            crash.give_back(victims)
        crash.start()
        left = [head for head in (heads[0], heads[1], heads[3]) if head not in victims or when.startswith("before")]
        assert crash.queue.has_available() == bool(left)
        assert crash.pop_all() == left
        crash.give_back(left[::-1])
        assert sorted(crash.collect()) == [4 * turn, 4 * turn + 1, 4 * turn + 2, 4 * turn + 3]


@FORMATS
def test_a_full_ring_is_taken_over_again_and_again(features, make):
    crash = Crash(features, make, size=9 if features == PACKED else 8)
    count = 3 if features == PACKED else 2
    for turn in range(20):
        crash.post(*range(count))
        heads = crash.pop_all()
        assert len(heads) == count
        crash.start()
        crash.start()
        assert len(crash.queue.pop_batch()) == count
        crash.give_back(heads[::-1])
        assert sorted(crash.collect()) == list(range(count)), turn


@FORMATS
def test_a_counter_that_somebody_set_to_its_end_does_no_harm(features, make):
    crash = Crash(features, make)
    crash.post(0)
    [head] = crash.pop_all()
    InflightRegion(crash.area, crash.size, packed=features == PACKED).descriptors["counter"] = 2**64 - 1
    crash.start()
    assert crash.pop_all() == [head]
    crash.post(1)
    assert len(crash.queue.pop_batch()) == 1


@FORMATS
def test_a_buffer_that_is_not_outstanding_cannot_be_given_back(features, make):
    crash = Crash(features, make)
    for head in (0, 5, crash.size, -1):
        with pytest.raises(ValueError, match=f"head {head} is not outstanding"):
            crash.queue.push(head, 0)


@FORMATS
@given(data=st.data())
def test_any_bytes_in_the_area_are_refused_or_taken_and_do_no_harm(data, features, make):
    crash = Crash(features, make)
    crash.post(0, 1)
    crash.pop_all()
    for _ in range(data.draw(st.integers(1, 6))):
        offset = data.draw(st.integers(0, 64 + 32 * 8 - 1))
        crash.area[offset] = data.draw(st.integers(0, 255))
    try:
        crash.start()
        heads = crash.pop_all()
    except (FrontEndViolation, DriverViolation):
        return
    for head in heads:
        crash.queue.push(head, 0)


@FORMATS
@pytest.mark.parametrize("garbage", [0xFF, 0x40])
async def test_a_front_end_that_stores_into_the_area_meanwhile_harms_only_what_it_will_be_told(features, make, garbage):
    device, keeper = Holder(GuestMemory.absent()), Keeper(features, make)
    async with served(device) as front_end:
        await keeper.attach(front_end)
        for number in range(200):
            address = 0x80000 + 16 * (number % 64)
            keeper.memory.write(address, b"done" if number % 3 else b"kept")
            keeper.queue.add([(address, 4)], [], 1 + number)
            keeper.queue.publish()
            front_end.kick(0)
            os.pwrite(keeper.area, bytes([garbage]) * keeper.description.mmap_size, 0)
            await front_end.settle()
            while keeper.queue.collect() is not None:
                pass
            if not keeper.queue.free_count:
                break
        assert len(device.seen) > 100
        assert device.violation is None
    os.close(keeper.area)
