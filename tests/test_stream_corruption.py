"""A stream that is not as it should be: each way has its own error, which says where."""

import struct

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from migration_setup import contents, make_memory, write_pages
from stream_setup import MIGRATION, feed, flat, load, record_migration

from host_migrator.errors import (
    BadMagic,
    MalformedRecord,
    RangeOutsideRam,
    StreamError,
    Truncated,
    UnexpectedRecord,
    UnknownRecord,
    UnknownVersion,
    WrongChecksum,
    WrongTotals,
)
from host_migrator.stream import FORWARD, Complete, RamLoader, StreamParser, build_preamble, build_record
from host_migrator.stream.order import State
from spec.stream import MAX_BODY_SIZE, PREAMBLE, RecordType


def recording():
    memory = make_memory(8 * 4096)
    write_pages(memory, [0, 1, 5], 9)
    return record_migration(memory)


RECORDING = recording()


def sealed(kind, body: bytes, entry_count=0, flags=0, size=None) -> bytes:
    checksum = xxhash.xxh3_64_intdigest(body)
    header = struct.pack("<HHIIQ", kind, flags, entry_count, len(body) if size is None else size, checksum)
    return header + struct.pack("<I", xxhash.xxh32_intdigest(header)) + body


def runs(*pairs) -> bytes:
    return b"".join(struct.pack("<QQ", *pair) for pair in pairs)


def load_records(data: bytes, memory=None):
    parser = StreamParser(FORWARD, preamble=False)
    parser.state = State.MEMORY
    parser.load_into(RamLoader(memory or make_memory(8 * 4096)))
    return feed(parser, data)


@settings(max_examples=400, deadline=None)
@given(place=st.integers(0, len(RECORDING) - 1), bits=st.integers(1, 255))
def test_any_changed_byte_is_an_error(place, bits):
    damaged = bytearray(RECORDING)
    damaged[place] ^= bits
    with pytest.raises(StreamError):
        load(bytes(damaged), make_memory(8 * 4096))


@settings(max_examples=200, deadline=None)
@given(size=st.integers(1, len(RECORDING) - 1))
def test_a_stream_that_ends_anywhere_is_truncated(size):
    with pytest.raises(Truncated) as caught:
        load(RECORDING[:size], make_memory(8 * 4096), ended=True)
    assert caught.value.offset == size


def test_the_recording_itself_is_whole():
    memory = make_memory(8 * 4096)
    load(RECORDING, memory)
    assert np.flatnonzero(contents(memory)).tolist() == [7, 4096 + 7, 5 * 4096 + 7]


def test_bad_magic():
    with pytest.raises(BadMagic, match="at byte 0: b'GET / HT' is not"):
        load(b"GET / HTTP/1.1\r\n", make_memory())


@pytest.mark.parametrize("change", [{"version": 2}, {"flags": 1}])
def test_unknown_version(change):
    fields = dict(PREAMBLE.parse(build_preamble(MIGRATION)))
    fields.pop("_io", None)
    raw = PREAMBLE.build({**fields, **change})[:-4]
    with pytest.raises(UnknownVersion, match="at byte 8: version"):
        load(raw + struct.pack("<I", xxhash.xxh32_intdigest(raw)), make_memory())


def test_another_page_size():
    fields = dict(PREAMBLE.parse(build_preamble(MIGRATION)))
    fields.pop("_io", None)
    raw = PREAMBLE.build({**fields, "page_size": 65536})[:-4]
    with pytest.raises(MalformedRecord, match="65536"):
        load(raw + struct.pack("<I", xxhash.xxh32_intdigest(raw)), make_memory())


@pytest.mark.parametrize("record", [sealed(12, b""), sealed(RecordType.ROUND_END, bytes(16), flags=1)])
def test_unknown_record(record):
    with pytest.raises(UnknownRecord):
        load_records(record)


def test_unexpected_record():
    with pytest.raises(UnexpectedRecord, match="COMMIT in state memory, where only RAM_DATA"):
        load_records(sealed(RecordType.COMMIT, b""))


