"""The device's side of a packed virtqueue (virtio 1.4, "Packed Virtqueues")."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from spec.device import Feature
from spec.packed_ring import EventFlag, is_position, linear, position
from vdev.errors import DriverViolation
from vdev.events import SILENT, ChainsPopped, ChainsUsed, Emitter
from vdev.memory import GuestMemory
from vdev.memory.order import load_fence
from vdev.virtqueue.chain import Chain, ChainBatch
from vdev.virtqueue.outstanding import Outstanding
from vdev.virtqueue.packed_batch import clean_prefix
from vdev.virtqueue.packed_descriptors import PackedDescriptors
from vdev.virtqueue.packed_ring import PackedRing
from vdev.virtqueue.queue import QueueAddresses, QueueState

__all__ = ["PackedDeviceQueue"]

_SMALL_BATCH = 16
"""Below so many chains one by one is quicker than numpy (benchmarks/bench_packed_ring.py)."""


class PackedDeviceQueue:
    """One packed virtqueue, seen from the device; see `DeviceQueue` for what each method promises.

    `number` is the queue's, for errors and events. `features` is the mask of negotiated bits. A chain's head is its
    buffer id. Nothing is stored to guest memory before the first call that says so, so the queue can be made before a
    migrated RAM has arrived.

    Raises DriverViolation if `addresses` names areas that are not aligned or not in RAM, or an impossible size.
    """

    small_batch: int | None = None
    """From so many chains on they are taken with numpy; None: from where that is quicker on."""

    def __init__(
        self,
        memory: GuestMemory,
        number: int,
        addresses: QueueAddresses,
        features: int,
        events: Emitter = SILENT,
    ) -> None:
        self.number = number
        self.size = addresses.size
        self.addresses = addresses
        self._events = events
        self._event_idx = bool(features >> Feature.EVENT_IDX & 1)
        self._full_fence = memory.full_fence
        self._ring = PackedRing(memory, number, addresses, event_idx=self._event_idx)
        self._outstanding = Outstanding(number, self.size, in_order=bool(features >> Feature.IN_ORDER & 1))
        self._descriptors = PackedDescriptors(
            memory,
            self._ring,
            self._outstanding,
            indirect=bool(features >> Feature.INDIRECT_DESC & 1),
            number=number,
        )
        # Places as `PackedRing` has them; every ring entry between the two is taken.
        self._next_avail = 0
        self._next_used = 0
        self._unsignalled_count = 0
        self._kicks_enabled = True

    # Available buffers

    def has_available(self) -> bool:
        """Say whether the driver has made a buffer available that was not popped."""
        return self._ring.is_available(self._next_avail)

    def pop(self) -> Chain | None:
        """Take the next available chain, or None."""
        if not self._ring.is_available(self._next_avail):
            return None
        chain = self._take()
        self._arm()
        self._tell_popped([chain.head])
        return chain

    def _take(self) -> Chain:
        load_fence()
        chain, count = self._descriptors.chain(self._next_avail, self._free_count())
        self._outstanding.take(chain.head, chain.writable_size if self._outstanding.in_order else 0, count)
        self._next_avail = (self._next_avail + count) % (2 * self.size)
        return chain

    def _free_count(self) -> int:
        """Return how many descriptors are not taken. Raises DriverViolation if none is left to look at."""
        count = self.size - (self._next_avail - self._next_used) % (2 * self.size)
        if not count:
            raise DriverViolation(
                "Packed Virtqueues",
                f"more than the queue size {self.size} was made available",
                queue=self.number,
                descriptor=self._next_avail % self.size,
            )
        return count

    def pop_batch(self, limit: int | None = None) -> ChainBatch:
        """Take all available chains, or the first `limit`; those behind a violation are left."""
        wanted = self.size if limit is None else min(limit, self.size)
        batches: list[ChainBatch] = []
        while wanted > 0 and self._ring.is_available(self._next_avail):
            try:
                batches.append(self._take_some(wanted))
            except DriverViolation:
                if batches:
                    break  # It is in front now, and the next call raises it.
                raise
            wanted -= len(batches[-1])
            self._arm()
        batch = batches[0] if len(batches) == 1 else ChainBatch.joined(batches)
        self._tell_popped(batch.heads)
        return batch

    def _take_some(self, limit: int) -> ChainBatch:
        """Take at least one chain."""
        free_count = self._free_count()
        small = self.small_batch or _SMALL_BATCH
        looks_small = free_count < small or not self._ring.is_available(self._next_avail + small - 1)
        if limit >= small and not looks_small:
            batch, counts = clean_prefix(self._descriptors, self._next_avail, free_count, limit)
            if len(batch):
                in_order = self._outstanding.in_order
                self._outstanding.take_many(batch.heads, batch.writable_sizes() if in_order else None, counts)
                self._next_avail = (self._next_avail + int(counts.sum())) % (2 * self.size)
                return batch
        chains = [self._take()]
        while len(chains) < min(limit, small) and self._ring.is_available(self._next_avail):
            try:
                chains.append(self._take())
            except DriverViolation:
                break  # It is in front now, and the next call raises it.
        return ChainBatch.of(chains)

    def _arm(self) -> None:
        if self._event_idx and self._kicks_enabled:
            # So that a pop which finds nothing may be believed: whatever comes after that look kicks.
            self._ring.store_event(EventFlag.DESC, self._next_avail)
            self._full_fence()

    def _tell_popped(self, heads: Iterable[int]) -> None:
        if self._events.listening and (popped := tuple(map(int, heads))):
            self._events.emit(ChainsPopped(self.number, popped))

    # Used buffers

    def push(self, head: int, written_size: int) -> None:
        """Give a chain back as used."""
        self._outstanding.check(head)
        if not 0 <= written_size <= 0xFFFF_FFFF:
            raise ValueError(f"queue {self.number}: a written size of {written_size} bytes")
        self._ring.store_used(self._next_used, head, written_size)
        self._note_used(self._outstanding.give_back(head))
        if self._events.listening:
            self._events.emit(ChainsUsed(self.number, (head,), (written_size,)))

    def push_batch(self, heads: npt.NDArray[np.int64], written_sizes: npt.NDArray[np.int64]) -> None:
        """Give several chains back; the driver sees all or none of them."""
        self._outstanding.check_many(heads, written_sizes)
        if not len(heads):
            return
        ends = self._next_used + np.cumsum(self._outstanding.descriptor_counts[heads])
        places = np.concatenate(([self._next_used], ends[:-1]))
        if self._outstanding.in_order:
            # The descriptor of a buffer that speaks for those before it stands where the first of them would.
            told = self._outstanding.must_be_told(heads, written_sizes)
            first_of_each = np.concatenate(([0], told[:-1] + 1))
            self._ring.store_many_used(places[first_of_each], heads[told], written_sizes[told])
        else:
            self._ring.store_many_used(places, heads, written_sizes)
        self._outstanding.give_back_many(heads)
        self._note_used(int(ends[-1]) - self._next_used)
        if self._events.listening:
            self._events.emit(ChainsUsed(self.number, tuple(heads.tolist()), tuple(written_sizes.tolist())))

    def _note_used(self, count: int) -> None:
        self._next_used = (self._next_used + count) % (2 * self.size)
        # Nobody waits for an event that is more than a lap back.
        self._unsignalled_count = min(self._unsignalled_count + count, self.size)

    # Notification suppression

    def should_call(self) -> bool:
        """Say whether the driver wants to be told of what was pushed since the last look."""
        count = self._unsignalled_count
        if not count:
            return False
        self._full_fence()
        wanted = self._ring.driver_wants_call(self._next_used, count)
        self._unsignalled_count = 0
        return wanted

    def disable_kicks(self) -> None:
        """Advise the driver that kicks are not needed."""
        self._kicks_enabled = False
        self._ring.store_event(EventFlag.DISABLE)

    def enable_kicks(self) -> bool:
        """Ask for a kick at the next available buffer; true when there are some already."""
        self._kicks_enabled = True
        self._ring.store_event(EventFlag.DESC if self._event_idx else EventFlag.ENABLE, self._next_avail)
        self._full_fence()
        return self.has_available()

    # State

    def save(self) -> QueueState:
        """Return what another object over the same memory needs to go on."""
        heads = self._outstanding.heads()
        return QueueState(
            next_avail=position(self._next_avail, self.size),
            next_used=position(self._next_used, self.size),
            unsignalled_count=self._unsignalled_count,
            kicks_enabled=self._kicks_enabled,
            outstanding=tuple(heads),
            outstanding_are_last=self._outstanding.are_the_last_taken,
            descriptor_counts=tuple(self._outstanding.descriptor_counts[heads].tolist()),
        )

    def restore(self, state: QueueState) -> None:
        """Go on from `state`."""
        next_avail, next_used = self._place(state.next_avail), self._place(state.next_used)
        if len(state.descriptor_counts) != len(state.outstanding) or min(state.descriptor_counts, default=1) < 1:
            raise ValueError(f"{len(state.outstanding)} outstanding heads with {state.descriptor_counts} descriptors")
        state.check(self.size, entries_in_flight=(next_avail - next_used) % (2 * self.size))
        self._next_avail, self._next_used = next_avail, next_used
        self._unsignalled_count = min(state.unsignalled_count, self.size)
        self._kicks_enabled = state.kicks_enabled
        self._outstanding.restore(state.outstanding, state.outstanding_are_last, state.descriptor_counts)

    def ring_base(self) -> int:
        """Return the next available position in bits 0 to 15, the next used one in bits 16 to 31."""
        next_avail = self._next_avail
        if self._outstanding.are_the_last_taken:
            next_avail -= sum(self._outstanding.descriptor_counts[self._outstanding.heads()].tolist())
        return position(next_avail, self.size) | position(self._next_used, self.size) << 16

    def start_from(self, base: int) -> None:
        """Go on from what `ring_base` gave."""
        next_avail, next_used = self._place(base & 0xFFFF), self._place(base >> 16)
        if (next_avail - next_used) % (2 * self.size) > self.size:
            raise ValueError(f"queue {self.number}: the base {base:#x} has more than {self.size} descriptors taken")
        self._outstanding.clear()
        self._next_avail, self._next_used = next_avail, next_used
        self._unsignalled_count = 0
        self._kicks_enabled = True

    def _place(self, ring_position: int) -> int:
        if not is_position(ring_position, self.size):
            raise ValueError(f"queue {self.number}: {ring_position:#x} is no position in a ring of {self.size}")
        return linear(ring_position, self.size)
