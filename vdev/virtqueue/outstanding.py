"""Which buffers the device has taken and not given back, and in which order it took them.

With IN_ORDER it must give them back in that order, and may then pass over some of them: a buffer that is passed over
counts as read or written completely ("In-order use of descriptors", in both formats).
"""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["Outstanding"]

_UNKNOWN_SIZE = (1 << 64) - 1

Heads = npt.NDArray[np.int64]


class Outstanding:
    """The outstanding buffers of a queue of `size` descriptors, named by their heads (or buffer ids).

    `in_order` says whether IN_ORDER was negotiated. `flags` has 1 at each outstanding head; `descriptor_counts` has
    what `take` was told.
    """

    def __init__(self, number: int, size: int, *, in_order: bool) -> None:
        self._number = number
        self._size = size
        self.in_order = in_order
        # Seen twice: by Python for one head, by numpy for many.
        self._flag_bytes = bytearray(size)
        self.flags = np.frombuffer(self._flag_bytes, np.uint8)
        self.descriptor_counts = np.zeros(size, np.int64)
        self._count_words = self.descriptor_counts.data
        self._writable_sizes = np.zeros(size, np.uint64)
        self._writable_size_words = self._writable_sizes.data
        # Each taken buffer has the next number.
        self._numbers = np.zeros(size, np.int64)
        self._number_words = self._numbers.data
        self._next_number = 0
        self._seen_at = np.empty(size, np.int64)
        self.count = 0
        """Outstanding buffers."""

    def __contains__(self, head: int) -> bool:
        return 0 <= head < self._size and bool(self._flag_bytes[head])

    def can_take(self, heads: Heads) -> npt.NDArray[np.bool_]:
        """Say for each head, all below the size, whether it is free and the first of its kind in `heads`."""
        return np.equal(self.flags[heads], 0) & self._is_first(heads)

    # Taken

    def take(self, head: int, writable_size: int, descriptor_count: int = 1) -> None:
        """Note that the device took a buffer of so many writable bytes."""
        self._flag_bytes[head] = 1
        self._count_words[head] = descriptor_count
        self._number_words[head] = self._next_number
        self._next_number += 1
        self.count += 1
        if self.in_order:
            self._writable_size_words[head] = writable_size

    def take_many(
        self, heads: Heads, writable_sizes: npt.NDArray[np.uint64] | None, descriptor_counts: Heads | int = 1
    ) -> None:
        """Note that the device took buffers; `writable_sizes` is needed with IN_ORDER only."""
        count = len(heads)
        self.flags[heads] = 1
        self.descriptor_counts[heads] = descriptor_counts
        self._numbers[heads] = np.arange(self._next_number, self._next_number + count)
        self._next_number += count
        self.count += count
        if writable_sizes is not None:
            self._writable_sizes[heads] = writable_sizes

    # Given back

    def check(self, head: int) -> None:
        """Raise ValueError if the device may not give this buffer back now."""
        if head not in self:
            raise ValueError(f"queue {self._number}: head {head} is not outstanding")
        if self.in_order and self._number_words[head] != self._next_number - self.count:
            raise ValueError(f"queue {self._number}: head {head} is not the oldest, and IN_ORDER was negotiated")

    def check_many(self, heads: Heads, written_sizes: npt.NDArray[np.int64]) -> None:
        """Raise ValueError if the device may not give these buffers back now, with so many bytes written."""
        count = len(heads)
        if count != len(written_sizes):
            raise ValueError(f"queue {self._number}: {count} heads and {len(written_sizes)} written sizes")
        if not count:
            return
        if heads.min() < 0 or heads.max() >= self._size or not self.flags[heads].all():
            raise ValueError(f"queue {self._number}: a head that is not outstanding")
        if not self._is_first(heads).all():
            raise ValueError(f"queue {self._number}: a head twice")
        if written_sizes.min() < 0 or written_sizes.max() > 0xFFFF_FFFF:
            raise ValueError(f"queue {self._number}: a written size that 32 bits cannot hold")
        if self.in_order:
            oldest = self._next_number - self.count
            if not np.array_equal(self._numbers[heads], np.arange(oldest, oldest + count)):
                raise ValueError(f"queue {self._number}: heads out of order, and IN_ORDER was negotiated")

    def must_be_told(self, heads: Heads, written_sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the places in `heads` whose used entry cannot be left out, in ascending order.

        These are the last one, and those that were not written completely; without IN_ORDER they are all.
        """
        if not self.in_order:
            return np.arange(len(heads))
        told = written_sizes.astype(np.uint64) != self._writable_sizes[heads]
        told[-1] = True
        return np.flatnonzero(told)

    def give_back(self, head: int) -> int:
        """Note that the device gave a buffer back; returns how many descriptors it has."""
        self._flag_bytes[head] = 0
        self.count -= 1
        return self._count_words[head]

    def give_back_many(self, heads: Heads) -> None:
        """Note that the device gave buffers back."""
        self.flags[heads] = 0
        self.count -= len(heads)

    # All of them

    @property
    def are_the_last_taken(self) -> bool:
        """Whether no buffer was given back that was taken later than one of the outstanding ones."""
        return not self.count or bool(self._numbers[self.flags != 0].min() == self._next_number - self.count)

    def heads(self) -> list[int]:
        """Return the outstanding heads in the order in which they were taken."""
        if not self.count:
            return []
        heads = np.flatnonzero(self.flags)
        ordered: list[int] = heads[np.argsort(self._numbers[heads])].tolist()
        return ordered

    def restore(self, heads: Sequence[int], are_last: bool, descriptor_counts: Iterable[int] | None = None) -> None:
        """Be as saved: these heads are outstanding, in the order in which they were taken."""
        self.clear()
        for head, descriptor_count in zip(heads, descriptor_counts or (1,) * len(heads), strict=True):
            # How much of it can be written is not known any more: its entry is never left out.
            self.take(head, _UNKNOWN_SIZE, descriptor_count)
        if heads and not are_last and not self.in_order:
            # Something later was taken and given back: what it was does not matter. In order there is no such thing.
            self._next_number += 1

    def clear(self) -> None:
        """Nothing is outstanding."""
        self.flags[:] = 0
        self.count = 0

    def _is_first(self, heads: Heads) -> npt.NDArray[np.bool_]:
        """Say for each head whether no earlier one equals it."""
        order = np.arange(len(heads))
        self._seen_at[heads[::-1]] = order[::-1]  # the last assignment stays
        return np.equal(self._seen_at[heads], order)
