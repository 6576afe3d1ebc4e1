"""The cooperative dirty log: marks are seen once, and none is lost."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_migrator.dirty_log import CooperativeDirtyLog
from host_migrator.page_set import PageSet
from vdev.memory import GuestMemory, PageMarks


def taken(log) -> list[int]:
    return sorted(page for ranges in log.take() for page in ranges.to_pages().tolist())


@given(page_count=st.integers(1, 3000), data=st.data())
def test_each_mark_is_taken_once(page_count, data):
    pages = data.draw(st.sets(st.integers(0, page_count - 1), max_size=40))
    marks = PageMarks(page_count)
    log = CooperativeDirtyLog(marks)
    marks.mark_pages(np.array(sorted(pages), np.int64))
    assert taken(log) == sorted(pages)
    assert taken(log) == []
    assert not marks.marks.any()


@pytest.mark.parametrize("page_count", [1, 511, 512, 513, 512 * 513 + 5])
def test_a_map_that_is_all_dirty_comes_whole(page_count):
    marks = PageMarks(page_count)
    marks.mark(0, page_count)
    pages = PageSet(page_count)
    assert pages.merge(CooperativeDirtyLog(marks).take()) == page_count
    assert pages.count == page_count


def test_marks_from_before_the_start_are_forgotten():
    marks = PageMarks(100)
    marks.mark(3, 9)
    log = CooperativeDirtyLog(marks)
    log.start()
    assert taken(log) == []


def test_a_mark_set_between_two_parts_belongs_to_this_take_or_the_next():
    marks = PageMarks(512 * 600)
    log = CooperativeDirtyLog(marks)
    marks.mark(0, 512 * 600)
    parts = log.take()
    next(parts)
    marks.mark(5, 6)
    for _ in parts:
        pass
    assert taken(log) == [5]


def test_a_write_through_guest_memory_is_in_the_log():
    memory = GuestMemory.private(1 << 20)
    memory.page_marks = PageMarks(memory.page_count)
    log = CooperativeDirtyLog(memory.page_marks)
    log.start()
    memory.write(0x2FFF, b"ab")
    assert taken(log) == [2, 3]
