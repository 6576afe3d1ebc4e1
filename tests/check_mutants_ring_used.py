"""Mutants for the checks of what comes back, of sizes, and of wrap-arounds: rings with one fault each."""

import numpy as np
from check_mutants import Mutant, changed, entropy, replaced

from spec.device import Feature
from vdev.check.registry import BOTH, RingFormat
from vdev.check.verdict import Verdict
from vdev.devices.entropy import EntropyDevice
from vdev.devices.kind import Carrier
from vdev.errors import DriverViolation
from vdev.virtqueue.descriptors import DescriptorTable
from vdev.virtqueue.packed import PackedDeviceQueue
from vdev.virtqueue.packed_descriptors import PackedDescriptors
from vdev.virtqueue.packed_ring import PackedRing
from vdev.virtqueue.queue import QueueAddresses
from vdev.virtqueue.rings import Rings
from vdev.virtqueue.split import SplitDeviceQueue

SPLIT, PACKED = (RingFormat.SPLIT,), (RingFormat.PACKED,)

USED_ENTRY = "self._rings.store_used_entry(self._next_used, head, written_size)"
USED_DESCRIPTOR = "self._ring.store_used(self._next_used, head, written_size)"
A_PAGE = ("written_size)", "written_size or 4096)")


def named(head):
    """The change of `push` in a packed ring that names another buffer."""
    return USED_DESCRIPTOR, USED_DESCRIPTOR.replace("head,", f"{head},")


class SaysMoreThanItWrites(EntropyDevice):
    """Leaves the last byte out, and counts it."""

    def handle_queue(self, number):
        for chain in self.chains(number):
            data = self._source(min(chain.writable_size, 4096))
            chain.write(self.memory, data[:-1] or data)
            self.queues[number].push(chain.head, len(data))


class TakesOne(EntropyDevice):
    """Takes one buffer for each kick."""

    def queue_notify(self, number):
        queue = self.queues.get(number)
        if queue is not None and self.running and (chain := queue.pop()) is not None:
            queue.push(chain.head, chain.write(self.memory, self._source(chain.writable_size)))
            self.call_driver(number)
        return False


class GoesBackwards(EntropyDevice):
    """Uses what it took in the opposite order, IN_ORDER or not."""

    def handle_queue(self, number):
        taken = list(self.chains(number))
        for chain in reversed(taken):
            self.queues[number].push(chain.head, chain.write(self.memory, self._source(min(chain.writable_size, 4096))))


def goes_backwards(patch):
    from vdev.virtqueue.outstanding import Outstanding

    patch.setattr(Outstanding, "check", lambda self, head: None)


class TellsOnlyTheLast(EntropyDevice):
    """With IN_ORDER it names the last buffer of a batch only, filled completely or not."""

    def handle_queue(self, number):
        taken = list(self.chains(number))
        if not taken:
            return
        sizes = [chain.write(self.memory, self._source(min(chain.writable_size, 4096))) for chain in taken]
        if self.has_feature(Feature.IN_ORDER):
            sizes[:-1] = [chain.writable_size for chain in taken[:-1]]
        heads = np.array([chain.head for chain in taken], np.int64)
        self.queues[number].push_batch(heads, np.array(sizes, np.int64))


def limited(owner, method, what):
    """A ``patch``: the method refuses what is beyond the limit that a lazy author set."""

    def apply(patch):
        original = getattr(owner, method)

        def guarded(self, *arguments):
            result = original(self, *arguments)
            if what(self, result):
                raise DriverViolation("Virtqueues", "more than this device thought of")
            return result

        patch.setattr(owner, method, guarded)

    return replaced(apply)


def segment_count(chain):
    return len(chain.readable) + len(chain.writable)


TAKES_ONE = frozenset({"used.once-each", "available.one-kick-for-many", "indirect.a-table-for-each-place"})

