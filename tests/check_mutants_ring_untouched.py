"""Mutants for the checks of order, and of what a device must leave alone or not take: rings with one fault each."""

import time

from check_mutants import Mutant, block, entropy, replaced
from race_rings_mutants import put

from spec.split_ring import AvailableFlag
from vdev.check.registry import RingFormat
from vdev.check.verdict import Verdict
from vdev.devices.block import BlockDevice
from vdev.devices.entropy import EntropyDevice
from vdev.devices.kind import Carrier
from vdev.virtqueue.packed import PackedDeviceQueue
from vdev.virtqueue.packed_descriptors import PackedDescriptors
from vdev.virtqueue.packed_ring import PackedRing
from vdev.virtqueue.rings import FLAGS, Rings
from vdev.virtqueue.split import SplitDeviceQueue

SPLIT, PACKED = (RingFormat.SPLIT,), (RingFormat.PACKED,)

USED_ENTRY = "self._rings.store_used_entry(self._next_used, head, written_size)"
USED_DESCRIPTOR = "self._ring.store_used(self._next_used, head, written_size)"
A_WHILE = 0.05
"""Seconds between two stores that stand in the wrong order: a driver that looks all the time sees the first alone."""


def is_watched(queue):
    """Whether this is the first buffer of a driver that wants no calls, as one is that looks all the time."""
    while hasattr(queue, "inner"):
        queue = queue.inner
    if queue.__class__ is SplitDeviceQueue:
        return not queue._next_used and bool(queue._rings.available[FLAGS] & AvailableFlag.NO_INTERRUPT)
    return not queue._next_used and queue._ring._driver_event[0] >> 16 == 1


def index_first(patch):
    """The used index, or the flags, are stored before the rest of the element."""

    def push(original, publish):
        def pushed(self, head, written_size):
            if is_watched(self):
                publish(self)
                time.sleep(A_WHILE)
            original(self, head, written_size)

        return pushed

    def publish_split(self):
        self._rings.store_used_word(1, 1)

    def publish_packed(self):
        self._ring._words[7] = self._ring._used_flags[0]

    patch.setattr(SplitDeviceQueue, "push", push(SplitDeviceQueue.push, publish_split))
    patch.setattr(PackedDeviceQueue, "push", push(PackedDeviceQueue.push, publish_packed))


class DataLast(EntropyDevice):
    """Gives a buffer back, and then fills it."""

    def handle_queue(self, number):
        queue = self.queues[number]
        for chain in self.chains(number):
            data = self._source(min(chain.writable_size, 4096))
            late = is_watched(queue)
            if not late:
                chain.write(self.memory, data)
            queue.push(chain.head, len(data))
            if late:
                time.sleep(A_WHILE)
                chain.write(self.memory, data)


class WritesAgain(EntropyDevice):
    """Writes into the buffer before when it has another, of a driver that wants no calls."""

    before = None

    def handle_queue(self, number):
        queue = self.queues[number]
        for chain in self.chains(number):
            if self.before is not None and self.before[0] is queue and not self.wants_calls(queue):
                self.before[1].write(self.memory, b"again")
            self.before = queue, chain
            queue.push(chain.head, chain.write(self.memory, self._source(min(chain.writable_size, 4096))))

    def wants_calls(self, queue):
        if queue.__class__ is SplitDeviceQueue:
            return not queue._rings.available[FLAGS] & AvailableFlag.NO_INTERRUPT
        return queue._ring._driver_event[0] >> 16 != 1


def changes_the_one_before(patch):
    store = PackedRing.store_used

    def stored(self, place, buffer_id, written_size):
        store(self, place, buffer_id, written_size)
        if place:
            self._lengths[4 * ((place - 1) % self.size) + 2] ^= 1

    patch.setattr(PackedRing, "store_used", stored)


