"""The dirty log that is cleared later: held against a naive model, and the write that it forgets."""

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from host_migrator.dirty_log import CooperativeDirtyLog, DeferredClearLog
from vdev.memory import PageMarks, PageRanges


def taken(log) -> list[int]:
    return sorted(page for ranges in log.take() for page in ranges.to_pages().tolist())


class DeferredClear(RuleBasedStateMachine):
    """The log beside two sets of pages and a loop."""

    @initialize(page_count=st.integers(1, 40), chunk=st.sampled_from([1, 2, 4, 16, 64]))
    def start(self, page_count, chunk):
        self.page_count, self.chunk = page_count, chunk
        self.marks = PageMarks(page_count)
        self.log = DeferredClearLog(self.marks, chunk)
        self.log.start()
        self.dirty, self.seen = set(range(page_count)), set()

    @rule(data=st.data())
    def write(self, data):
        page = data.draw(st.integers(0, self.page_count - 1))
        self.marks.mark(page, page + 1)
        self.dirty.add(page)

    @rule()
    def take(self):
        self.seen = set(self.dirty)
        assert taken(self.log) == sorted(self.dirty)

    @rule(data=st.data())
    def clear(self, data):
        pairs = st.tuples(st.integers(0, self.page_count), st.integers(0, self.page_count)).map(sorted)
        ranges = data.draw(st.lists(pairs, max_size=4))
        self.log.clear(PageRanges.of(*ranges))
        for first, end in ranges:
            for page in range(first, end):
                for other in list(self.seen):
                    if other // self.chunk == page // self.chunk:
                        self.seen.discard(other)
                        self.dirty.discard(other)

    @invariant()
    def marks_and_memory_are_as_the_model_has_them(self):
        if hasattr(self, "marks"):
            assert np.flatnonzero(self.marks.marks).tolist() == sorted(self.dirty)
            assert np.flatnonzero(self.log.seen).tolist() == sorted(self.seen)


TestDeferredClear = DeferredClear.TestCase


def test_a_write_between_two_clears_of_a_chunk_is_kept():
    marks = PageMarks(8)
    log = DeferredClearLog(marks, chunk_pages=8)
    log.start()
    taken(log)
    log.clear(PageRanges.of((3, 4)))
    marks.mark(5, 6)
    log.clear(PageRanges.of((6, 7)))
    assert taken(log) == [5]


def test_a_write_between_take_and_clear_leaves_no_record_of_its_own():
    marks = PageMarks(2)
    log = DeferredClearLog(marks, chunk_pages=1)
    log.start()
    taken(log)
    marks.mark(0, 1)
    log.clear(PageRanges.of((0, 1)))
    assert taken(log) == [1], "so whoever clears has to read the page afterwards"


def test_a_log_that_gets_and_clears_is_asked_to_clear_nothing():
    marks = PageMarks(4)
    log = CooperativeDirtyLog(marks)
    marks.mark(0, 4)
    assert not log.deferred
    log.clear(PageRanges.of((0, 4)))
    assert taken(log) == [0, 1, 2, 3]


@pytest.mark.parametrize("size", [0, 3, -4])
def test_a_chunk_is_a_power_of_two(size):
    with pytest.raises(ValueError, match="power of two"):
        DeferredClearLog(PageMarks(8), size)
