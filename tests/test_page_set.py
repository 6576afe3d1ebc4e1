"""The page set against a plain Python set."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from host_migrator.page_set import PageSet
from vdev.memory import PageRanges

SIZES = st.integers(1, 400)


class PageSetAgainstASet(RuleBasedStateMachine):
    """Any order of operations leaves both with the same pages and the same answers."""

    def __init__(self):
        super().__init__()
        self.fast = None

    @precondition(lambda self: self.fast is None)
    @rule(page_count=SIZES, full=st.booleans())
    def create(self, page_count, full):
        self.page_count = page_count
        self.fast = PageSet(page_count)
        self.naive = set(range(page_count)) if full else set()
        if full:
            self.fast.fill()

    def _ranges(self, data):
        pages = st.integers(0, self.page_count)
        pairs = data.draw(st.lists(st.tuples(pages, pages), max_size=8))
        ranges = PageRanges.of(*((min(pair), max(pair)) for pair in pairs))
        return ranges, set(ranges.to_pages().tolist())

    @precondition(lambda self: self.fast is not None)
    @rule(data=st.data())
    def add(self, data):
        ranges, pages = self._ranges(data)
        assert self.fast.add_ranges(ranges) == len(pages - self.naive)
        self.naive |= pages

    @precondition(lambda self: self.fast is not None)
    @rule(data=st.data())
    def remove(self, data):
        ranges, pages = self._ranges(data)
        assert self.fast.remove_ranges(ranges) == len(pages & self.naive)
        self.naive -= pages

    @precondition(lambda self: self.fast is not None)
    @rule(data=st.data())
    def take_window(self, data):
        cursor, limit = data.draw(st.integers(0, self.page_count)), data.draw(st.integers(1, 100))
        pages, following = self.fast.take_window(cursor, limit)
        expected = sorted(page for page in self.naive if page >= cursor)[:limit]
        assert pages.tolist() == expected
        self.naive -= set(expected)
        assert cursor <= following <= self.page_count
        assert not any(cursor <= page < following for page in self.naive)

    @precondition(lambda self: self.fast is not None)
    @rule(data=st.data())
    def members_between(self, data):
        first, end = sorted(data.draw(st.tuples(*[st.integers(0, self.page_count)] * 2)))
        assert self.fast.members_between(first, end).tolist() == sorted(p for p in self.naive if first <= p < end)

    @invariant()
    def same_pages_and_the_count_is_the_number_of_bits(self):
        if self.fast is not None:
            assert self.fast.count == len(self.naive) == int(np.bitwise_count(self.fast.words).sum())
            assert all((page in self.fast) == (page in self.naive) for page in range(-1, self.page_count + 1))


TestPageSetAgainstASet = PageSetAgainstASet.TestCase


@given(first=st.integers(0, 300_000), size=st.integers(1, 300_000), fill=st.booleans())
def test_a_long_range_changes_what_a_count_says(first, size, fill):
    pages = PageSet(600_000)
    if fill:
        pages.fill()
    other = PageRanges.of((first, first + size), (first + 1, first + 1))  # two ranges: the way with arrays
    one = PageRanges.of((first, first + size))
    assert (pages.remove_ranges if fill else pages.add_ranges)(other) == size
    assert (pages.add_ranges if fill else pages.remove_ranges)(one) == size
    assert pages.count == (600_000 if fill else 0)


@pytest.mark.parametrize("ranges", [[(-1, 3)], [(5, 101)], [(-1, 3), (5, 6)], [(0, 1), (100, 101)]])
def test_a_page_that_does_not_exist_is_refused(ranges):
    pages = PageSet(100)
    with pytest.raises(IndexError, match="of 100"):
        pages.add_ranges(PageRanges.of(*ranges))
    assert pages.count == 0


def test_a_guest_of_one_tebibyte_takes_32_mebibytes():
    assert PageSet((1 << 40) >> 12).words.nbytes == 32 << 20


def test_merging_a_log_counts_what_the_log_had_and_keeps_the_union():
    pages = PageSet(100)
    pages.add_ranges(PageRanges.of((0, 10)))
    assert pages.merge([PageRanges.of((5, 15)), PageRanges.of((90, 91))]) == 11
    assert pages.count == 16