class WritesHeaders(BlockDevice):
    """Clears the first byte of a header that came in three elements, when the request is done."""

    def handle_queue(self, number):
        queue = self.queues[number]
        seen = []
        take = queue.pop

        def pop():
            chain = take()
            if chain is not None and len(chain.readable) == 3:
                seen.append(chain)
            return chain

        queue.pop = pop
        try:
            super().handle_queue(number)
        finally:
            del queue.pop
        for chain in seen:
            self.memory.write(chain.readable[0].address, b"\x99")


def tidies_up(patch):
    """Descriptors that stand behind the ring's last one used, and refer to another, are cleared."""
    push = SplitDeviceQueue.push

    def pushed(self, head, written_size):
        push(self, head, written_size)
        last = self._table.records[self.size - 1]
        if head != self.size - 1 and last["flags"] == 1:
            last["flags"] = 0

    patch.setattr(SplitDeviceQueue, "push", pushed)


def eats_the_event(patch):
    """What stands behind the available ring is set back to 0."""
    push = SplitDeviceQueue.push

    def pushed(self, head, written_size):
        push(self, head, written_size)
        if not self._event_idx and self._rings.available[self._rings.used_event_word] == 0x5A5A:
            self._rings.available[self._rings.used_event_word] = 0

    patch.setattr(SplitDeviceQueue, "push", pushed)


def acknowledges_the_event(patch):
    """The driver's wish for no calls is taken away when it was seen."""
    wants = PackedRing.driver_wants_call

    def wanted(self, place, count):
        answer = wants(self, place, count)
        if self._driver_event[0] >> 16 == 1:
            self._driver_event[0] = 0
        return answer

    patch.setattr(PackedRing, "driver_wants_call", wanted)


def marks_tables(patch):
    """The first entry of a table is marked as done."""
    import vdev.virtqueue.descriptors
    import vdev.virtqueue.packed_descriptors
    from vdev.virtqueue.indirect import read_indirect_table

    def read(memory, address, size, *arguments, **options):
        table = read_indirect_table(memory, address, size, *arguments, **options)
        memory.write(address + 14, b"\xee")
        return table

    for module in (vdev.virtqueue.descriptors, vdev.virtqueue.packed_descriptors):
        patch.setattr(module, "read_indirect_table", read)


def clears_the_next_element(patch):
    """The element behind the first one is cleared, for the next."""
    store = Rings.store_used_entry

    def stored(self, index, head, written_size):
        store(self, index, head, written_size)
        if not index and self._size > 1:
            store(self, 1, 0, 0)

    patch.setattr(Rings, "store_used_entry", stored)


def clears_what_it_passes_over(patch):
    """The second descriptor of a list that was used is cleared."""
    push = PackedDeviceQueue.push

    def pushed(self, head, written_size):
        place, count = self._next_used, int(self._outstanding.descriptor_counts[head])
        push(self, head, written_size)
        if count > 1:
            self._ring.records["flags"][(place + 1) % self.size] = 0

    patch.setattr(PackedDeviceQueue, "push", pushed)


class WholeLines(EntropyDevice):
    """Fills whole lines of 64 bytes, as far as the page goes."""

    def handle_queue(self, number):
        for chain in self.chains(number):
            size = chain.write(self.memory, self._source(min(chain.writable_size, 4096)))
            for address, length in chain.writable:
                end = address + length
                if end % 4096 and address % 4096 + length < 4096:
                    self.memory.write(end, bytes(-end % 64))
            self.queues[number].push(chain.head, size)


def looks_ahead(patch):
    """In the first lap, an entry that names the last descriptor is taken before the index says so."""
    pending = SplitDeviceQueue._pending_count

    def counted(self):
        count, place = pending(self), self._next_avail
        if not count and place < self.size and self._rings.available_entries[place] == self.size - 1 > 0:
            return 1
        return count

    patch.setattr(SplitDeviceQueue, "_pending_count", counted)


