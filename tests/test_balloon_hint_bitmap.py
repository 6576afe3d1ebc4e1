"""An answer as a bitmap of all of RAM: what a guest says, and what a hostile one may not (HintAnswer.BITMAP)."""

import numpy as np
import pytest
from device_setup import BareBalloon, Guest, of_type
from guest_setup import ODD_REGIONS, memory_of
from hypothesis import given
from hypothesis import strategies as st

from guest_agent.drivers.balloon.area import BalloonArea
from guest_agent.drivers.balloon.free_bitmap import FreeBitmap
from guest_agent.page_database import Blocks, Owner
from spec.balloon import HINT_BITMAP_HEADER, HINT_REQUEST, BalloonQueue, HintAnswer
from vdev.devices.balloon import HintState
from vdev.devices.balloon.hint_bitmap import read_hint_bitmap
from vdev.errors import DriverViolation, UserError
from vdev.events import HintApplied, HintRefused
from vdev.memory import PageRanges
from vdev.virtqueue.chain import Chain, Segment

HINTS = BalloonQueue.FREE_PAGE
PAGES = 4096
SIZE = PAGES // 8


def answer(*pages, page_count=PAGES, **header):
    mask = np.zeros(-(-page_count // 8) * 8, bool)
    mask[list(pages)] = True
    bits = np.packbits(mask, bitorder="little").tobytes()
    return HINT_BITMAP_HEADER.build({"count": len(set(pages)), "size": len(bits), **header}) + bits


def asked(*, listen=True):
    """A device that asked for a bitmap, and got its id back."""
    bare = BareBalloon(hint_answer=HintAnswer.BITMAP, listen=listen)
    buffer = bare.buffer(bytes(HINT_REQUEST.sizeof()))
    bare.send(HINTS, writable=[buffer])
    command_id = bare.device.hinting.request()
    (used,) = [bare.queues[HINTS].collect()]
    assert used.written_size == HINT_REQUEST.sizeof()
    assert HINT_REQUEST.parse(bare.memory.read(*buffer)).id == command_id
    bare.echo(command_id)
    return bare


@pytest.mark.usefixtures("each_ring")
class TestDevice:
    def test_the_pages_of_a_bitmap_are_hints(self):
        bare = asked()
        bare.send(HINTS, answer(1, 2, 3, 77, 4095))
        bare.send(HINTS, bytes(4))
        assert bare.pages == [1, 2, 3, 77, 4095]
        assert bare.device.hinting.state is HintState.STOP
        assert bare.hints.ends == 1
        (event,) = of_type(bare.seen, HintApplied)
        assert (event.page_count, event.cleared_count) == (5, 5)

    def test_a_bitmap_in_parts_is_one_bitmap(self):
        bare = asked(listen=False)
        whole = answer(0, 8, 4000)
        bare.send(HINTS, whole[:10], whole[10:100], whole[100:])
        assert bare.pages == [0, 8, 4000]

    def test_a_bitmap_that_nobody_asked_for_is_checked_and_ignored(self):
        bare = asked()
        bare.device.hinting.stop()
        bare.send(HINTS, answer(5))
        assert bare.pages == []
        assert bare.device.hinting.refused_count == len(of_type(bare.seen, HintRefused)) == 1
        assert not bare.is_broken

    def test_a_request_waits_for_the_guests_buffer(self):
        bare = BareBalloon(hint_answer=HintAnswer.BITMAP)
        command_id = bare.device.hinting.request()
        buffer = bare.buffer(bytes(8))
        bare.send(HINTS, writable=[buffer])
        assert HINT_REQUEST.parse(bare.memory.read(*buffer)).id == command_id

    def test_a_request_that_was_withdrawn_is_not_made(self):
        bare = BareBalloon(hint_answer=HintAnswer.BITMAP)
        bare.device.hinting.request()
        bare.device.hinting.done()
        bare.send(HINTS, writable=[bare.buffer(bytes(8))])
        assert bare.queues[HINTS].collect() is None

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (bytes(5), "5 bytes ends within its header"),
            (bytes(15), "15 bytes ends within its header"),
            (bytes(16), "an answer of 16 bytes; 528 are"),
            (answer(1)[:-1], "an answer of 527 bytes"),
            (answer(1) + b"\0", "an answer of 529 bytes"),
            (answer(1, size=SIZE - 1), "calls itself 511 bytes"),
            (answer(1, size=1 << 63), "calls itself 9223372036854775808 bytes"),
            (answer(1, count=2), "says it has 2 bits set, and has 1"),
            (answer(1, count=(1 << 64) - 1), "says it has 18446744073709551615 bits"),
        ],
    )
    def test_a_bitmap_that_is_none_is_the_drivers_fault(self, content, message):
        bare = asked()
        bare.send(HINTS, content)
        assert bare.is_broken
        assert message in bare.device.violation.message
        assert bare.pages == []

    @pytest.mark.parametrize("size", [1, 7])
    def test_a_buffer_too_small_for_a_request_is_the_drivers_fault(self, size):
        bare = BareBalloon(hint_answer=HintAnswer.BITMAP)
        bare.send(HINTS, writable=[bare.buffer(bytes(size))])
        assert "not 8 writable bytes" in bare.device.violation.message

    def test_a_second_buffer_for_requests_is_the_drivers_fault(self):
        bare = BareBalloon(hint_answer=HintAnswer.BITMAP)
        for _ in range(2):
            bare.send(HINTS, writable=[bare.buffer(bytes(8))])
        assert "second buffer" in bare.device.violation.message


