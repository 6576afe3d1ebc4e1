"""Mutants for the checks of message framing and indirect tables: devices that expect what drivers usually do."""

from dataclasses import replace

from check_mutants import Mutant, changed, entropy, replaced
from race_rings_mutants import put

from vdev.check.registry import RingFormat
from vdev.check.verdict import Verdict
from vdev.devices.entropy import EntropyDevice
from vdev.errors import DriverViolation
from vdev.virtqueue.descriptors import DescriptorTable
from vdev.virtqueue.packed_descriptors import PackedDescriptors

SPLIT, PACKED = (RingFormat.SPLIT,), (RingFormat.PACKED,)


def seen_as(change):
    """A ``patch``: each chain is ``change(chain)``, in a ring of either format."""

    def apply(patch):
        split, packed = DescriptorTable.chain, PackedDescriptors.chain

        def changed_packed(self, place, free_count):
            chain, count = packed(self, place, free_count)
            return change(chain), count

        patch.setattr(DescriptorTable, "chain", lambda self, head: change(split(self, head)))
        patch.setattr(PackedDescriptors, "chain", changed_packed)

    return replaced(apply)


def whole_header(chain):
    """The first readable element is as long as a header, whatever it says."""
    if not chain.readable or chain.readable[0].size >= 16:
        return chain
    return replace(chain, readable=(chain.readable[0]._replace(size=16),))


def first_writable_only(chain):
    """What is behind the first writable element is forgotten, if that has room for more than a status."""
    return replace(chain, writable=chain.writable[:1]) if len(chain.writable) == 2 and chain.readable else chain


def few_elements(chain):
    """The elements behind the first 8 readable and 8 writable ones are forgotten."""
    return replace(chain, readable=chain.readable[:8], writable=chain.writable[:8])


def by_address(chain):
    """The elements are taken as they lie in memory."""
    return replace(chain, readable=tuple(sorted(chain.readable)), writable=tuple(sorted(chain.writable)))


def short_lengths(chain):
    """Lengths have 16 bits."""
    return replace(chain, writable=tuple(part._replace(size=part.size & 0xFFFF) for part in chain.writable))


class OnePage(EntropyDevice):
    """Fills a buffer up to the end of its first page, and says that it was all."""

    def handle_queue(self, number):
        for chain in self.chains(number):
            address, size = chain.writable[0]
            data = self._source(min(size, 4096 - address % 4096))
            self.memory.write(address, data)
            rest = chain.writable_size - len(data) if address % 4096 + size > 4096 else 0
            self.queues[number].push(chain.head, len(data) + 4096 * bool(rest))


def refused(owner, name, change):
    """A ``patch``: the method raises a violation where ``change`` puts ``raise refusal``."""

    def apply(patch):
        patch.setitem(
            vars(__import__(owner.__module__, fromlist=["_"])), "_refusal", DriverViolation("Rings", "unusual")
        )
        put(patch, owner, name, change)

    return replaced(apply)


def tables_or_none(patch):
    """After a table, a chain without one is refused."""
    chain = DescriptorTable.chain
    packed = PackedDescriptors.chain

    def is_table(self, flags):
        if flags & 4:
            self.has_tables = True
        elif getattr(self, "has_tables", False):
            raise DriverViolation("Rings", "this driver has tables")

    def split_chain(self, head):
        is_table(self, self._read(head)[2])
        return chain(self, head)

    def packed_chain(self, place, free_count):
        is_table(self, self.ring.descriptor(place)[3])
        return packed(self, place, free_count)

    patch.setattr(DescriptorTable, "chain", split_chain)
    patch.setattr(PackedDescriptors, "chain", packed_chain)


def tables_of(patch, check):
    """Tables go through ``check(table, flags)``."""
    import vdev.virtqueue.descriptors
    import vdev.virtqueue.packed_descriptors
    from vdev.virtqueue.indirect import read_indirect_table

    def read(memory, address, size, flags, **options):
        return check(read_indirect_table(memory, address, size, flags, **options), flags)

    for module in (vdev.virtqueue.descriptors, vdev.virtqueue.packed_descriptors):
        patch.setattr(module, "read_indirect_table", read)


def no_write(table, flags):
    """WRITE where a table is referred to is refused."""
    if flags & 2:
        raise DriverViolation("Rings", "a table is not written")
    return table


def nothing_but_write(table, flags):
    """Any flag but WRITE in an entry is refused."""
    if any(int.from_bytes(table[at + 14 : at + 16], "little") & ~2 for at in range(0, len(table), 16)):
        raise DriverViolation("Rings", "unknown flags in a table")
    return table


def short_tables(table, flags):
    """Tables of more than 8 entries are refused."""
    if len(table) > 8 * 16:
        raise DriverViolation("Rings", "a long table")
    return table


HUNG = {"verdict": Verdict.HUNG}

MUTANTS = [
    Mutant(
        "header-in-one-element",
        "block",
        {"framing.readable-part-cut-anywhere"},
        patch=seen_as(whole_header),
        also={"*"},
    ),
    Mutant(
        "one-writable-element",
        "block",
        {"framing.writable-part-cut-anywhere"},
        patch=seen_as(first_writable_only),
        also={"*"},
    ),
    Mutant(
        "few-elements", "block", {"framing.an-element-for-each-byte"}, patch=seen_as(few_elements), also={"*"}, **HUNG
    ),
    Mutant(
        "elements-by-address", "entropy", {"framing.elements-in-their-order"}, patch=seen_as(by_address), also={"*"}
    ),
    Mutant("lengths-of-16-bits", "block", {"framing.large"}, patch=seen_as(short_lengths), also={"block-*"}),
    Mutant("one-page-of-each", "entropy", {"framing.across-pages"}, make=entropy(OnePage), also={"*"}),
    Mutant(
        "next-is-the-one-behind",
        "block",
        {"framing.descriptors-anywhere"},
        patch=changed(
            DescriptorTable,
            "_long_chain",
            ("index = next_index\n", "index = next_index if in_indirect else (index + 1) % self.size\n"),
        ),
        also={"*"},
        formats=SPLIT,
        **HUNG,
    ),
    # Indirect tables
    Mutant(
        "tables-of-8",
        "entropy",
        {"indirect.each-length"},
        patch=replaced(lambda patch: tables_of(patch, short_tables)),
        also={"hostile.table-longer-than-the-queue"},
        **HUNG,
    ),
    Mutant("tables-or-none", "entropy", {"indirect.mixed-with-direct"}, patch=replaced(tables_or_none), **HUNG),
    Mutant(
        "table-without-write",
        "entropy",
        {"indirect.write-means-nothing"},
        patch=replaced(lambda patch: tables_of(patch, no_write)),
    ),
    Mutant(
        "table-at-the-head-only",
        "entropy",
        {"indirect.behind-direct-ones"},
        patch=refused(
            DescriptorTable,
            "_long_chain",
            ("    if in_indirect:\n", "    if visited_count > 1: raise _refusal\n            if in_indirect:\n"),
        ),
        formats=SPLIT,
    ),
    Mutant(
        "table-in-a-row",
        "entropy",
        {"indirect.next-is-followed"},
        patch=changed(
            DescriptorTable,
            "_long_chain",
            ("index = next_index\n", "index = index + 1 if in_indirect else next_index\n"),
        ),
        also={"hostile.*"},
        formats=SPLIT,
    ),
    Mutant(
        "flags-in-a-table",
        "entropy",
        {"indirect.ids-and-flags-mean-nothing"},
        patch=replaced(lambda patch: tables_of(patch, nothing_but_write)),
        formats=PACKED,
    ),
]