def unequal_bits(patch):
    """A descriptor is available when AVAIL and USED differ, whichever is set."""
    change = "(_USED if lap & 1 else _AVAIL)"
    put(patch, PackedRing, "is_available", (f"== {change}", "in (_USED, _AVAIL)"))
    change = "(_USED if at // self._size & 1 else _AVAIL)"
    put(patch, PackedDescriptors, "chain", (f"!= {change}", "not in (_USED, _AVAIL)"))


class TiresOfKicks(EntropyDevice):
    """Looks after the first 40 kicks of a driver, and never again."""

    kick_count = 0

    def queue_notify(self, number):
        self.kick_count += 1
        return self.kick_count <= 40 and super().queue_notify(number)

    def reset(self):
        super().reset()
        self.kick_count = 0


ORDER = {"carrier": Carrier.VHOST_USER, "only": ("visible.*", "used.*", "untouched.*")}

MUTANTS = [
    Mutant(
        "shows-it-before-the-element",
        "entropy",
        {"visible.element-first"},
        patch=replaced(index_first),
        also={"visible.*", "untouched.*"},
        **ORDER,
    ),
    Mutant(
        "shows-it-before-the-data",
        "entropy",
        {"visible.data-first"},
        make=entropy(DataLast),
        also={"visible.*"},
        **ORDER,
    ),
    Mutant("writes-after-use", "entropy", {"visible.hands-off-after"}, make=entropy(WritesAgain)),
    Mutant(
        "changes-used-descriptors",
        "entropy",
        {"visible.used-descriptor-stays"},
        patch=replaced(changes_the_one_before),
        also={"*"},
        formats=PACKED,
    ),
    Mutant(
        "writes-headers",
        "block",
        {"untouched.readable-buffers"},
        make=block(WritesHeaders),
        also={"framing.*", "indirect.*", "size.*", "wrap.*", "block-*", "hostile.elements-of-no-bytes"},
    ),
    Mutant(
        "tidies-the-table",
        "entropy",
        {"untouched.descriptor-table"},
        patch=replaced(tidies_up),
        also={"wrap.*", "framing.*", "size.*"},
        formats=SPLIT,
    ),
    Mutant("eats-the-event", "entropy", {"untouched.available-ring"}, patch=replaced(eats_the_event), formats=SPLIT),
    Mutant(
        "acknowledges-the-event",
        "entropy",
        {"untouched.driver-event"},
        patch=replaced(acknowledges_the_event),
        also={"visible.*", "calls.*"},
        formats=PACKED,
    ),
    Mutant(
        "marks-tables",
        "entropy",
        {"untouched.indirect-table"},
        patch=replaced(marks_tables),
        also={"indirect.*", "hostile.table-*", "hostile.next-outside-an-indirect-table"},
    ),
    Mutant(
        "clears-the-next-element",
        "entropy",
        {"untouched.other-used-elements"},
        patch=replaced(clears_the_next_element),
        formats=SPLIT,
    ),
    Mutant(
        "clears-what-it-passes-over",
        "entropy",
        {"untouched.passed-over-descriptors"},
        patch=replaced(clears_what_it_passes_over),
        formats=PACKED,
    ),
    Mutant(
        "fills-whole-lines",
        "entropy",
        {"untouched.round-the-buffer"},
        make=entropy(WholeLines),
        also={"framing.*", "entropy.*", "hostile.elements-of-no-bytes"},
    ),
    Mutant("looks-ahead", "entropy", {"available.not-before-the-index"}, patch=replaced(looks_ahead), formats=SPLIT),
    Mutant(
        "takes-what-has-unequal-bits",
        "entropy",
        {"available.not-before-the-flag"},
        patch=replaced(unequal_bits),
        also={"hostile.*", "wrap.*"},
        formats=PACKED,
    ),
    Mutant(
        "tires-of-kicks",
        "entropy",
        {"available.more-while-at-work"},
        make=entropy(TiresOfKicks),
        also={"*"},
        verdict=Verdict.HUNG,
    ),
]
