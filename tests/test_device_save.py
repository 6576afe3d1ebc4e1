"""A device goes on in another object, on another machine, from what `save` gave."""

import numpy as np
import pytest
from device_setup import BASE, BalloonPair, BareBalloon, Wire, frames, recorded_events

from guest_agent.drivers.balloon import BALLOON_DRIVER_FEATURES
from guest_agent.mmio import MmioDriver
from guest_agent.page_database import Owner
from spec.balloon import BalloonFeature, BalloonQueue, QueueNumbering, StatisticTag
from spec.device import DeviceStatus, feature_mask
from spec.device_state import DEVICE_STATE
from spec.mmio import QUEUE_INDEX_MASK, Interrupt, Register
from vdev.devices.balloon import BalloonDevice, HintState
from vdev.errors import SavedStateError
from vdev.memory import GuestMemory
from vdev.mmio import MmioRegisters

pytestmark = pytest.mark.usefixtures("each_ring")

MIB = 1 << 20


def move(pair):
    """Replace the pair's device by a new one that goes on from the old one's state."""
    new = BalloonDevice(pair.memory, numbering=pair.numbering)
    new.restore(pair.device.save())
    pair.device = new
    wire, pair.wire.device = pair.wire, new
    wire.registers = MmioRegisters(new)
    new.interrupt = wire._interrupt
    new.handle_all_queues()
    return new


@pytest.mark.parametrize("numbering", list(QueueNumbering))
@pytest.mark.parametrize("turns", range(0, 24, 3))
def test_a_driver_goes_on_with_another_device_in_the_middle_of_hinting(numbering, turns):
    features = BALLOON_DRIVER_FEATURES & ~feature_mask(BalloonFeature.PAGE_REPORTING)
    pair = BalloonPair(numbering=numbering, defer_kicks=True, queue_size=4, features=features)
    pair.device.set_target(300)
    pair.settle()
    blocks = pair.guest.allocator.free_block_counts()[10]
    first_pages = pair.hints()
    pair.device.hinting.request()
    for turn in range(turns):
        if pair.wire.interrupt_count:
            pair.wire.interrupt_count = 0
            pair.driver.handle_interrupt()
        if not pair.driver.work() and turn % 2:
            pair.wire.deliver_kicks()
    pair.wire.kicks.clear()  # kicks do not travel
    pair.wire.interrupt_count = 0  # nor do interrupts
    old = pair.device
    new = move(pair)
    second_pages = pair.hints()
    pair.settle()
    assert (new.actual, new.inflation.inflated_count) == (300, 300)
    assert new.hinting.command_id == old.hinting.command_id
    assert pair.guest.held(Owner.HINTED) == blocks * 1024
    # What was posted between restore and this test's new sink counts as refused; nothing is taken twice.
    hinted = first_pages + second_pages
    assert len(hinted) == len(set(hinted))
    assert len(hinted) + 1024 * new.hinting.refused_count == blocks * 1024
    new.hinting.done()
    pair.settle()
    assert pair.guest.held(Owner.HINTED) == 0
    assert new.request_statistics()
    pair.settle()
    assert new.statistics[StatisticTag.TOTAL_MEMORY] == 2
    new.set_target(0)
    pair.settle()
    assert new.inflation.inflated_count == 0
    assert new.violation is None
    assert pair.driver.gave_up is None


def test_a_pending_interrupt_is_raised_again():
    pair = BalloonPair()
    pair.device.set_target(10)
    pair.wire.interrupt_count = 0  # lost with the source
    move(pair)
    assert pair.wire.interrupt_count == 1
    assert pair.device.interrupt_status == Interrupt.CONFIGURATION_CHANGE
    pair.settle()
    assert pair.device.actual == 10


def test_a_kick_that_was_lost_is_made_up_for():
    pair = BalloonPair(defer_kicks=True)
    pair.device.set_target(10)
    pair.driver.handle_interrupt()
    while pair.driver.work():
        pass
    assert [kick & QUEUE_INDEX_MASK for kick in pair.wire.kicks] == [BalloonQueue.INFLATE]
    pair.wire.kicks.clear()
    move(pair)
    assert pair.device.inflation.inflated_count == 10


def test_restoring_writes_nothing_to_guest_ram():
    pair = BalloonPair()
    pair.device.set_target(100)
    pair.settle()
    state = pair.device.save()
    before = pair.memory.bytes_view(0, pair.memory.size).copy()
    BalloonDevice(pair.memory).restore(state)
    assert np.array_equal(before, pair.memory.bytes_view(0, pair.memory.size))


