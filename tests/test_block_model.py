"""The block device is a bytearray with a status: the driver, and any framing at all, against that model."""

from block_setup import DATA, BareDisk, DiskPair, content_of, memfd_disk
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from guest_agent.drivers.block import BLOCK_DRIVER_FEATURES
from spec.block import REQUEST_HEADER, RequestStatus, RequestType
from spec.device import Feature, feature_mask

SECTOR = 512
SECTORS = 64

places = st.integers(0, SECTORS - 1).flatmap(lambda first: st.tuples(st.just(first), st.integers(1, SECTORS - first)))


@st.composite
def layouts(draw, size):
    """Cut `size` bytes into segments that lie anywhere, without an overlap, across page ends too."""
    cuts = sorted(draw(st.lists(st.integers(0, size), max_size=6)))
    segments, at = [], DATA + draw(st.integers(0, 5000))
    for begin, end in zip([0, *cuts], [*cuts, size], strict=True):
        segments.append((at, end - begin))
        at += end - begin + draw(st.integers(0, 4200))
    return segments


RINGS = (Feature.RING_PACKED, Feature.IN_ORDER, Feature.INDIRECT_DESC, Feature.EVENT_IDX)


class DiskMachine(RuleBasedStateMachine):
    """Driver and device, many requests under way at once; each disk sector is as the last completed change left it."""

    def __init__(self):
        super().__init__()
        self.pair = None
        self.model = bytearray(SECTORS * SECTOR)
        self.token = 0

    @initialize(without=st.sets(st.sampled_from(RINGS)))
    def start(self, without):
        features = BLOCK_DRIVER_FEATURES & ~feature_mask(*without)
        disk = memfd_disk(bytes(SECTORS * SECTOR))
        self.pair = DiskPair(disk, features=features, queue_count=2, device_queues=2, defer_kicks=True)

    def teardown(self):
        if self.pair is not None:
            self.pair.close()

    def next_token(self):
        self.token += 1
        return self.token

    def store(self, segments, data):
        for address, size in segments:
            self.pair.memory.write(address, data[:size])
            data = data[size:]

    @rule(data=st.data(), place=places, queue=st.integers(0, 1), seed=st.integers(0, 255))
    def write(self, data, place, queue, seed):
        first, count = place
        content = bytes((seed + n * n // 7) & 0xFF for n in range(count * SECTOR))
        segments = data.draw(layouts(len(content)))
        self.store(segments, content)
        self.pair.driver.submit_write(first, segments, self.next_token(), queue)
        self.finish()
        self.model[first * SECTOR : (first + count) * SECTOR] = content

    @rule(data=st.data(), place=places, queue=st.integers(0, 1))
    def read(self, data, place, queue):
        first, count = place
        segments = data.draw(layouts(count * SECTOR))
        self.pair.driver.submit_read(first, segments, self.next_token(), queue)
        self.finish()
        got = b"".join(self.pair.memory.read(address, size) for address, size in segments)
        assert got == self.model[first * SECTOR : (first + count) * SECTOR]

    @rule(areas=st.lists(places, min_size=1, max_size=6), unmap=st.booleans(), queue=st.integers(0, 1))
    def write_zeroes(self, areas, unmap, queue):
        self.pair.driver.submit_write_zeroes(areas, self.next_token(), queue, unmap=unmap)
        self.finish()
        for first, count in areas:
            self.model[first * SECTOR : (first + count) * SECTOR] = bytes(count * SECTOR)

    @rule(areas=st.lists(places, min_size=1, max_size=6))
    def discard(self, areas):
        # What a discarded sector reads as is not said; here it is what the file says, and stays so.
        self.pair.driver.submit_discard(areas, self.next_token())
        self.finish()
        now = content_of(self.pair.file)
        for first, count in areas:
            self.model[first * SECTOR : (first + count) * SECTOR] = now[first * SECTOR : (first + count) * SECTOR]

    @rule(firsts=st.lists(st.integers(0, SECTORS - 1), min_size=1, max_size=40))
    def many_reads_at_once(self, firsts):
        for n, first in enumerate(firsts):
            self.pair.driver.submit_read(first, [(DATA + SECTOR * n, SECTOR)], self.next_token(), n % 2)
        self.finish(len(firsts))
        for n, first in enumerate(firsts):
            got = self.pair.memory.read(DATA + SECTOR * n, SECTOR)
            assert got == self.model[first * SECTOR : (first + 1) * SECTOR]

    @rule()
    def flush(self):
        self.pair.driver.submit_flush(self.next_token())
        self.finish()

    @rule()
    def move(self):
        moved = self.pair.moved()
        moved.wire.defer_kicks = True
        self.pair = moved

    def finish(self, count=1):
        done = self.pair.finish()
        assert sorted(completion.token for completion in done) == list(range(self.token - count + 1, self.token + 1))
        assert not any(completion.failed for completion in done)

    @invariant()
    def the_file_is_the_model(self):
        assert content_of(self.pair.file) == self.model
        assert self.pair.device.violation is None
        assert all(queue.free_count == queue.size for queue in self.pair.driver.queues)


TestDisk = DiskMachine.TestCase
TestDisk.settings = settings(max_examples=40, stateful_step_count=20)


@st.composite
def framings(draw, *sizes):
    """Cut a run of bytes, made of pieces of `sizes`, anywhere into at most 10 segments."""
    total = sum(sizes)
    cuts = sorted(draw(st.lists(st.integers(0, total), max_size=9)))
    return [end - begin for begin, end in zip([0, *cuts], [*cuts, total], strict=True)]


@given(
    data=st.data(),
    kind=st.sampled_from([RequestType.IN, RequestType.OUT]),
    place=places,
    indirect=st.booleans(),
    others=st.integers(0, 20),
    as_batch=st.booleans(),
)
@settings(max_examples=150)
def test_any_framing_of_a_request_means_the_same(data, kind, place, indirect, others, as_batch):
    """Also in a batch with requests in the usual framing, which alone would go another way."""
    first, count = place
    content = bytes(n * 37 & 0xFF for n in range(SECTORS * SECTOR))
    new = bytes(n * 11 & 0xFF for n in range(count * SECTOR))
    disk = BareDisk(memfd_disk(content), size=256)
    if as_batch:
        disk.device._take_few = disk.device._take_many
    queue = disk.queues[0]
    usual = []
    for n in range(others):
        header = disk.place(REQUEST_HEADER.build({"type": RequestType.IN, "reserved": 0, "sector": n}))
        room = disk.place(bytes(SECTOR + 1))
        queue.add([(header, 16)], [(room, SECTOR), (room + SECTOR, 1)], n)
        usual.append(room)
    header = REQUEST_HEADER.build({"type": kind, "reserved": 0, "sector": first})
    size = count * SECTOR
    readable = header if kind is RequestType.IN else header + new
    at, room = disk.place(readable), disk.place(bytes(size + 1))
    readable_sizes = data.draw(framings(16, len(readable) - 16))
    writable_sizes = data.draw(framings(*((size, 1) if kind is RequestType.IN else (1,))))
    chain = []
    for begin, sizes in ((at, readable_sizes), (room, writable_sizes)):
        chain.append([(begin + sum(sizes[:n]), length) for n, length in enumerate(sizes)])
    queue.add(*chain, 99, indirect=indirect)
    disk.transport.publish(queue)
    expected = bytearray(content)
    if kind is RequestType.OUT:
        expected[first * SECTOR : first * SECTOR + size] = new
        assert disk.memory.read(room, 1)[0] == RequestStatus.OK
    else:
        got = disk.memory.read(room, size + 1)
        assert got == content[first * SECTOR : first * SECTOR + size] + bytes([RequestStatus.OK])
    assert content_of(disk.file) == expected
    written = {used.token: used.written_size for used in iter(queue.collect, None)}
    assert written == {**dict.fromkeys(range(others), SECTOR + 1), 99: size + 1 if kind is RequestType.IN else 1}
    for n, room in enumerate(usual):
        assert disk.memory.read(room, SECTOR) == content[n * SECTOR : (n + 1) * SECTOR]
    disk.device.close()
