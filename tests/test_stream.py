"""What goes into a stream comes out of it."""

import os
import struct

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from migration_setup import contents, make_memory
from stream_setup import MIGRATION, feed, flat, load, record_migration

from host_migrator.errors import UnexpectedRecord
from host_migrator.stream import (
    BACKWARD,
    FORWARD,
    Answer,
    Commit,
    Complete,
    DeviceState,
    Failed,
    Preamble,
    Query,
    RamEncoder,
    RamLoaded,
    RamLoader,
    Ready,
    Resumed,
    RoundEnd,
    SetUp,
    StreamParser,
    VcpuState,
    Verdict,
    build_preamble,
    build_record,
)
from host_migrator.stream.order import State
from spec.stream import RECORD_HEADER, RecordType
from vdev.memory import GuestMemory, MemfdBacking, Region


def fill(memory, values):
    """Give page n the byte values[n] throughout; 0 leaves it zero."""
    for page, value in enumerate(values):
        for span, _, _ in memory.page_spans(page, page + 1):
            span[:] = value


@settings(max_examples=50, deadline=None)
@given(values=st.lists(st.sampled_from([0, 0, 7, 9]), min_size=32, max_size=32), data=st.data())
def test_any_choice_of_pages_arrives_with_its_content(values, data):
    source, target = make_memory(32 * 4096), make_memory(32 * 4096)
    fill(source, values)
    chosen = sorted(data.draw(st.sets(st.integers(0, 31))))
    items = load(record_migration(source, np.array(chosen, np.int64)), target)
    expected = np.where(np.isin(np.arange(32), chosen), values, 0)
    assert contents(target).reshape(32, 4096)[:, 17].tolist() == expected.tolist()
    nonzero = sum(values[page] != 0 for page in chosen)
    assert Complete(nonzero, len(chosen) - nonzero, 1) in items


@settings(max_examples=50, deadline=None)
@given(passes=st.lists(st.lists(st.sampled_from([0, 1, 2]), min_size=16, max_size=16), min_size=1, max_size=4))
def test_the_last_sending_of_a_page_wins_also_when_it_is_zero(passes):
    source, target = make_memory(16 * 4096), make_memory(16 * 4096)
    encoder = RamEncoder(source, 4 * 4096)
    parser = StreamParser(FORWARD, preamble=False)
    parser.state = State.MEMORY
    parser.load_into(RamLoader(target))
    for values in passes:
        fill(source, values)
        feed(parser, flat(encoder.records(np.arange(16))))
        assert np.array_equal(contents(source), contents(target))


def test_every_item_survives_the_way():
    forward = [
        SetUp(((0, 4096), (1 << 40, 8192)), {"workload": "churn", "seed": 3}),
        RoundEnd(3, 1 << 40),
        DeviceState("bällchen", b"\0\1"),
        DeviceState("empty", b""),
        VcpuState(b""),
        Complete(0, 0, 2),
        Commit(),
    ]
    parser = StreamParser(FORWARD, preamble=True)
    parser.load_into(RamLoader(make_memory()))
    assert feed(parser, build_preamble(MIGRATION) + flat(build_record(item) for item in forward)) == [
        Preamble(MIGRATION),
        *forward,
    ]
    for backward in (
        [Ready({"pages": 3}), Resumed(), Verdict({"mismatched": 0})],
        [Failed("no memory, sorry: ä")],
        [Ready({}), Failed("cannot run")],
        [Answer("running")],
    ):
        assert feed(StreamParser(BACKWARD, preamble=False), flat(build_record(item) for item in backward)) == backward
    query = StreamParser(FORWARD, preamble=True)
    assert feed(query, build_preamble(MIGRATION) + flat([build_record(Query())])) == [Preamble(MIGRATION), Query()]


def test_a_preamble_is_no_record():
    with pytest.raises(TypeError, match="Preamble"):
        build_record(Preamble(MIGRATION))


def test_one_contiguous_run_is_received_straight_into_guest_ram():
    source, target = make_memory(64 * 4096), make_memory(64 * 4096)
    fill(source, [5] * 64)
    (record,) = RamEncoder(source, 8 * 4096).records(np.arange(8, 16))
    parser = StreamParser(FORWARD, preamble=False)
    parser.state = State.MEMORY
    parser.load_into(RamLoader(target))
    for part in (record[0], record[1]):
        parser.wanted()[:] = part
        parser.received()
    payload = parser.wanted()
    assert payload.nbytes == 8 * 4096
    payload[0] = 77
    assert target.read(target.address_of(8), 1) == b"\x4d"


