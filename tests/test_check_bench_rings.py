"""The bench's raw rings against this project's own device, in both formats, over both carriers."""

import pytest
from bench_setup import TARGETS, entropy, entropy_bench

from spec.device import Feature
from spec.packed_ring import FIRST_POSITION, EventFlag
from vdev.check.bench.arena import FILL, Place
from vdev.check.bench.fate import Fate
from vdev.check.bench.request import Request
from vdev.check.bench.ring import Segment
from vdev.check.bench.touched import Touch
from vdev.check.registry import BOTH, RingFormat
from vdev.check.verdict import Inconclusive, NotApplicable
from vdev.devices.kind import Carrier
from vdev.events import RingAreaStored, UsedElementSeen


@pytest.fixture(scope="module", params=TARGETS)
def target(request):
    target = TARGETS[request.param](entropy)
    yield target
    target.close()


@pytest.fixture(params=BOTH, ids=lambda ring_format: ring_format.value)
def bench(request, target):
    with entropy_bench(target, request.param) as bench:
        yield bench
        bench.quiesce()
        assert bench.memory.touched() == []


def test_a_plain_request_is_used_and_leaves_its_events(bench):
    bench.start()
    used = bench.exchange(bench.ring())
    assert (used.id, used.length, used.buffers) == (0, 64, 1)
    kinds = [type(record.event) for record in bench.records]
    assert kinds.index(RingAreaStored) < kinds.index(UsedElementSeen)
    assert bench.evidence().done[0].startswith("start the device with VERSION_1")


@pytest.mark.parametrize("size", [1, 2, 8])
def test_many_requests_go_round_a_small_ring(bench, size):
    bench.start(size=size)
    ring = bench.ring()
    for count in range(1, 5 * size + 3):
        batch = [ring.post(bench.traffic.plain(bench, 3)) for _ in range(min(count, size))]
        ring.publish()
        ring.kick()
        assert [used.id for used in ring.wait_all(len(batch))] == [posted.head for posted in batch]
        for posted in batch:
            assert FILL not in ring.written(posted)
            ring.release(posted)
    assert ring.used_now() == []


def test_only_what_is_published_is_used(bench):
    bench.start()
    ring = bench.ring()
    first, second = (ring.post(bench.traffic.plain(bench)) for _ in range(2))
    ring.publish(1)
    ring.kick()
    assert ring.wait_used().id == first.head
    assert ring.used_now() == []
    ring.publish()
    ring.kick()
    assert ring.wait_used().id == second.head


def test_a_request_is_cut_as_told_and_written_over_all_pieces(bench):
    bench.start()
    ring = bench.ring()
    posted = ring.post(Request(writable_size=50), cuts=[10, 20, 20])
    assert [segment.size for segment in posted.segments] == [10, 10, 0, 30]
    assert len(posted.slots) == 4
    both = ring.post(Request(readable=bytes(6), writable_size=4), cuts=[2, 6])
    assert [(segment.size, segment.writable) for segment in both.segments] == [(2, False), (4, False), (4, True)]


def test_an_indirect_table_is_one_descriptor(bench):
    bench.start(features=(Feature.INDIRECT_DESC,))
    ring = bench.ring()
    posted = ring.post(Request(writable_size=50), cuts=[10, 20], indirect=True)
    ring.publish()
    ring.kick()
    used = ring.wait_used()
    assert (used.id, used.length, len(posted.slots)) == (posted.head, 50, 1)
    assert FILL not in ring.written(posted)


@pytest.mark.parametrize("place", Place)
def test_buffers_may_be_anywhere_in_guest_memory(bench, place):
    bench.start()
    bench.exchange(bench.ring(), place=place)


def test_rings_may_be_above_four_gigabytes_and_buffers_straddle_pages(bench):
    bench.start(place=Place.HIGH)
    bench.exchange(bench.ring(), offset_in_page=4090)


def test_the_bench_is_brought_up_twice(bench):
    bench.start()
    bench.exchange(bench.ring())
    bench.reset()
    bench.start(features=(Feature.EVENT_IDX,))
    bench.exchange(bench.ring())
    bench.start()
    bench.exchange(bench.ring())


def test_calls_are_suppressed_and_allowed(bench):
    for features in ((), (Feature.EVENT_IDX,)):
        bench.start(features=features)
        ring = bench.ring()
        ring.suppress_calls()
        before = bench.control.call_count(0)
        bench.exchange(ring)
        assert bench.control.call_count(0) == before
        ring.allow_calls()
        bench.exchange(ring)
        assert bench.control.wait_call(0, than=before) == before + 1