@pytest.mark.parametrize(
    ("address", "page_count"),
    [
        (0, 1),
        (0xF000, 1),
        (0x10000, 5),
        (0x14000, 1),
        (0x4000_4000, 1),
        (0x4000_3000, 2),
        (0x10000, 1 << 52),
        (0x10000, (1 << 64) - 1),
        ((1 << 64) - 4096, 1),
        ((1 << 64) - 4096, 2),
    ],
)
@pytest.mark.parametrize("kind", [RecordType.RAM_DATA, RecordType.ZERO_PAGES])
@pytest.mark.parametrize("beside", [[], [(0x10000, 1)]])
def test_a_range_outside_ram_is_refused_before_a_byte_is_stored(address, page_count, kind, beside):
    memory = make_memory(8 * 4096)
    table = runs(*beside, (address, page_count))
    payload = b"\xff" * 8192 if kind is RecordType.RAM_DATA else b""
    with pytest.raises(RangeOutsideRam, match=f"{address:#x}"):
        load_records(sealed(kind, table + payload, entry_count=1 + len(beside)), memory)
    assert not contents(memory).any()


@pytest.mark.parametrize(
    "record",
    [
        sealed(RecordType.RAM_DATA, b""),
        sealed(RecordType.RAM_DATA, runs((0x10000, 1)), entry_count=1),
        sealed(RecordType.RAM_DATA, runs((0x10000, 1)) + bytes(100), entry_count=1),
        sealed(RecordType.RAM_DATA, runs((0x10000, 2)) + bytes(4096), entry_count=1),
        sealed(RecordType.RAM_DATA, runs((0x10000, 0)) + bytes(4096), entry_count=1),
        sealed(RecordType.RAM_DATA, runs((0x10001, 1)) + bytes(4096), entry_count=1),
        sealed(RecordType.RAM_DATA, runs((0x10000, 1), (0x11000, 0)) + bytes(4096), entry_count=2),
        sealed(RecordType.RAM_DATA, b"", size=MAX_BODY_SIZE[RecordType.RAM_DATA] + 1),
        sealed(RecordType.RAM_DATA, b"", entry_count=0xFFFF_FFFF, size=4096),
        sealed(RecordType.ZERO_PAGES, runs((0x10000, 1)), entry_count=2),
        sealed(RecordType.ZERO_PAGES, b""),
        sealed(RecordType.ROUND_END, b"short"),
        sealed(RecordType.DEVICE, b"name", entry_count=5),
        sealed(RecordType.DEVICE, b"\xff", entry_count=1),
    ],
)
def test_a_record_that_contradicts_itself_is_malformed(record):
    with pytest.raises(MalformedRecord):
        load_records(record)


@pytest.mark.parametrize("body", [b"", b"[1]", b"{", b"\xff"])
def test_a_set_up_without_a_json_object_is_malformed(body):
    with pytest.raises(MalformedRecord, match="SET_UP"):
        load(build_preamble(MIGRATION) + sealed(RecordType.SET_UP, body), make_memory())


def test_a_damaged_header_is_found_before_its_size_is_believed():
    record = bytearray(sealed(RecordType.ROUND_END, bytes(16)))
    record[8] ^= 0x10
    with pytest.raises(WrongChecksum, match="header"):
        load_records(bytes(record[:24]))


def test_damaged_pages_are_a_wrong_checksum():
    record = bytearray(sealed(RecordType.RAM_DATA, runs((0x10000, 1)) + bytes(4096), entry_count=1))
    record[-1] ^= 1
    with pytest.raises(WrongChecksum, match="at byte 0: the body of a RAM_DATA"):
        load_records(bytes(record))


def test_a_record_that_is_missing_shows_in_the_totals():
    tail = b"".join(flat([build_record(Complete(1, 0, 0))]) for _ in range(1))
    with pytest.raises(WrongTotals, match="data_count=0"):
        load_records(sealed(RecordType.VCPU, b"") + tail)


def test_pages_before_there_is_memory_for_them():
    parser = StreamParser(FORWARD, preamble=False)
    parser.state = State.MEMORY
    with pytest.raises(UnexpectedRecord, match="memory"):
        feed(parser, sealed(RecordType.RAM_DATA, runs((0x10000, 1)) + bytes(4096), entry_count=1))


def test_an_error_says_at_which_byte_of_the_stream_it_is():
    good = sealed(RecordType.ROUND_END, bytes(16))
    with pytest.raises(UnknownRecord, match=f"at byte {len(good)}: record type 99"):
        load_records(good + sealed(99, b""))
