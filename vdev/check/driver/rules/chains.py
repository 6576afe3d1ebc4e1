"""Chains of descriptors, whatever the ring's format: order, sizes, addresses ("Message Framing")."""

from vdev.check.driver.observation import ChainMadeAvailable
from vdev.check.driver.rule import Rule, rule, sees
from vdev.check.registry import RingFormat

__all__: list[str] = []

_SPLIT, _PACKED = (RingFormat.SPLIT,), (RingFormat.PACKED,)


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


@rule("split.writable-last", covers=["split.driver.framing.1"], awaits="made a buffer available", formats=_SPLIT)
class SplitWritableLast(_WritableLast):
    """Of a chain the device-readable descriptors come first."""

    statement = "split.driver.framing.1"


@rule(
    "packed.writable-last", covers=["packed.driver.scatter-gather.3"], awaits="made a buffer available", formats=_PACKED
)
class PackedWritableLast(_WritableLast):
    """Of a list the device-readable descriptors come first."""

    statement = "packed.driver.scatter-gather.3"