def test_a_call_comes_at_the_event_index(bench):
    bench.start(features=(Feature.EVENT_IDX,))
    ring = bench.ring()
    packed = bench.format is RingFormat.PACKED
    ring.call_at(FIRST_POSITION | 2 if packed else 2)
    counts = []
    for _ in range(4):
        bench.exchange(ring)
        counts.append(bench.control.call_count(0))
        if len(counts) == 3:
            counts[-1] = bench.control.wait_call(0, than=counts[1])
    assert [count - counts[0] for count in counts] == [0, 0, 1, 1]


def test_the_device_says_whether_it_wants_kicks(bench):
    bench.start(features=(Feature.EVENT_IDX,))
    ring = bench.ring()
    for _ in range(3):
        ring.post(bench.traffic.plain(bench))
        ring.publish()
        wanted = ring.kicks_wanted()
        ring.kick()
        ring.wait_used()
    # The thread may be looking at the ring just now, and then wants none; behind registers it never is.
    assert wanted or bench.carrier is Carrier.VHOST_USER


def test_in_order_elements_stand_for_all_buffers_before(bench):
    bench.start(features=(Feature.IN_ORDER,), size=8)
    ring = bench.ring()
    for _ in range(5):
        batch = [ring.post(Request(writable_size=16)) for _ in range(5)]
        ring.publish()
        ring.kick()
        used = ring.wait_all(5)
        assert sum(element.buffers for element in used) == 5
        assert used[-1].id == batch[-1].head


def test_notification_data_goes_along_with_a_kick(bench):
    if bench.carrier is Carrier.VHOST_USER:
        return
    bench.start(features=(Feature.NOTIFICATION_DATA,))
    bench.exchange(bench.ring())
    bench.exchange(bench.ring())
    written = [record.event.value for record in bench.records if getattr(record.event, "offset", 0) == 0x50]
    place = FIRST_POSITION if bench.format is RingFormat.PACKED else 0
    assert written == [(place | 1) << 16, (place | 2) << 16]


def test_a_wrong_answer_is_told_and_no_verdict_by_itself(bench):
    bench.start()
    with pytest.raises(Inconclusive, match="64 bytes are said to be written, not 63"):
        bench.exchange(bench.ring(), Request(writable_size=64, written=63))


def test_a_feature_that_is_not_offered_is_not_applicable(bench):
    with pytest.raises(NotApplicable, match="SR_IOV"):
        bench.start(features=(Feature.SR_IOV,))


def test_a_hostile_chain_needs_a_reset_and_the_device_is_alive_after(bench):
    bench.start()
    ring = bench.ring()
    ring.post(segments=[Segment(bench.memory.outside(), 16, True)])
    ring.publish()
    ring.kick()
    assert bench.survives() in (Fate.NEEDS_RESET, Fate.ERROR)
    bench.is_alive()


def test_a_device_that_refuses_a_readable_chain_does_not_read_it(bench):
    bench.start()
    ring = bench.ring()
    ring.post(segments=[Segment(bench.memory.guard(), 16, False)])
    ring.publish()
    ring.kick()
    bench.survives()


def test_raw_descriptors_are_what_the_device_sees(bench):
    bench.start()
    ring = bench.ring()
    buffer = bench.memory.allocate(8, what="a buffer")
    bench.memory.fill(buffer)
    if bench.format is RingFormat.SPLIT:
        ring.store_descriptor(5, buffer.address, 8, 2)
        assert ring.descriptor(5) == (buffer.address, 8, 2, 0)
        ring.store_available(0, 5)
        ring.store_available_index(1)
    else:
        ring.store_descriptor(0, buffer.address, 8, 5, 2 | ring.available_flags(1))
    ring.kick()
    bench.control.wait(0, ring.has_used, "use the buffer")
    (used,) = ring.used_now()
    assert (used.id, used.length) == (5, 8)
    assert FILL not in bench.memory.read(buffer.address, 8)


def test_what_a_device_writes_where_it_may_not_is_seen(bench):
    bench.start()
    ring = bench.ring()
    posted = ring.post(Request(readable=b"abc", writable_size=8))
    bench.memory.write(ring.areas.driver, b"\xff")
    bench.memory.write(posted.segments[0].address, b"X")
    touched = bench.memory.touched()
    assert {found.kind for found in touched} == {Touch.HELD}
    assert len(touched) == 2
    bench.memory.write(ring.areas.driver, b"\0")
    bench.memory.write(posted.segments[0].address, b"a")


def test_the_packed_device_event_can_be_read(target):
    with entropy_bench(target, RingFormat.PACKED) as bench:
        bench.start(features=(Feature.EVENT_IDX,))
        bench.exchange(bench.ring())
        bench.barrier(bench.ring())
        assert bench.ring().device_event()[1] in set(EventFlag)
