"""Chains of descriptors, in each format: order, sizes, addresses, indirect tables ("Message Framing", "Indirect
Descriptors").
"""

from spec.device import Feature
from spec.packed_ring import PackedFlag
from spec.split_ring import DescriptorFlag
from vdev.check.driver.observation import ChainMadeAvailable
from vdev.check.driver.rule import Rule, rule, sees
from vdev.check.registry import RingFormat

__all__: list[str] = []

_SPLIT, _PACKED = (RingFormat.SPLIT,), (RingFormat.PACKED,)
_ANY_CHAIN = "made a buffer available"
_LONG_CHAIN = "made a buffer of several descriptors available"
_TABLE = "used an indirect table"
_MOST_BYTES = 1 << 32


class _WritableLast(Rule):
    statement = ""

    @sees(ChainMadeAvailable)
    def available(self, seen: ChainMadeAvailable) -> None:
        """Look at the order."""
        flags = [each.is_writable for each in seen.chain.segments]
        self.expect(
            flags == sorted(flags),
            self.statement,
            expected="device-readable descriptors, then device-writable ones",
            observed=", ".join("writable" if each else "readable" for each in flags),
            shown=seen.chain.show(),
        )


@rule("split.writable-last", covers=["split.driver.framing.1"], awaits=_ANY_CHAIN, formats=_SPLIT)
class SplitWritableLast(_WritableLast):
    """Of a chain the device-readable descriptors come first."""

    statement = "split.driver.framing.1"


@rule("packed.writable-last", covers=["packed.driver.scatter-gather.3"], awaits=_ANY_CHAIN, formats=_PACKED)
class PackedWritableLast(_WritableLast):
    """Of a list the device-readable descriptors come first."""

    statement = "packed.driver.scatter-gather.3"


@rule("split.chain-ends", covers=["split.driver.descriptor-table.1"], awaits=_ANY_CHAIN, formats=_SPLIT)
class ChainEnds(Rule):
    """A chain is at most 2^32 bytes long, stays in its table, and has no loop."""

    @sees(ChainMadeAvailable)
    def available(self, seen: ChainMadeAvailable) -> None:
        """Look at the whole chain."""
        chain = seen.chain
        self.expect(
            not chain.fault and chain.size <= _MOST_BYTES,
            "split.driver.descriptor-table.1",
            expected=f"a chain with an end, of at most {_MOST_BYTES} bytes",
            observed=chain.fault or f"{chain.size} bytes",
            shown=chain.show(),
        )


class _NotLongerThanQueue(Rule):
    statement = ""

    @sees(ChainMadeAvailable)
    def available(self, seen: ChainMadeAvailable) -> None:
        """Count."""
        size = self.picture.queues[seen.number].areas.size
        count = len(seen.chain.segments)
        self.expect(
            count <= size,
            self.statement,
            expected=f"at most {size} descriptors, the queue's size",
            observed=f"{count} in one buffer",
            shown=seen.chain.show()[:4],
        )


@rule("split.chain-fits", covers=["split.driver.indirect.3"], awaits=_ANY_CHAIN, formats=_SPLIT)
class SplitChainFits(_NotLongerThanQueue):
    """A chain, also one in an indirect table, has no more descriptors than the queue."""

    statement = "split.driver.indirect.3"


class _Room(Rule):
    statement = ""
    in_empty_ring = False

    @sees(ChainMadeAvailable)
    def available(self, seen: ChainMadeAvailable) -> None:
        """Look whether the list goes on where no descriptor is free."""
        size = self.picture.queues[seen.number].areas.size
        goes_on = "goes on past" in seen.chain.fault and (len(seen.chain.descriptors) == size) == self.in_empty_ring
        self.expect(
            not goes_on,
            self.statement,
            expected="a list that ends where the free descriptors do",
            observed=seen.chain.fault,
            shown=seen.chain.show()[-2:],
        )


@rule(
    "packed.list-fits",
    covers=["packed.driver.scatter-gather.2"],
    awaits=_ANY_CHAIN,
    formats=_PACKED,
)
class PackedListFits(_Room):
    """A list has no more descriptors than the queue."""

    statement, in_empty_ring = "packed.driver.scatter-gather.2", True


@rule("packed.list-has-room", covers=["packed.driver.scatter-gather.5"], awaits=_ANY_CHAIN, formats=_PACKED)
class ListHasRoom(_Room):
    """A list is begun only where the ring has room for all of it."""

    statement, in_empty_ring = "packed.driver.scatter-gather.5", False