def test_a_page_that_changes_after_its_snapshot_does_not_break_its_checksum():
    source, target = make_memory(16 * 4096), make_memory(16 * 4096)
    fill(source, [5] * 16)
    parser = StreamParser(FORWARD, preamble=False)
    parser.state = State.MEMORY
    parser.load_into(RamLoader(target))
    for record in RamEncoder(source, 4 * 4096).records(np.arange(16)):
        fill(source, [6] * 16)
        feed(parser, b"".join(record))
    assert target.read(target.address_of(0), 1) == b"\x05"
    assert target.read(target.address_of(15), 1) == b"\x06"


def test_runs_of_pages_share_one_record_and_zero_pages_are_ranges():
    source = make_memory(256 * 4096)
    fill(source, [1] * 8 + [0] * 100 + [1, 0] * 4 + [0] * 140)
    encoder = RamEncoder(source, 8 * 4096, keep_runs=True)
    records = list(map(list, encoder.records(np.arange(256))))
    headers = [RECORD_HEADER.parse(record[0]) for record in records]
    assert [(RecordType(header.type).name, header.entry_count) for header in headers] == [
        ("RAM_DATA", 1),
        ("RAM_DATA", 2),
        ("RAM_DATA", 2),
        ("ZERO_PAGES", 6),
    ]
    assert sum(len(flat([record])) for record in records) < 13 * 4096
    assert encoder.runs[0] == (0, 8, "data")
    assert (8, 100, "zero") in encoder.runs
    assert encoder.data_count == 12
    assert encoder.zero_count == 244


def test_a_hole_of_a_memfd_is_sent_as_zero_without_allocating_it():
    backing = MemfdBacking(1 << 20)
    memory = GuestMemory([Region(0, backing)])
    backing.data[64 * 4096] = 1
    resident = backing.resident_size()
    encoder = RamEncoder(memory, 16 * 4096)
    for _ in encoder.records(np.arange(256)):
        pass
    assert (encoder.data_count, encoder.zero_count) == (1, 255)
    assert backing.resident_size() <= resident + 16 * 4096
    backing.close()


def test_zero_ranges_do_not_allocate_what_was_never_loaded():
    source = GuestMemory.private(1 << 20)
    backing = MemfdBacking(1 << 20)
    target = GuestMemory([Region(0, backing)])
    source.write(3 * 4096, b"x")
    load(record_migration(source), target)
    assert backing.resident_size() == 4096
    backing.close()


def test_the_destination_can_watch_runs_arrive():
    source, target = make_memory(32 * 4096), make_memory(32 * 4096)
    fill(source, [1] * 4 + [0] * 28)
    parser = StreamParser(FORWARD, preamble=False)
    parser.state = State.MEMORY
    places = []
    parser.load_into(RamLoader(target, keep_runs=True, advanced=lambda *place: places.append(place)))
    items = feed(parser, flat(RamEncoder(source, 8 * 4096).records(np.arange(32))))
    assert items == [RamLoaded(((0, 4, "data"),)), RamLoaded(((4, 12, "zero"), (16, 16, "zero")))]
    assert places == [(4, 4)]


@pytest.mark.parametrize("order", [FORWARD, BACKWARD])
def test_every_record_out_of_its_place_is_named(order):
    for state, following in order.items():
        for kind in RecordType:
            if kind in following:
                continue
            parser = StreamParser(order, preamble=False)
            parser.state = state
            header = struct.pack("<HHIIQ", kind, 0, 0, 0, xxhash.xxh3_64_intdigest(b""))
            with pytest.raises(UnexpectedRecord, match=f"{kind.name} in state {state}"):
                feed(parser, header + struct.pack("<I", xxhash.xxh32_intdigest(header)))


def test_every_state_of_the_tables_can_be_reached():
    for order in (FORWARD, BACKWARD):
        reached = {State.START}
        for _ in order:
            reached |= {following for state in reached for following in order[state].values()}
        assert reached == set(order)


def test_file_offsets_of_the_shared_memory_are_its_own_business():
    backing = MemfdBacking(1 << 20)
    memory = GuestMemory([Region(0, backing)])
    os.lseek(backing.fd, 5000, os.SEEK_SET)
    memory.write(0, b"x")
    encoder = RamEncoder(memory)
    assert sum(1 for _ in encoder.records(np.arange(256))) == 2
    backing.close()
