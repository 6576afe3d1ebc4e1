"""What the device has given back in a split queue, one at a time and many at once."""

import numpy as np
import numpy.typing as npt

from guest_agent.virtqueue.area import Note, QueueArea
from guest_agent.virtqueue.descriptors import Descriptors
from guest_agent.virtqueue.in_order import sizes_in_order
from guest_agent.virtqueue.prefix import are_first, true_prefix
from guest_agent.virtqueue.queue import Used, UsedBatch
from spec.split_area import NO_BATCH
from vdev.errors import DeviceViolation
from vdev.memory.order import load_fence

__all__ = ["SplitUsed"]

# Plain names: to look an attribute up costs as much as to look at the note itself.
_BATCH_HEAD = Note.BATCH_HEAD
_BATCH_WRITTEN_SIZE = Note.BATCH_WRITTEN_SIZE
_LAST_USED = Note.LAST_USED
_NEXT_AVAILABLE = Note.NEXT_AVAILABLE
_OLDEST_DESCRIPTOR = Note.OLDEST_DESCRIPTOR
_PUBLISHED = Note.PUBLISHED

_IDX = 1
"""The 16-bit word of the used ring."""

_USED_RING = "The Virtqueue Used Ring"


class SplitUsed:
    """The used ring of one area, from the entry on that is the next to take. `number` is the queue's, for errors."""

    def __init__(self, area: QueueArea, descriptors: Descriptors, number: int, *, in_order: bool) -> None:
        self._area = area
        self._descriptors = descriptors
        self._notes = area.notes
        self._size = area.size
        self._number = number
        self._in_order = in_order

    def is_there(self) -> bool:
        """Say whether the device has given back a buffer that was not taken."""
        return self._area.used[_IDX] != self._notes[_LAST_USED]

    def pending_count(self) -> int:
        """Return how many buffers the device has given back that were not taken.

        Raises DeviceViolation if it cannot hold so many.
        """
        notes = self._notes
        count = (self._area.used[_IDX] - notes[_LAST_USED]) & 0xFFFF
        held_count = (notes[_PUBLISHED] - notes[_LAST_USED]) & 0xFFFF
        if count > held_count:
            raise DeviceViolation(
                _USED_RING,
                f"idx moved by {count}, but the device holds {held_count} chains",
                queue=self._number,
                address=self._area.addresses.device,
            )
        return count

    # One

    def take(self) -> Used:
        """Take the next used buffer; there is one.

        Raises DeviceViolation.
        """
        head, written_size = self._next_in_order() if self._in_order else self._entry()
        used = Used(self._area.token_words[head], written_size, head)
        self._descriptors.release(head)
        self._note_taken(1)
        return used

    def _entry(self) -> tuple[int, int]:
        """Return head and written size of the next used entry, checked."""
        load_fence()
        area = self._area
        word = 2 * (self._notes[_LAST_USED] & (self._size - 1))
        head, written_size = area.used_elements[word], area.used_elements[word + 1]
        if head >= self._size:
            raise self._violation(f"id {head} in a table of {self._size}", head)
        if not area.descriptor_count_words[head] or self._is_unpublished(head):
            raise self._violation("an id that the device does not hold", head)
        writable_size = area.writable_size_words[head]
        if written_size > writable_size:
            raise self._violation(f"{written_size} bytes written into {writable_size} writable ones", head)
        return head, written_size

    def _next_in_order(self) -> tuple[int, int]:
        """Return head and written size of the oldest chain, for which the next used entry may speak, too."""
        notes = self._notes
        oldest = notes[_OLDEST_DESCRIPTOR]
        last, written_size = notes[_BATCH_HEAD], notes[_BATCH_WRITTEN_SIZE]
        if last == NO_BATCH:
            last, written_size = self._entry()
            if last == oldest:
                return last, written_size
            if last not in self._descriptors.oldest(self.pending_count()):
                raise self._violation("an id that idx does not cover, with IN_ORDER", last)
            notes[_BATCH_HEAD], notes[_BATCH_WRITTEN_SIZE] = last, written_size
        if last == oldest:
            notes[_BATCH_HEAD] = NO_BATCH
            return last, written_size
        # One that was passed over counts as written completely.
        return oldest, self._area.writable_size_words[oldest]

    def _is_unpublished(self, head: int) -> bool:
        notes = self._notes
        return notes[_PUBLISHED] != notes[_NEXT_AVAILABLE] and head in self._unpublished_heads()

    def _unpublished_heads(self) -> list[int]:
        published = self._notes[_PUBLISHED]
        count = (self._notes[_NEXT_AVAILABLE] - published) & 0xFFFF
        if not count:
            return []
        heads: list[int] = self._area.available_ring[self._places(published, count)].tolist()
        return heads

    def _violation(self, message: str, head: int) -> DeviceViolation:
        return DeviceViolation(_USED_RING, message, queue=self._number, descriptor=head)

    # Many

    def take_one_by_one(self, count: int) -> UsedBatch:
        """Take `count` used buffers; those behind a violation are left.

        Raises DeviceViolation if it is the first that breaks the text.
        """
        taken: list[Used] = []
        for _ in range(count):
            try:
                taken.append(self.take())
            except DeviceViolation:
                if taken:
                    break  # It is in front now, and the next call raises it.
                raise
        return UsedBatch(
            np.array([used.token for used in taken], np.uint64),
            np.array([used.written_size for used in taken], np.int64),
            np.array([used.head for used in taken], np.int64),
        )

    def take_many(self, count: int) -> UsedBatch | None:
        """Take clean used buffers in one go, at most `count`; None where there is none that this way can take.

        Whatever it leaves, `take` takes or names.
        """
        load_fence()
        entries = self._area.used_ring[self._places(self._notes[_LAST_USED], count)]
        heads, written_sizes = entries["id"].astype(np.int64), entries["len"].astype(np.int64)
        prefix = self._in_order_prefix if self._in_order else self._prefix
        heads, written_sizes = prefix(heads, written_sizes)
        if not len(heads):
            return None
        batch = UsedBatch(self._area.tokens[heads], written_sizes, heads)
        self._descriptors.release_batch(heads)
        self._note_taken(len(heads))
        return batch

    def _prefix(
        self, heads: npt.NDArray[np.int64], written_sizes: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return what these entries say, up to the first that is not clean."""
        area = self._area
        count = true_prefix(heads < self._size)
        heads, written_sizes = heads[:count], written_sizes[:count]
        clean = (area.descriptor_counts[heads] > 0) & (written_sizes <= area.writable_sizes[heads].astype(np.int64))
        clean &= are_first(heads, self._size)
        unpublished = self._unpublished_heads()
        if unpublished:
            clean &= ~np.isin(heads, unpublished)
        count = true_prefix(clean)
        return heads[:count], written_sizes[:count]

    def _in_order_prefix(
        self, told_heads: npt.NDArray[np.int64], told_sizes: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return heads and written sizes of the oldest chains that these clean entries speak for."""
        count = len(told_heads)
        if self._notes[_BATCH_HEAD] != NO_BATCH or count < self.pending_count():
            return told_heads[:0], told_sizes[:0]
        heads = self._descriptors.oldest(count)
        writable_sizes = self._area.writable_sizes[heads].astype(np.int64)
        sizes = sizes_in_order(heads, np.ones(count, np.bool_), told_heads, told_sizes, writable_sizes)
        return heads[: len(sizes)], sizes

    def _note_taken(self, count: int) -> None:
        self._notes[_LAST_USED] = (self._notes[_LAST_USED] + count) & 0xFFFF
        self._area.mark_notes()

    def _places(self, index: int, count: int) -> npt.NDArray[np.int64]:
        return np.arange(index, index + count) & (self._size - 1)