@rule(
    "packed.table-fits",
    covers=["packed.driver.indirect.3"],
    awaits=_TABLE,
    formats=_PACKED,
    features=[Feature.INDIRECT_DESC],
)
class PackedTableFits(_NotLongerThanQueue):
    """An indirect table has no more entries than the device allows."""

    statement = "packed.driver.indirect.3"

    @sees(ChainMadeAvailable)
    def available(self, seen: ChainMadeAvailable) -> None:
        """Count those in a table."""
        if seen.chain.table:
            super().available(seen)


@rule("packed.id-below-size", covers=["errata.packed.buffer-id"], awaits=_ANY_CHAIN, formats=_PACKED)
class IdBelowSize(Rule):
    """A buffer's id is below the queue's size, as vhost-user's area for buffers in flight needs it."""

    @sees(ChainMadeAvailable)
    def available(self, seen: ChainMadeAvailable) -> None:
        """Compare."""
        size = self.picture.queues[seen.number].areas.size
        self.expect(
            seen.chain.head < size,
            "errata.packed.buffer-id",
            expected=f"an id below {size}",
            observed=f"{seen.chain.head}",
            shown=seen.chain.show(),
        )


class _IndirectAgreed(Rule):
    statement = ""

    @sees(ChainMadeAvailable)
    def available(self, seen: ChainMadeAvailable) -> None:
        """Look for the flag."""
        agreed = self.picture.has(Feature.INDIRECT_DESC)
        self.expect(
            agreed or not any(each.is_indirect for each in seen.chain.descriptors),
            self.statement,
            expected="no INDIRECT, as INDIRECT_DESC was not agreed",
            observed="a descriptor with INDIRECT",
            shown=seen.chain.show(),
        )


@rule("split.indirect-agreed", covers=["split.driver.indirect.1"], awaits=_ANY_CHAIN, formats=_SPLIT)
class SplitIndirectAgreed(_IndirectAgreed):
    """INDIRECT stands in a descriptor only where the feature was agreed."""

    statement = "split.driver.indirect.1"


@rule("packed.indirect-agreed", covers=["packed.driver.indirect.1"], awaits=_ANY_CHAIN, formats=_PACKED)
class PackedIndirectAgreed(_IndirectAgreed):
    """INDIRECT stands in a descriptor only where the feature was agreed."""

    statement = "packed.driver.indirect.1"


@rule(
    "split.no-table-in-a-table",
    covers=["split.driver.indirect.2"],
    awaits=_TABLE,
    formats=_SPLIT,
    features=[Feature.INDIRECT_DESC],
)
class NoTableInTable(Rule):
    """An indirect table has no reference to another one."""

    @sees(ChainMadeAvailable)
    def available(self, seen: ChainMadeAvailable) -> None:
        """Look at the entries."""
        if seen.chain.table:
            flagged = [each for each in seen.chain.table if each.flags & DescriptorFlag.INDIRECT]
            self.expect(
                not flagged,
                "split.driver.indirect.2",
                expected="entries without INDIRECT",
                observed=f"INDIRECT in entry {flagged[0].place if flagged else 0}",
                shown=seen.chain.show(),
            )


@rule(
    "packed.table-flags",
    covers=["packed.driver.indirect.2"],
    awaits=_TABLE,
    formats=_PACKED,
    features=[Feature.INDIRECT_DESC],
)
class PackedTableFlags(Rule):
    """In an indirect table no flag is set but WRITE."""

    @sees(ChainMadeAvailable)
    def available(self, seen: ChainMadeAvailable) -> None:
        """Look at the entries."""
        if seen.chain.table:
            flagged = [each for each in seen.chain.table if each.flags & ~PackedFlag.WRITE]
            self.expect(
                not flagged,
                "packed.driver.indirect.2",
                expected="entries with no flag but WRITE",
                observed=f"flags {flagged[0].flags:#x} in entry {flagged[0].place}" if flagged else "",
                shown=seen.chain.show(),
            )


@rule(
    "split.indirect-without-next",
    covers=["split.driver.indirect.4"],
    awaits=_TABLE,
    formats=_SPLIT,
    features=[Feature.INDIRECT_DESC],
)
class SplitIndirectWithoutNext(Rule):
    """INDIRECT and NEXT do not stand in one descriptor."""

    @sees(ChainMadeAvailable)
    def available(self, seen: ChainMadeAvailable) -> None:
        """Look at each descriptor that refers to a table."""
        for each in seen.chain.descriptors:
            if each.is_indirect:
                self.expect(
                    not each.has_next,
                    "split.driver.indirect.4",
                    expected="INDIRECT without NEXT",
                    observed=f"flags {each.flags:#x}",
                    shown=[each.show()],
                )


