"""What a kick says with NOTIFICATION_DATA, and that ioeventfds still know whose it is."""

import pytest
import trio
from echo_setup import PACKED, PLAIN, SPLIT, EchoPair, every_format

from spec.device import Feature, feature_mask
from spec.mmio import NOTIFICATION, QUEUE_INDEX_MASK, Register
from vdev.device import Device
from vdev.events import EventStream, Kick, KickHandled, PagesInflated, RegisterWritten, record_to_json
from vdev.machine import Machine
from vdev.memory import GuestMemory
from vdev.notify import IoEventfdMatch, IoEventfds, LoopDoorbell
from vdev.run.host import open_host
from vdev.run.one_loop import migrate
from vdev.run.options import MigrateOptions
from vdev.run.report import Outcome
from vdev.run.shape import MachineShape, guest_config
from vdev.schedule import FreeSchedule

MIB = 1 << 20
DATA = feature_mask(Feature.NOTIFICATION_DATA)


def place_after(count: int, size: int, features: int) -> int:
    """Return next_off and next_wrap after `count` buffers of one descriptor, as the text words it."""
    if features >> Feature.RING_PACKED & 1:
        lap, offset = divmod(count, size)
        return offset | (0 if lap % 2 else 1 << 15)
    return count % 0x1_0000


def test_a_notification_is_32_bits_as_the_text_has_them():
    assert NOTIFICATION.sizeof() == 4
    assert int.from_bytes(NOTIFICATION.build({"vq_index": 3, "next": 0x8005}), "little") == 3 | 5 << 16 | 1 << 31


@every_format
@pytest.mark.parametrize("number", [0, 1])
def test_a_kick_says_where_the_next_buffer_goes_and_counts_on_round_the_ring(features, number):
    pair = EchoPair(features, size=8)
    for _ in range(40):
        pair.send(number)
        assert pair.take(number) == [1]
    assert pair.wire.notified == [number | place_after(count, 8, features) << 16 for count in range(1, 41)]
    assert pair.complaints == []


@pytest.mark.parametrize("size", [1, 3, 5, 7, 255])
def test_a_packed_rings_place_fits_any_size(size):
    pair = EchoPair(PACKED, size=size)
    for count in range(1, 3 * size + 2):
        pair.send()
        assert pair.take() == [1]
        assert pair.wire.notified[-1] == place_after(count, size, PACKED) << 16
    assert pair.complaints == []


def test_an_available_index_counts_past_16_bits():
    pair = EchoPair(SPLIT, size=256)
    sent_count = 0
    for burst in [255] * 258:
        for _ in range(burst):
            pair.queues[0].add([(0x1000, 16)], [], 1)
        pair.driver.publish(pair.queues[0])
        sent_count += burst
        assert pair.wire.notified[-1] == (sent_count & 0xFFFF) << 16
        assert len(pair.take()) == burst
    assert sent_count > 0x1_0000
    assert pair.complaints == []


@every_format
def test_one_kick_for_several_buffers_says_where_the_last_one_ends(features):
    pair = EchoPair(features, size=8)
    for token in range(3):
        pair.queues[1].add([(0x1000, 16), (0x2000, 16)], [], token)
    pair.driver.publish(pair.queues[1])
    # A packed ring counts descriptors, a split one buffers.
    count = 6 if features >> Feature.RING_PACKED & 1 else 3
    assert pair.wire.notified == [1 | place_after(count, 8, features) << 16]


@pytest.mark.parametrize("features", [SPLIT & ~DATA, PACKED & ~DATA], ids=["split", "packed"])
def test_without_the_feature_a_kick_is_the_queues_index_alone(features):
    pair = EchoPair(features)
    for _ in range(9):
        pair.send(1)
        assert pair.take(1) == [1]
    assert pair.wire.notified == [1] * 9
    assert pair.complaints == []


# What no driver may say