@given(st.integers(1, 200), st.data())
def test_a_bitmap_is_read_as_a_naive_reader_would(page_count, data):
    memory = memory_of((0, page_count))
    size = -(-page_count // 8)
    bits = data.draw(st.binary(min_size=size, max_size=size))
    pages = [page for page in range(8 * size) if bits[page // 8] >> page % 8 & 1]
    count = data.draw(st.sampled_from([len(pages), len(pages) + 1]))
    content = HINT_BITMAP_HEADER.build({"count": count, "size": size}) + bits
    memory.write(0, content)
    chain = Chain(0, (Segment(0, len(content)),), ())
    if count != len(pages) or any(page >= page_count for page in pages):
        with pytest.raises(DriverViolation):
            read_hint_bitmap(memory, chain, 3)
    else:
        ranges = read_hint_bitmap(memory, chain, 3)
        assert ranges.to_pages().tolist() == pages
        assert (ranges.first[1:] > ranges.end[:-1]).all()


@given(st.binary(min_size=1, max_size=600))
def test_bytes_that_no_guest_made_are_a_violation(content):
    memory = memory_of((0, 4000))
    memory.write(0, content)
    # Only with the size of all of RAM in its header could it be one.
    with pytest.raises(DriverViolation, match="queue 3"):
        read_hint_bitmap(memory, Chain(0, (Segment(0, len(content)),), ()), 3)


def test_runs_that_cross_the_edge_of_what_is_unpacked_at_a_time_stay_whole(monkeypatch):
    monkeypatch.setattr("vdev.devices.balloon.hint_bitmap._PIECE", 2)
    memory = memory_of((0, 100))
    content = answer(*range(10, 60), 63, 64, 99, page_count=100)
    memory.write(0, content)
    ranges = read_hint_bitmap(memory, Chain(0, (Segment(0, len(content)),), ()), 3)
    expected = PageRanges.of((10, 60), (63, 65), (99, 100))
    assert (ranges.first.tolist(), ranges.end.tolist()) == (expected.first.tolist(), expected.end.tolist())


class TestGuest:
    """What the guest stores is what the device reads."""

    def buffers(self, memory, monkeypatch, order=None):
        if order is not None:
            monkeypatch.setattr("guest_agent.drivers.balloon.free_bitmap.MAX_ORDER", order)
        guest = Guest(memory=memory)
        area = BalloonArea.create(memory, guest.area_address, 128)
        return guest, FreeBitmap.create(area, guest.allocator), area

    @pytest.mark.parametrize("order", [None, 0])
    def test_in_ram_of_odd_regions_and_in_several_parts(self, monkeypatch, order):
        memory = memory_of(*ODD_REGIONS, (0x2_0000_0000, 40_000))
        guest, bitmap, area = self.buffers(memory, monkeypatch, order)
        assert len(bitmap.segments) == (2 if order == 0 else 1)
        blocks = guest.allocator.blocks_of(Owner.FREE)
        count = bitmap.fill(blocks)
        chain = Chain(0, tuple(Segment(*part) for part in bitmap.segments), ())
        ranges = read_hint_bitmap(memory, chain, 3)
        assert ranges.page_count == count == guest.allocator.free_page_count
        assert set(ranges.to_pages().tolist()) == set(bitmap.pages().tolist())
        marks = memory.page_marks.marks
        assert all(marks[memory.page_of(address)] for address, _ in bitmap.segments)
        assert FreeBitmap(area).segments == bitmap.segments

    def test_nothing_free_is_an_answer_too(self, monkeypatch):
        memory = memory_of((0, 3000))
        _, bitmap, _ = self.buffers(memory, monkeypatch)
        assert bitmap.fill(Blocks(np.empty(0, np.int64), np.empty(0, np.int64))) == 0
        chain = Chain(0, tuple(Segment(*part) for part in bitmap.segments), ())
        assert read_hint_bitmap(memory, chain, 3).page_count == 0

    def test_ram_without_room_for_the_bitmap_is_refused_by_name(self, monkeypatch):
        guest = Guest(memory=memory_of((0, 3000)))
        area = BalloonArea.create(guest.memory, guest.area_address, 128)
        guest.allocator.allocate_pages(10**6, Owner.WORKLOAD)
        with pytest.raises(UserError, match="no 1 times 4096 bytes for a bitmap"):
            FreeBitmap.create(area, guest.allocator)

    def test_ram_too_large_for_a_bitmap_is_refused_by_name(self, monkeypatch):
        guest = Guest(memory=memory_of((0, 3000)))
        area = BalloonArea.create(guest.memory, guest.area_address, 128)
        monkeypatch.setattr("guest_agent.drivers.balloon.free_bitmap.MAX_BITMAP_BLOCKS", 0)
        with pytest.raises(UserError, match="use the list of blocks"):
            FreeBitmap.create(area, guest.allocator)