MUTANTS = [
    # Names
    Mutant(
        "names-the-first-0-split",
        "entropy",
        {"used.names-the-buffer"},
        patch=changed(
            SplitDeviceQueue, "push", (USED_ENTRY, USED_ENTRY.replace("head,", "head if self._next_used else 0,"))
        ),
        also={"framing.descriptors-anywhere"},
        formats=SPLIT,
    ),
    Mutant(
        "names-the-first-0-packed",
        "entropy",
        {"used.names-the-buffer"},
        patch=changed(
            PackedDeviceQueue,
            "push",
            named("head if self._next_used else 0"),
        ),
        also={"wrap.list-over-the-end", "size.chain-fills-the-queue"},
        formats=PACKED,
    ),
    # How many
    Mutant(
        "index-runs-ahead-after-two-laps",
        "entropy",
        {"used.once-each", "wrap.index-counts-each-buffer"},
        patch=changed(
            SplitDeviceQueue, "push", ("_publish_used(1)", "_publish_used(1 + (self._next_used + 1 == 2 * self.size))")
        ),
        also={"*"},
        formats=SPLIT,
    ),
    *(
        Mutant(
            f"takes-only-one-for-a-kick-{ring_format.value}",
            "entropy",
            TAKES_ONE,
            make=entropy(TakesOne),
            formats=(ring_format,),
            only=tuple(TAKES_ONE),  # Most checks hang, and the run is given up then.
            verdict=Verdict.HUNG,
        )
        for ring_format in BOTH
    ),
    # Lengths
    Mutant(
        "counts-a-byte-that-it-leaves-out", "entropy", {"used.length-was-written"}, make=entropy(SaysMoreThanItWrites)
    ),
    Mutant(
        "says-that-a-page-was-written-split",
        "balloon",
        {"used.length-fits"},
        patch=changed(SplitDeviceQueue, "push", (USED_ENTRY, USED_ENTRY.replace(*A_PAGE))),
        also={"*"},
        formats=SPLIT,
    ),
    Mutant(
        "says-that-a-page-was-written-packed",
        "balloon",
        {"used.length-fits"},
        patch=changed(
            PackedDeviceQueue,
            "push",
            (USED_DESCRIPTOR, USED_DESCRIPTOR.replace(*A_PAGE)),
        ),
        also={"*"},
        formats=PACKED,
    ),
    Mutant(
        "always-sets-write",
        "balloon",
        {"used.write-flag"},
        patch=changed(PackedRing, "store_used", ("(_WRITE if written_size else 0)", "_WRITE")),
        formats=PACKED,
    ),
    # Places
    Mutant(
        "takes-one-place-for-a-list",
        "entropy",
        {"used.one-after-the-other"},
        patch=changed(
            PackedDeviceQueue,
            "push",
            (
                "self._note_used(self._outstanding.give_back(head))",
                "self._outstanding.give_back(head)\n    self._note_used(1)",
            ),
        ),
        also={"*"},
        formats=PACKED,
    ),
    Mutant(
        "swaps-places-in-the-fourth-lap",
        "entropy",
        {"wrap.places"},
        patch=changed(
            Rings,
            "store_used_entry",
            (
                "word = 2 * (index & (self._size - 1))",
                "word = 2 * ((index ^ (self._size > 1 and index >= 3 * self._size)) & (self._size - 1))",
            ),
        ),
        also={"*"},
        formats=SPLIT,
    ),
    Mutant(
        "swaps-ids-in-the-second-lap",
        "entropy",
        {"wrap.places"},
        patch=changed(
            PackedDeviceQueue,
            "push",
            named("head ^ (self.size == 5 and self._next_used > 6)"),
        ),
        also={"wrap.*", "size.*"},
        formats=PACKED,
    ),
    Mutant(
        "keeps-its-counter-at-the-last-place",
        "entropy",
        {"wrap.counter-in-used-flags"},
        patch=changed(
            PackedRing,
            "store_used",
            ("(0 if lap & 1 else _BOTH)", "(0 if lap & 1 and offset < self.size - 1 else _BOTH)"),
        ),
        also={"*"},
        formats=PACKED,
    ),
    Mutant(
        "list-has-the-counter-of-its-beginning",
        "entropy",
        {"wrap.list-over-the-end"},
        patch=changed(
            PackedDescriptors,
            "chain",
            ("(_USED if at // self._size & 1 else _AVAIL)", "(_USED if place // self._size & 1 else _AVAIL)"),
        ),
        also={"*"},
        formats=PACKED,
        verdict=Verdict.HUNG,
    ),
    Mutant(
        "next-only-goes-up",
        "entropy",
        {"wrap.list-over-the-end"},
        patch=changed(
            DescriptorTable,
            "_long_chain",
            (
                "if visited_count >= entry_count:",
                "if visited_count >= entry_count or not in_indirect and next_index <= index:",
            ),
        ),
        also={"*"},
        formats=SPLIT,
        verdict=Verdict.HUNG,
    ),
    # Sizes
    Mutant(
        "one-place-in-a-queue-of-two",
        "entropy",
        {"size.each-that-is-allowed"},
        patch=changed(Rings, "store_used_entry", ("(self._size - 1)", "(self._size - 1 if self._size != 2 else 0)")),
        also={"size.*"},
        formats=SPLIT,
    ),
    Mutant(
        "odd-sizes-are-rounded-up",
        "entropy",
        {"size.each-that-is-allowed"},
        patch=changed(
            PackedDeviceQueue, "_take", ("% (2 * self.size)", "% (2 * (self.size + (self.size & 1 and self.size > 5)))")
        ),
        also={"*"},
        formats=PACKED,
        verdict=Verdict.HUNG,
    ),
    Mutant(
        "heads-of-seven-bits",
        "entropy",
        {"size.largest"},
        patch=changed(SplitDeviceQueue, "push", (USED_ENTRY, USED_ENTRY.replace("head,", "head & 0x7F,"))),
        formats=SPLIT,
    ),
    Mutant(
        "ids-of-seven-bits",
        "entropy",
        {"size.largest"},
        patch=changed(PackedDeviceQueue, "push", named("head & 0x7F")),
        formats=PACKED,
    ),
    Mutant(
        "chain-shorter-than-the-queue-split",
        "entropy",
        {"size.chain-fills-the-queue"},
        patch=limited(DescriptorTable, "chain", lambda self, chain: 1 < self.size <= segment_count(chain)),
        also={"*"},
        formats=SPLIT,
        verdict=Verdict.HUNG,
    ),
    Mutant(
        "chain-shorter-than-the-queue-packed",
        "entropy",
        {"size.chain-fills-the-queue"},
        patch=limited(PackedDescriptors, "chain", lambda self, taken: 1 < self._size <= segment_count(taken[0])),
        also={"*"},
        formats=PACKED,
        verdict=Verdict.HUNG,
    ),
    Mutant(
        "areas-below-4-gib",
        "entropy",
        {"areas.anywhere-in-ram"},
        patch=replaced(
            lambda patch: patch.setattr(
                "vdev.device_queues.QueueAddresses",
                lambda size, descriptor, driver, device: QueueAddresses(
                    size, descriptor & 0xFFFF_FFFF, driver & 0xFFFF_FFFF, device & 0xFFFF_FFFF
                ),
            )
        ),
        also={"*"},
        verdict=Verdict.HUNG,
    ),
    # Order
    Mutant(
        "goes-backwards",
        "entropy",
        {"in-order.oldest-first"},
        also={"in-order.one-for-several"},
        make=entropy(GoesBackwards),
        patch=replaced(goes_backwards),
    ),
    Mutant("tells-only-the-last", "entropy", {"in-order.one-for-several"}, make=entropy(TellsOnlyTheLast)),
    # From a base
    Mutant(
        "index-ends-at-65534",
        "entropy",
        {"wrap.index-at-65536"},
        patch=changed(
            SplitDeviceQueue,
            "_publish_used",
            ("(self._next_used + count) & 0xFFFF", "(self._next_used + count) % 0xFFFF"),
        ),
        formats=SPLIT,
        carrier=Carrier.VHOST_USER,
        only=("wrap.*",),
    ),
    Mutant(
        "forgets-the-base-s-counter",
        "entropy",
        {"wrap.counter-from-a-base"},
        patch=changed(
            PackedDeviceQueue, "start_from", ("self._place(base & 0xFFFF)", "self._place(base & 0x7FFF | 0x8000)")
        ),
        formats=PACKED,
        carrier=Carrier.VHOST_USER,
        only=("wrap.*",),
        verdict=Verdict.HUNG,
    ),
]