@every_format
@pytest.mark.parametrize("number", [2, 7, 0xFFFF])
@pytest.mark.parametrize("place", [0, 1, 0x8001, 0xFFFF])
def test_a_kick_of_no_queue_is_reported_whatever_it_carries(features, number, place):
    pair = EchoPair(features)
    pair.driver.notify(number | place << 16)
    assert pair.complaints == ["a queue that is not ready was kicked"]
    assert not pair.driver.needs_reset


@pytest.mark.parametrize("size", [1, 4, 5])
def test_a_place_outside_a_packed_ring_is_reported_and_the_ring_looked_at_all_the_same(size):
    pair = EchoPair(PACKED, size=size)
    pair.queues[0].add([(0x1000, 16)], [], 9)
    pair.queues[0].publish()
    pair.driver.notify(size << 16)
    assert pair.complaints == [f"next_off {size} in a ring of {size}"]
    assert pair.take() == [9]
    pair.driver.notify(0xFFFF << 16)
    assert pair.complaints[1:] == [f"next_off 32767 in a ring of {size}"]
    assert not pair.driver.needs_reset


@every_format
@pytest.mark.parametrize("place", [0, 3, 0x8000, 0x8003])
def test_a_place_that_is_not_the_latest_is_no_fault(features, place):
    """A kick may be looked at when the driver has gone on, and one more than is needed may come."""
    pair = EchoPair(features, size=4)
    pair.queues[0].add([(0x1000, 16)], [], 9)
    pair.queues[0].publish()
    pair.driver.notify(place << 16)
    assert pair.take() == [9]
    pair.driver.notify(place << 16)
    assert pair.complaints == []
    assert not pair.driver.needs_reset


def test_any_available_index_may_be():
    pair = EchoPair(SPLIT, size=4)
    for place in (0, 1, 4, 0x7FFF, 0x8000, 0xFFFF):
        pair.driver.notify(place << 16)
    assert pair.complaints == []


def test_data_that_was_not_negotiated_makes_another_queue_of_it():
    pair = EchoPair(PLAIN & ~DATA)
    pair.driver.notify(1 << 16)
    assert pair.complaints == ["a queue that is not ready was kicked"]
    assert pair.device.handled == []


def test_the_device_works_from_the_ring_and_not_from_what_a_kick_says():
    pair = EchoPair(PACKED, size=4)
    pair.driver.notify(3 << 16)
    assert pair.device.handled == []


# Doorbells in place of exits


class Bell:
    def __init__(self):
        self.ring_count = 0

    def ring(self):
        self.ring_count += 1


def test_an_ioeventfd_compares_the_bits_of_its_mask():
    stream, seen = EventStream(lambda: 0.0), []
    stream.subscribe(lambda record: seen.append(record.event))
    first, second = Bell(), Bell()
    matches = {
        IoEventfdMatch(0x50, 0, QUEUE_INDEX_MASK): first,
        IoEventfdMatch(0x50, 1, QUEUE_INDEX_MASK): second,
        IoEventfdMatch(0x250, 1): second,
    }
    ioeventfds = IoEventfds(matches, stream.emitter("guest"))
    assert ioeventfds.ring(0x50, 0x8005_0000)
    assert ioeventfds.ring(0x50, 0xFFFF_0001)
    assert ioeventfds.ring(0x50, 1)
    assert (first.ring_count, second.ring_count) == (1, 2)
    assert not ioeventfds.ring(0x50, 0x0000_0002)
    assert not ioeventfds.ring(0x250, 0x0001_0001)
    assert not ioeventfds.ring(0x54, 0)
    assert ioeventfds.ring(0x250, 1)
    assert seen == [Kick(0, 1), Kick(1, 1), Kick(1, 2), Kick(1, 1)]


def test_two_masks_at_one_address_are_refused():
    with pytest.raises(ValueError, match="differ in their mask"):
        IoEventfds({IoEventfdMatch(0x50, 0, QUEUE_INDEX_MASK): Bell(), IoEventfdMatch(0x50, 1): Bell()})


