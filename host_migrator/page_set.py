"""A set of page numbers as a bitmap with an exact count: the pages still to send, the pages ever sent."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from vdev.memory import PageRanges

__all__ = ["PageSet"]

_ALL = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
_SCAN_WORDS = 4096
_LONG_WORDS = 1024
"""Words inside one range from which on a slice is cheaper than a list of indices."""

Words = npt.NDArray[np.uint64]


class PageSet:
    """Pages from 0 to `page_count`, one bit each, in words of 64; 32 MiB for a guest of 1 TiB.

    `count` equals the number of bits set, after every operation.

    >>> pages = PageSet(1000)
    >>> pages.fill()
    >>> pages.remove_ranges(PageRanges.of((0, 10), (5, 20)))
    20
    >>> pages.count, 19 in pages, 20 in pages
    (980, False, True)
    """

    def __init__(self, page_count: int) -> None:
        self.page_count = page_count
        self.words: Words = np.zeros(-(-page_count // 64), np.uint64)
        self.count = 0

    def fill(self) -> None:
        """Put every page in."""
        self.words[:] = _ALL
        if self.page_count % 64:
            self.words[-1] = (1 << self.page_count % 64) - 1
        self.count = self.page_count

    def __contains__(self, page: int) -> bool:
        return 0 <= page < self.page_count and bool(int(self.words[page >> 6]) >> (page & 63) & 1)

    def __len__(self) -> int:
        return self.count

    def add_ranges(self, ranges: PageRanges) -> int:
        """Put the pages of `ranges` in; they may overlap, be empty, and come in any order.

        Returns how many were not in before. Raises IndexError for a page that does not exist.
        """
        changed = self._change(ranges, present=True)
        self.count += changed
        return changed

    def add_range(self, first: int, end: int) -> int:
        """Put in the pages from `first` up to but not including `end`: `add_ranges` for one range."""
        changed = self._change_one(first, end, present=True)
        self.count += changed
        return changed

    def remove_ranges(self, ranges: PageRanges) -> int:
        """Take the pages of `ranges` out; returns how many were in. Otherwise as `add_ranges`."""
        changed = self._change(ranges, present=False)
        self.count -= changed
        return changed

    def merge(self, dirty: Iterable[PageRanges]) -> int:
        """Put in what a dirty log has, part by part; returns how many pages the log had."""
        dirty_count = 0
        for ranges in dirty:
            dirty_count += ranges.page_count
            self.add_ranges(ranges)
        return dirty_count

    def members_between(self, first: int, end: int) -> npt.NDArray[np.int64]:
        """Return the pages in the set from `first` up to but not including `end`, in order."""
        base = first >> 6
        words = self.words[base : -(-end // 64)]
        present = np.flatnonzero(words)
        bits = np.flatnonzero(_bits_of(words[present]))
        pages: npt.NDArray[np.int64] = ((present[bits >> 6] + base) << 6) + (bits & 63)
        return pages[(pages >= first) & (pages < end)]

    def first_from(self, cursor: int) -> int | None:
        """Return the first page in the set from page `cursor` on, None when there is none."""
        word = cursor >> 6
        if not self.count or word >= len(self.words):
            return None
        if rest := int(self.words[word]) >> (cursor & 63):
            return cursor + (rest & -rest).bit_length() - 1
        word += 1
        while word < len(self.words):
            block = self.words[word : word + _SCAN_WORDS]
            if bits := int(block[offset := int((block != 0).argmax())]):
                return ((word + offset) << 6) + (bits & -bits).bit_length() - 1
            word += len(block)
        return None

    def take_window(self, cursor: int, limit: int) -> tuple[npt.NDArray[np.int64], int]:
        """Take out up to `limit` pages from page `cursor` on, in order.

        Returns them and the cursor to go on from, which is `page_count` when nothing is left behind it.
        """
        taken: list[npt.NDArray[np.int64]] = []
        while limit > 0 and cursor < self.page_count:
            word = cursor >> 6
            block = self.words[word : word + _SCAN_WORDS]
            present = np.flatnonzero(block)
            if cursor & 63 and len(present) and present[0] == 0:
                pages, cursor = self._take_inside_word(cursor, limit)
            elif len(present):
                pages, cursor = self._take_words(word, block, present, limit)
            else:
                cursor = (word + len(block)) << 6
                continue
            taken.append(pages)
            limit -= len(pages)
        pages = np.concatenate(taken) if taken else np.empty(0, np.int64)
        self.count -= len(pages)
        return pages, min(cursor, self.page_count)

    def _take_inside_word(self, cursor: int, limit: int) -> tuple[npt.NDArray[np.int64], int]:
        word = int(self.words[cursor >> 6])
        bits = [bit for bit in range(cursor & 63, 64) if word >> bit & 1][:limit]
        for bit in bits:
            word &= ~(1 << bit)
        self.words[cursor >> 6] = word
        base = cursor & ~63
        next_cursor = base + (bits[-1] + 1 if len(bits) == limit else 64)
        return np.array(bits, np.int64) + base, next_cursor

    @staticmethod
    def _take_words(
        first_word: int, block: Words, present: npt.NDArray[np.intp], limit: int
    ) -> tuple[npt.NDArray[np.int64], int]:
        # Only as many words as hold `limit` pages are taken apart.
        totals = np.cumsum(np.bitwise_count(block[present]), dtype=np.int64)
        chosen = present[: int(np.searchsorted(totals, limit)) + 1]
        found = np.flatnonzero(_bits_of(block[chosen]))[:limit]
        pages = ((chosen[found >> 6] + first_word) << 6) + (found & 63)
        if len(found) < limit:
            block[chosen] = 0
            return pages, (first_word + len(block)) << 6
        block[chosen[:-1]] = 0
        last_bit = int(found[-1]) & 63
        block[chosen[-1]] &= np.uint64((int(_ALL) << (last_bit + 1)) & int(_ALL))
        return pages, int(pages[-1]) + 1

    def _change(self, ranges: PageRanges, *, present: bool) -> int:
        if len(ranges.first) == 1:
            return self._change_one(int(ranges.first[0]), int(ranges.end[0]), present=present)
        first, end = self._disjoint(ranges)
        if not len(first):
            return 0
        head, tail = first >> 6, (end - 1) >> 6
        head_mask = _ALL << (first & 63).astype(np.uint64)
        tail_mask = _ALL >> (63 - ((end - 1) & 63)).astype(np.uint64)
        one_word = head == tail
        head_mask[one_word] &= tail_mask[one_word]
        several = ~one_word
        index = np.concatenate((head, tail[several]))
        mask = np.concatenate((head_mask, tail_mask[several]))
        changed = self._change_words(*_combined(index, mask), present=present)

        inner_first, inner_size = head + 1, tail - head - 1
        long = inner_size >= _LONG_WORDS
        short = (inner_size > 0) & ~long
        if short.any():
            inner = PageRanges(inner_first[short], inner_first[short] + inner_size[short]).to_pages()
            changed += self._fill_words(inner, present=present)
        for start, size in zip(inner_first[long].tolist(), inner_size[long].tolist(), strict=True):
            changed += self._fill_words(slice(start, start + size), present=present)
        return changed

    def _change_one(self, first: int, end: int, *, present: bool) -> int:
        # A single range, as one hint or one record has, is four times as quick without arrays.
        if first >= end:
            return 0
        if first < 0 or end > self.page_count:
            raise IndexError(f"pages {first} to {end} of {self.page_count}")
        head, tail = first >> 6, (end - 1) >> 6
        head_mask, tail_mask = -1 << (first & 63), (2 << ((end - 1) & 63)) - 1
        if head == tail:
            return self._change_word(head, head_mask & tail_mask, present=present)
        changed = self._change_word(head, head_mask & int(_ALL), present=present)
        changed += self._change_word(tail, tail_mask, present=present)
        return changed + (self._fill_words(slice(head + 1, tail), present=present) if tail - head > 1 else 0)

    def _change_word(self, index: int, mask: int, *, present: bool) -> int:
        before = int(self.words[index])
        after = before | mask if present else before & ~mask
        self.words[index] = after
        return (before ^ after).bit_count()

    def _disjoint(self, ranges: PageRanges) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        first, end = ranges
        filled = end > first
        if not filled.all():
            first, end = first[filled], end[filled]
        if not len(first):
            return first, end
        if int(first.min()) < 0 or int(end.max()) > self.page_count:
            raise IndexError(f"pages {int(first.min())} to {int(end.max())} of {self.page_count}")
        if len(first) > 1 and not (first[1:] >= end[:-1]).all():
            order = np.argsort(first, kind="stable")
            first, end = first[order], np.maximum.accumulate(end[order])
            opens = np.concatenate(([True], first[1:] > end[:-1]))
            first, end = first[opens], end[np.concatenate((opens[1:], [True]))]
        return first, end

    def _change_words(self, index: npt.NDArray[np.int64], mask: Words, *, present: bool) -> int:
        before = self.words[index]
        after = before | mask if present else before & ~mask
        self.words[index] = after
        return int(np.bitwise_count(before ^ after).sum())

    def _fill_words(self, where: slice | npt.NDArray[np.int64], *, present: bool) -> int:
        words = self.words[where]
        present_count = int(np.bitwise_count(words).sum())
        changed = words.size * 64 - present_count if present else present_count
        self.words[where] = _ALL if present else 0
        return changed


def _bits_of(words: Words) -> npt.NDArray[np.uint8]:
    return np.unpackbits(words.astype("<u8", copy=False).view(np.uint8), bitorder="little")


def _combined(index: npt.NDArray[np.int64], mask: Words) -> tuple[npt.NDArray[np.int64], Words]:
    # Ranges that share a word: one entry per word, so that a scatter loses no bit.
    order = np.argsort(index, kind="stable")
    index, mask = index[order], mask[order]
    starts = np.flatnonzero(np.concatenate(([True], index[1:] != index[:-1])))
    return index[starts], np.bitwise_or.reduceat(mask, starts)