@rule(
    "packed.indirect-alone",
    covers=["packed.driver.indirect.4"],
    awaits=_TABLE,
    formats=_PACKED,
    features=[Feature.INDIRECT_DESC],
)
class PackedIndirectAlone(Rule):
    """A descriptor with INDIRECT is no part of a list."""

    @sees(ChainMadeAvailable)
    def available(self, seen: ChainMadeAvailable) -> None:
        """Look for tables in lists."""
        if any(each.is_indirect for each in seen.chain.descriptors):
            self.expect(
                len(seen.chain.descriptors) == 1 and not seen.chain.descriptors[0].has_next,
                "packed.driver.indirect.4",
                expected="a descriptor with INDIRECT by itself",
                observed=f"a list of {len(seen.chain.descriptors)} with flags "
                + ", ".join(f"{each.flags:#x}" for each in seen.chain.descriptors),
                shown=seen.chain.show(),
            )


@rule(
    "split.in-order-chains",
    covers=["split.driver.descriptor-table.2"],
    awaits=_LONG_CHAIN,
    formats=_SPLIT,
    features=[Feature.IN_ORDER],
)
class InOrderChains(Rule):
    """With IN_ORDER a chain's descriptors follow each other in the table."""

    @sees(ChainMadeAvailable)
    def available(self, seen: ChainMadeAvailable) -> None:
        """Look at each link."""
        if not self.picture.has(Feature.IN_ORDER):
            return
        size = self.picture.queues[seen.number].areas.size
        for each in seen.chain.descriptors:
            if each.has_next:
                self.expect(
                    each.link == (each.place + 1) % size,
                    "split.driver.descriptor-table.2",
                    expected=f"next {(each.place + 1) % size} in descriptor {each.place}",
                    observed=f"{each.link}",
                    shown=[each.show()],
                )


@rule(
    "split.in-order-tables",
    covers=["split.driver.indirect.5"],
    awaits="used an indirect table of several entries with IN_ORDER",
    formats=_SPLIT,
    features=[Feature.IN_ORDER, Feature.INDIRECT_DESC],
)
class InOrderTables(Rule):
    """With IN_ORDER the entries of an indirect table follow each other."""

    @sees(ChainMadeAvailable)
    def available(self, seen: ChainMadeAvailable) -> None:
        """Look at each link."""
        if not self.picture.has(Feature.IN_ORDER) or len(seen.chain.table) < 2:
            return
        for place, each in enumerate(seen.chain.table):
            self.expect(
                each.place == place,
                "split.driver.indirect.5",
                expected=f"entry {place} as number {place + 1} of the chain",
                observed=f"entry {each.place}",
                shown=seen.chain.show(),
            )


@rule("packed.list-is-whole", covers=["packed.driver.scatter-gather.6"], awaits=_LONG_CHAIN, formats=_PACKED)
class ListIsWhole(Rule):
    """When the first descriptor of a list is available, all of them are."""

    @sees(ChainMadeAvailable)
    def available(self, seen: ChainMadeAvailable) -> None:
        """Look at lists, and at what follows a descriptor with NEXT."""
        chain = seen.chain
        if len(chain.descriptors) > 1 or chain.descriptors[0].has_next:
            self.expect(
                "is not available" not in chain.fault,
                "packed.driver.scatter-gather.6",
                expected="every descriptor of the list available",
                observed=chain.fault,
                shown=chain.show(),
            )


@rule("features.physical-addresses", covers=["reserved.driver.5"], awaits=_ANY_CHAIN)
class PhysicalAddresses(Rule):
    """Without ACCESS_PLATFORM every address that the device gets is one of guest RAM."""

    @sees(ChainMadeAvailable)
    def available(self, seen: ChainMadeAvailable) -> None:
        """Look each one up."""
        if self.picture.has(Feature.ACCESS_PLATFORM):
            return
        for each in seen.chain.segments:
            self.expect(
                self.picture.memory.contains(each.address, each.size),
                "reserved.driver.5",
                expected="an address in guest RAM",
                observed=f"{each.address:#x}, {each.size} bytes",
                shown=[each.show()],
            )