@pytest.mark.parametrize("offers_data", [True, False])
def test_a_machine_looks_at_the_index_alone_where_a_device_offers_more(offers_data):
    class Offering(Device):
        device_id = 40
        name = "offering"
        queue_sizes = (4, 4)
        offered_features = feature_mask(Feature.VERSION_1) | (DATA if offers_data else 0)

    memory = GuestMemory.private(MIB)
    events = EventStream(lambda: 0.0)
    machine = Machine(memory, [Offering(memory)], FreeSchedule(), events, make_doorbell=LoopDoorbell)
    ioeventfds = IoEventfds(machine.ioeventfds)
    address = machine.bus.addresses[0] + Register.QUEUE_NOTIFY
    assert ioeventfds.ring(address, 1)
    assert ioeventfds.ring(address, 0x0003_0001) is offers_data
    assert not ioeventfds.ring(address, 2)


def run_in_one_loop(options):
    events, seen = EventStream(lambda: 0.0), []
    events.subscribe(lambda record: seen.append(record))
    return migrate(options, events=events, on_progress=lambda _: None), seen


@pytest.mark.parametrize("ring", ["split", "packed"])
def test_no_kick_of_a_guest_that_is_moved_becomes_an_exit(ring):
    report, records = run_in_one_loop(MigrateOptions(ram_size=32 * MIB, inflate_size=8 * MIB, ring=ring))
    events = [record.event for record in records]
    assert report.outcome is Outcome.COMPLETED
    assert report.verified.mismatched == 0
    assert {event.queue for event in events if isinstance(event, Kick)} >= {0, 2, 3}
    assert [event for event in events if isinstance(event, RegisterWritten) and event.offset == 0x50] == []


@pytest.mark.parametrize("ring", ["split", "packed"])
def test_without_ioeventfds_the_exits_of_a_moved_guest_carry_the_data(ring):
    report, records = run_in_one_loop(MigrateOptions(ram_size=32 * MIB, ioeventfd=False, ring=ring))
    values = [
        record.event.value
        for record in records
        if isinstance(record.event, RegisterWritten) and record.event.offset == Register.QUEUE_NOTIFY
    ]
    assert report.outcome is Outcome.COMPLETED
    assert report.verified.mismatched == 0
    assert max(values) > QUEUE_INDEX_MASK
    assert "ViolationFound" not in {record_to_json(record)["event"] for record in records}


@pytest.mark.process
@pytest.mark.parametrize("ring", ["split", "packed"])
@pytest.mark.parametrize("ioeventfd", [True, False])
async def test_a_guest_process_kicks_with_data(ioeventfd, ring):
    events, seen = EventStream(trio.current_time), []
    inflated, all_inflated = [], trio.Event()

    def look(record):
        seen.append(record.event)
        if isinstance(record.event, PagesInflated):
            inflated.append(record.event.page_count)
            if sum(inflated) == 1000:
                all_inflated.set()

    events.subscribe(look)
    options = MigrateOptions(ram_size=32 * MIB, workload="idle", rate=0, ring=ring)
    shape = MachineShape(((0, 32 * MIB),), ioeventfd)
    with trio.fail_after(60):
        async with open_host(shape, FreeSchedule(), events, name="source", trace=True) as host:
            await host.machine.boot(guest_config(options, shape, host.machine))
            host.vcpu.run()
            assert host.balloon.has_feature(Feature.NOTIFICATION_DATA)
            assert host.balloon.has_feature(Feature.RING_PACKED) == (ring == "packed")
            host.balloon.set_target(1000)
            await all_inflated.wait()
            await host.machine.pause()
    kicks = [event.value for event in seen if isinstance(event, RegisterWritten) and event.offset == 0x50]
    if ioeventfd:
        assert kicks == []
        assert KickHandled in {type(event) for event in seen}
    else:
        # Statistics, then four requests of at most 256 pages.
        assert [kick & QUEUE_INDEX_MASK for kick in kicks] == [2, 0, 0, 0, 0]
        assert len(set(kicks)) == 5