def test_an_id_of_before_the_move_is_still_an_old_one():
    bare = BareBalloon()
    old_id = bare.device.hinting.request()
    bare.device.hinting.stop()
    new = BalloonDevice(bare.memory)
    new.restore(bare.device.save())
    assert new.hinting.state is HintState.STOP
    assert new.hinting.request() == old_id + 1


def test_a_broken_device_stays_broken():
    bare = BareBalloon()
    bare.send(BalloonQueue.INFLATE, frames(0xFFFF_FFFF))
    new = BalloonDevice(bare.memory)
    new.restore(bare.device.save())
    assert new.status & DeviceStatus.DEVICE_NEEDS_RESET
    assert not new.running


def test_the_selectors_move_with_the_registers():
    memory = GuestMemory.private(MIB)
    old = MmioRegisters(BalloonDevice(memory))
    old.write(Register.DEVICE_FEATURES_SEL, 4, 1)
    old.write(Register.QUEUE_SEL, 4, 3)
    old.write(Register.STATUS, 4, 3)
    new = MmioRegisters(BalloonDevice(memory))
    new.restore(old.save())
    assert new.read(Register.DEVICE_FEATURES, 4) == old.read(Register.DEVICE_FEATURES, 4) != 0
    assert new.read(Register.STATUS, 4) == 3
    new.write(Register.QUEUE_SIZE, 4, 8)
    assert new.device.queue_setups[3].size == 8


def saved_fields(bare, **changes):
    fields = DEVICE_STATE.parse(bare.device.save())
    for name, value in changes.items():
        fields[name] = value
    return DEVICE_STATE.build(fields)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device_id": 4}, "it is a device of type 4"),
        ({"queues": []}, "it has 0 queues"),
        ({"config": b"1234"}, "its configuration space is 4 bytes"),
        ({"driver_features": (1 << 32) | (1 << 20)}, "it uses features 0x100100000"),
        ({"specific": b""}, "cannot be read"),
        ({"specific": b"\x09" + bytes(4) + b"\xff\xff\xff\xff" + bytes(4)}, "cannot be read"),
        ({"specific": b"\x00" + bytes(4) + b"\xff\xff\xff\xff" + b"\x03\0\0\0abc"}, "not one of 4096 pages"),
        ({"specific": bytes(13)}, "keeps a statistics buffer that its queue does not know"),
    ],
)
def test_a_state_that_does_not_fit_is_named(changes, message):
    bare = BareBalloon()
    with pytest.raises(SavedStateError, match=message):
        BalloonDevice(bare.memory).restore(saved_fields(bare, **changes))


@pytest.mark.parametrize("size", [0, 1, 40, 100])
def test_a_state_that_was_cut_off_is_named(size):
    bare = BareBalloon()
    with pytest.raises(SavedStateError):
        BalloonDevice(bare.memory).restore(bare.device.save()[:size])
    with pytest.raises(SavedStateError):
        MmioRegisters(BalloonDevice(bare.memory)).restore(b"")


@pytest.mark.parametrize(
    "changes", [{"descriptor": 1 << 50}, {"size": 0}, {"size": 512}, {"outstanding": [4000]}, {"outstanding": [3, 3]}]
)
def test_a_ring_that_does_not_fit_is_named(changes):
    bare = BareBalloon()
    fields = DEVICE_STATE.parse(bare.device.save())
    fields.queues[1].update(changes)
    with pytest.raises(SavedStateError, match=r"queue 1 at .* does not fit"):
        BalloonDevice(bare.memory).restore(DEVICE_STATE.build(fields))


def test_a_saved_balloon_of_other_features_is_refused():
    bare = BareBalloon()
    other = BalloonDevice(bare.memory, features=feature_mask(BalloonFeature.STATS_VQ))
    with pytest.raises(SavedStateError, match="are offered"):
        other.restore(bare.device.save())


def test_a_moved_device_tells_its_listeners_of_its_status():
    bare = BareBalloon()
    emitter, seen = recorded_events()
    BalloonDevice(bare.memory, events=emitter).restore(bare.device.save())
    assert [(event.before, event.after) for event in seen] == [(0, 15)]


def test_the_driver_can_reach_a_moved_device_by_another_wire():
    bare = BareBalloon()
    new = BalloonDevice(bare.memory)
    new.restore(bare.device.save())
    assert MmioDriver(Wire(new), BASE).status == DeviceStatus(15)
