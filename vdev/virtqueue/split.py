"""The device's side of a split virtqueue (virtio 1.4, "Split Virtqueues")."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from spec.device import Feature
from spec.split_ring import AvailableFlag, UsedFlag, event_reached
from vdev.errors import DriverViolation
from vdev.events import SILENT, ChainsPopped, ChainsUsed, Emitter
from vdev.memory import GuestMemory
from vdev.memory.order import load_fence, store_fence
from vdev.virtqueue.chain import Chain, ChainBatch
from vdev.virtqueue.descriptor_batch import clean_prefix
from vdev.virtqueue.descriptors import DescriptorTable
from vdev.virtqueue.outstanding import Outstanding
from vdev.virtqueue.queue import QueueAddresses, QueueState
from vdev.virtqueue.rings import FLAGS, IDX, Rings

__all__ = ["SplitDeviceQueue"]

_SMALL_BATCH = 16
"""Below so many chains one by one is quicker than numpy (benchmarks/bench_split_ring.py)."""

_COUNT_LIMIT = 0x1_0000
"""A count that has got here covers every value a 16-bit index can have, and need not go on."""

_AVAILABLE = "The Virtqueue Available Ring"
_NO_INTERRUPT, _NO_NOTIFY = int(AvailableFlag.NO_INTERRUPT), int(UsedFlag.NO_NOTIFY)


class SplitDeviceQueue:
    """One split virtqueue, seen from the device; see `DeviceQueue` for what each method promises.

    `number` is the queue's, for errors and events. `features` is the mask of negotiated bits. Nothing is stored to
    guest memory before the first call that says so, so the queue can be made before a migrated RAM has arrived.

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
        self._rings = Rings(memory, number, addresses)
        self._table = DescriptorTable(
            memory,
            addresses.descriptor,
            addresses.size,
            indirect=bool(features >> Feature.INDIRECT_DESC & 1),
            number=number,
        )
        self._outstanding = Outstanding(number, self.size, in_order=bool(features >> Feature.IN_ORDER & 1))
        self._next_avail = 0
        self._next_used = 0
        self._unsignalled_count = 0
        self._kicks_enabled = True

    # Available buffers

    def has_available(self) -> bool:
        """Say whether the driver has made a buffer available that was not popped."""
        return self._rings.available[IDX] != self._next_avail

    def pop(self) -> Chain | None:
        """Take the next available chain, or None."""
        if not self._pending_count():
            return None
        chain = self._take()
        if self._event_idx and self._kicks_enabled:
            # So that a pop which finds nothing may be believed: whatever comes after that look kicks.
            self._rings.store_used_word(self._rings.avail_event_word, self._next_avail)
            self._full_fence()
        if self._events.listening:
            self._tell_popped([chain.head])
        return chain

    def _take(self) -> Chain:
        load_fence()
        head = self._rings.available[self._rings.available_ring_word + (self._next_avail & (self.size - 1))]
        if head >= self.size:
            raise DriverViolation(
                _AVAILABLE, f"head {head} in a table of {self.size}", queue=self.number, descriptor=head
            )
        if head in self._outstanding:
            raise DriverViolation(
                _AVAILABLE, "a head that the device has not given back", queue=self.number, descriptor=head
            )
        chain = self._table.chain(head)
        self._outstanding.take(head, chain.writable_size if self._outstanding.in_order else 0)
        self._next_avail = (self._next_avail + 1) & 0xFFFF
        return chain

    def pop_batch(self, limit: int | None = None) -> ChainBatch:
        """Take all available chains, or the first `limit`; those behind a violation are left."""
        count = self._pending_count_and_arm(self.size if limit is None else limit)
        if count < (self.small_batch or _SMALL_BATCH):
            return self._take_one_by_one(count)
        load_fence()
        heads = self._rings.available_entries[self._rings.places(self._next_avail, count)].astype(np.int64)
        usable = heads < self.size
        heads = heads[: count if usable.all() else int(np.argmin(usable))]
        usable = self._outstanding.can_take(heads)
        heads = heads[: len(heads) if usable.all() else int(np.argmin(usable))]
        batch = clean_prefix(self._table, heads)
        if not len(batch):
            return self._take_one_by_one(1)
        self._outstanding.take_many(batch.heads, batch.writable_sizes() if self._outstanding.in_order else None)
        self._next_avail = (self._next_avail + len(batch)) & 0xFFFF
        self._tell_popped(batch.heads)
        return batch

    def _take_one_by_one(self, count: int) -> ChainBatch:
        chains: list[Chain] = []
        for _ in range(count):
            try:
                chains.append(self._take())
            except DriverViolation:
                if chains:
                    break  # It is in front now, and the next call raises it.
                raise
        batch = ChainBatch.of(chains)
        self._tell_popped(batch.heads)
        return batch

    def _tell_popped(self, heads: Iterable[int]) -> None:
        if self._events.listening and (popped := tuple(map(int, heads))):
            self._events.emit(ChainsPopped(self.number, popped))

    def _pending_count(self) -> int:
        count = (self._rings.available[IDX] - self._next_avail) & 0xFFFF
        if count > self.size:
            raise DriverViolation(
                _AVAILABLE,
                f"idx moved by {count}, more than the queue size {self.size}",
                queue=self.number,
                address=self.addresses.driver,
            )
        return count

    def _pending_count_and_arm(self, limit: int) -> int:
        """Return how many chains to take, such that whatever is made available behind them kicks."""
        count = min(self._pending_count(), limit)
        while count > 0 and self._event_idx and self._kicks_enabled:
            self._rings.store_used_word(self._rings.avail_event_word, (self._next_avail + count) & 0xFFFF)
            self._full_fence()
            before, count = count, min(self._pending_count(), limit)
            if count <= before:
                break
        return count

    # Used buffers

    def push(self, head: int, written_size: int) -> None:
        """Give a chain back as used."""
        self._outstanding.check(head)
        try:
            self._rings.store_used_entry(self._next_used, head, written_size)
        except ValueError:
            raise ValueError(f"queue {self.number}: a written size of {written_size} bytes") from None
        self._outstanding.give_back(head)
        self._publish_used(1)
        if self._events.listening:
            self._events.emit(ChainsUsed(self.number, (head,), (written_size,)))

    def push_batch(self, heads: npt.NDArray[np.int64], written_sizes: npt.NDArray[np.int64]) -> None:
        """Give several chains back with one move of the used index."""
        self._outstanding.check_many(heads, written_sizes)
        count = len(heads)
        if not count:
            return
        places = self._rings.places(self._next_used, count)
        if self._outstanding.in_order:
            # The entry of a buffer that speaks for those before it stands where the first of them would.
            told = self._outstanding.must_be_told(heads, written_sizes)
            first_of_each = np.concatenate(([0], told[:-1] + 1))
            self._rings.store_used_entries(places[first_of_each], heads[told], written_sizes[told])
        else:
            self._rings.store_used_entries(places, heads, written_sizes)
        self._outstanding.give_back_many(heads)
        self._publish_used(count)
        if self._events.listening:
            self._events.emit(ChainsUsed(self.number, tuple(heads.tolist()), tuple(written_sizes.tolist())))

    def _publish_used(self, count: int) -> None:
        store_fence()
        self._next_used = (self._next_used + count) & 0xFFFF
        self._rings.store_used_word(IDX, self._next_used)
        self._unsignalled_count = min(self._unsignalled_count + count, _COUNT_LIMIT)

    # Notification suppression

    def should_call(self) -> bool:
        """Say whether the driver wants to be told of what was pushed since the last look."""
        count, self._unsignalled_count = self._unsignalled_count, 0
        if not count:
            return False
        self._full_fence()
        if self._event_idx:
            return event_reached(self._rings.available[self._rings.used_event_word], self._next_used, count)
        return not self._rings.available[FLAGS] & _NO_INTERRUPT

    def disable_kicks(self) -> None:
        """Advise the driver that kicks are not needed."""
        self._kicks_enabled = False
        if self._event_idx:
            # The flags must stay 0; an event just behind is farthest from being reached.
            self._rings.store_used_word(self._rings.avail_event_word, (self._next_avail - 1) & 0xFFFF)
        else:
            self._rings.store_used_word(FLAGS, _NO_NOTIFY)

    def enable_kicks(self) -> bool:
        """Ask for a kick at the next available buffer; true when there are some already."""
        self._kicks_enabled = True
        if self._event_idx:
            self._rings.store_used_word(self._rings.avail_event_word, self._next_avail)
        else:
            self._rings.store_used_word(FLAGS, 0)
        self._full_fence()
        return self.has_available()

    # State

    def save(self) -> QueueState:
        """Return what another object over the same memory needs to go on."""
        return QueueState(
            next_avail=self._next_avail,
            next_used=self._next_used,
            unsignalled_count=self._unsignalled_count,
            kicks_enabled=self._kicks_enabled,
            outstanding=tuple(self._outstanding.heads()),
            outstanding_are_last=self._outstanding.are_the_last_taken,
        )

    def restore(self, state: QueueState) -> None:
        """Go on from `state`."""
        for index in (state.next_avail, state.next_used):
            if not 0 <= index <= 0xFFFF:
                raise ValueError(f"the index {index} is not a 16-bit number")
        if state.descriptor_counts:
            raise ValueError(f"{len(state.descriptor_counts)} descriptor counts, which a split queue does not have")
        state.check(self.size, entries_in_flight=(state.next_avail - state.next_used) & 0xFFFF)
        self._next_avail = state.next_avail
        self._next_used = state.next_used
        self._unsignalled_count = state.unsignalled_count
        self._kicks_enabled = state.kicks_enabled
        self._outstanding.restore(state.outstanding, state.outstanding_are_last)

    def ring_base(self) -> int:
        """Return the available index from which another object is to go on: 16 bits."""
        if self._outstanding.are_the_last_taken:
            return (self._next_avail - self._outstanding.count) & 0xFFFF
        return self._next_avail

    def start_from(self, base: int) -> None:
        """Go on from the available index `base`; the used index stands in the used ring."""
        if not 0 <= base <= 0xFFFF:
            raise ValueError(f"queue {self.number}: the base {base:#x} is not a 16-bit number")
        next_used = self._rings.used[IDX]
        if (base - next_used) & 0xFFFF > self.size:
            raise DriverViolation(
                "The Virtqueue Used Ring",
                f"idx is {next_used}, and the ring is to go on from {base}",
                queue=self.number,
                address=self.addresses.device,
            )
        self._outstanding.clear()
        self._next_avail = base
        self._next_used = next_used
        self._unsignalled_count = 0
        self._kicks_enabled = True
