"""A packed queue whose buffers in flight are noted in an area that outlives the back end."""

from collections import deque
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from spec.inflight import INFLIGHT_VERSION
from spec.packed_ring import PACKED_DESCRIPTOR, PackedFlag, linear, position
from vdev.errors import FrontEndViolation
from vdev.memory import GuestMemory
from vdev.vhost_user.counted_queue import ChainCounter, CountedQueue
from vdev.vhost_user.inflight import InflightRegion
from vdev.virtqueue.chain import Chain, ChainBatch
from vdev.virtqueue.outstanding import Outstanding
from vdev.virtqueue.packed_descriptors import PackedDescriptors
from vdev.virtqueue.queue import DeviceQueue, QueueAddresses, QueueState

__all__ = ["PackedInflightQueue"]

_CLAUSE = "Inflight I/O tracking"
_COUNTER_MASK = (1 << 63) - 1
"""Counters that a back end wrote do not get there; what somebody else wrote must not overflow."""
_AVAIL, _USED, _NEXT = int(PackedFlag.AVAIL), int(PackedFlag.USED), int(PackedFlag.NEXT)


class _Entries(NamedTuple):
    """The list of entries that a buffer has: where it begins and ends, and how many there are."""

    first: int
    last: int
    length: int


class PackedInflightQueue(CountedQueue):
    """`inner`, with every pop and push noted in `region`; what an earlier back end left there is popped first.

    The device overwrites a packed ring's descriptors, so the area has copies of those in flight, in a list of entries
    for each buffer. Raises FrontEndViolation for an area that no back end wrote; once that is looked at, the area is
    written and not read: the front end can store into it at any time.
    """

    def __init__(
        self,
        inner: DeviceQueue,
        counter: ChainCounter,
        region: InflightRegion,
        memory: GuestMemory,
        addresses: QueueAddresses,
        *,
        indirect: bool,
    ) -> None:
        super().__init__(inner, counter)
        self._head, self._entries = region.head, region.descriptors
        self._memory = memory
        self._indirect = indirect
        self._ring = memory.view(addresses.descriptor, PACKED_DESCRIPTOR, addresses.size)
        self._entries_of: dict[int, _Entries] = {}
        self._next_counter = 1
        self._left_behind: deque[Chain] = deque()
        if self._head["version"] == 0:
            self._set_up()
        else:
            self._take_over()
        state = inner.save()
        self._at, self._used = linear(state.next_avail, self.size), linear(state.next_used, self.size)
        self._free_head = int(self._head["free_head"]) % self.size
        self._nexts: list[int] = (self._entries["next"] % self.size).tolist()

    def _set_up(self) -> None:
        self._head["descriptor_count"] = self.size
        self._entries["next"] = (np.arange(self.size) + 1) % self.size
        self._store_used(self.inner.save().next_used)
        self._commit()
        self._head["version"] = INFLIGHT_VERSION

    def _store_used(self, used_position: int) -> None:
        self._head["used_wrap_counter"], self._head["used_idx"] = used_position >> 15, used_position & 0x7FFF

    def _commit(self) -> None:
        for name in ("used_wrap_counter", "used_idx", "free_head"):
            self._head[f"old_{name}"] = self._head[name]

    # What was left behind

    def _take_over(self) -> None:
        head = self._head
        if head["version"] != INFLIGHT_VERSION or head["descriptor_count"] != self.size:
            raise self._wrong(f"an area of version {head['version']} for {head['descriptor_count']} descriptors")
        if any(int(head[name]) >= self.size for name in ("used_idx", "old_used_idx", "free_head", "old_free_head")):
            raise self._wrong("an index that no descriptor has")
        self._finish_last_step()
        taken = np.flatnonzero(self._entries["inflight"])
        counters = self._entries["counter"][taken]
        counts = []
        for entry in taken[np.argsort(counters, kind="stable")].tolist():
            descriptors = self._list(entry)
            chain = self._chain(descriptors)
            if chain.head in self._entries_of:
                raise self._wrong(f"buffer {chain.head} twice")
            self._left_behind.append(chain)
            last = self._checked(int(self._entries["last"][entry]))
            self._entries_of[chain.head] = _Entries(entry, last, len(descriptors))
            counts.append(len(descriptors))
        if len(taken):
            self._next_counter = (int(counters.max()) + 1) & _COUNTER_MASK
        used = int(head["used_idx"]) | int(head["used_wrap_counter"] & 1) << 15
        try:
            self.inner.restore(
                QueueState(
                    next_avail=position(linear(used, self.size) + sum(counts), self.size),
                    next_used=used,
                    outstanding=tuple(self._entries_of),
                    outstanding_are_last=False,
                    descriptor_counts=tuple(counts),
                )
            )
        except ValueError as error:
            raise self._wrong(str(error)) from error

    def _finish_last_step(self) -> None:
        """Undo or finish what the dead back end was at: giving buffers back, or noting one."""
        head, entries = self._head, self._entries
        before = int(head["old_free_head"])
        if (head["used_idx"], head["used_wrap_counter"]) != (head["old_used_idx"], head["old_used_wrap_counter"]):
            flags = int(self._ring[int(head["old_used_idx"])]["flags"]) & (_AVAIL | _USED)
            if flags != (_AVAIL if head["old_used_wrap_counter"] & 1 else _USED):
                # The driver has them: they are the new entries of the free list.
                entry = int(head["free_head"])
                for _ in range(self.size):
                    entries["inflight"][entry] = 0
                    entry = self._checked(int(entries["next"][self._checked(int(entries["last"][entry]))]))
                    if entry == before:
                        break
                self._commit()
        elif head["free_head"] != before and self._is_newest(before):
            entries["inflight"][before] = 0
        else:
            self._commit()
        for name in ("free_head", "used_idx", "used_wrap_counter"):
            head[name] = head[f"old_{name}"]

    def _is_newest(self, entry: int) -> bool:
        """Say whether this buffer was being noted: it is the last one, and the free list goes on behind it."""
        entries = self._entries
        taken = entries["inflight"] != 0
        if not taken[entry] or entries["counter"][entry] != entries["counter"][taken].max():
            return False
        return bool(entries["next"][self._checked(int(entries["last"][entry]))] == self._head["free_head"])

    def _checked(self, entry: int) -> int:
        if entry >= self.size:
            raise self._wrong(f"{entry} is no entry of {self.size}")
        return entry

    def _list(self, entry: int) -> list[tuple[int, int, int, int]]:
        descriptors = []
        for _ in range(min(int(self._entries["num"][entry]), self.size)):
            saved = self._entries[self._checked(entry)]
            descriptors.append((int(saved["addr"]), int(saved["len"]), int(saved["id"]), int(saved["flags"])))
            entry = int(saved["next"])
        return descriptors

    def _chain(self, descriptors: list[tuple[int, int, int, int]]) -> Chain:
        ring = _SavedRing(descriptors, self.size)
        checked = PackedDescriptors(
            self._memory,
            ring,  # type: ignore[arg-type]
            Outstanding(self.number, self.size, in_order=False),
            indirect=self._indirect,
            number=self.number,
        )
        chain, _ = checked.chain(0, len(descriptors))
        return chain

    def _wrong(self, what: str) -> FrontEndViolation:
        return FrontEndViolation(_CLAUSE, what, queue=self.number)

    # What goes on

    def has_available(self) -> bool:
        """Say whether there is something to pop."""
        return bool(self._left_behind) or self.inner.has_available()

    def enable_kicks(self) -> bool:
        """As the inner queue's; true while something was left behind."""
        return self.inner.enable_kicks() or bool(self._left_behind)

    def pop(self) -> Chain | None:
        """As the inner queue's, after what was left behind."""
        if self._left_behind:
            return self._left_behind.popleft()
        chain = self.inner.pop()
        if chain is not None:
            self._note(chain.head)
        return chain

    def pop_batch(self, limit: int | None = None) -> ChainBatch:
        """As the inner queue's, after what was left behind; each buffer's descriptors are copied one by one."""
        if self._left_behind:
            wanted = len(self._left_behind) if limit is None else limit
            chains: list[Chain] = []
            while self._left_behind and len(chains) < wanted:
                chains.append(self._left_behind.popleft())
            return ChainBatch.of(chains)
        batch = self.inner.pop_batch(limit)
        for head in batch.heads.tolist():
            self._note(head)
        return batch

    def _note(self, buffer_id: int) -> None:
        """Copy the descriptors of the buffer at the place where the last one ended."""
        first = entry = self._free_head
        count = 0
        while True:
            descriptor = self._ring[self._at % self.size]
            saved = self._entries[entry]
            for name in ("addr", "len", "flags"):
                saved[name] = descriptor[name]
            saved["id"] = buffer_id
            self._at += 1
            count += 1
            last, entry = entry, self._nexts[entry]
            if not descriptor["flags"] & _NEXT or count == self.size:
                break
        self._entries["last"][first], self._entries["num"][first] = last, count
        self._entries["counter"][first] = self._next_counter
        self._next_counter += 1
        self._head["free_head"] = self._free_head = entry
        self._entries["inflight"][first] = 1
        self._head["old_free_head"] = entry
        self._entries_of[buffer_id] = _Entries(first, last, count)

    def push(self, head: int, written_size: int) -> None:
        """As the inner queue's."""
        entries = self._entries_of.get(head)
        if entries is None:
            raise ValueError(f"queue {self.number}: head {head} is not outstanding")
        self._free([entries])
        super().push(head, written_size)
        self._settle([head], [entries])

    def push_batch(self, heads: npt.NDArray[np.int64], written_sizes: npt.NDArray[np.int64]) -> None:
        """As the inner queue's."""
        if not len(heads):
            return
        ids = heads.tolist()
        entries = [self._entries_of[head] for head in ids]
        self._free(entries)
        super().push_batch(heads, written_sizes)
        self._settle(ids, entries)

    def _free(self, entries: list[_Entries]) -> None:
        self._used = (self._used + sum(each.length for each in entries)) % (2 * self.size)
        self._store_used(position(self._used, self.size))
        for first, last, _ in entries:
            self._entries["next"][last] = self._nexts[last] = self._free_head
            self._head["free_head"] = self._free_head = first

    def _settle(self, ids: list[int], entries: list[_Entries]) -> None:
        self._entries["inflight"][[each.first for each in entries]] = 0
        for buffer_id in ids:
            del self._entries_of[buffer_id]
        self._commit()


class _SavedRing:
    """Copied descriptors as a descriptor ring that begins with them, as a driver would have made them available."""

    def __init__(self, descriptors: list[tuple[int, int, int, int]], size: int) -> None:
        self.size = size
        self._descriptors = descriptors

    def descriptor(self, at: int) -> tuple[int, int, int, int]:
        """Return address, size, buffer id and flags."""
        address, size, buffer_id, flags = self._descriptors[at]
        return address, size, buffer_id, flags & ~_USED | _AVAIL
