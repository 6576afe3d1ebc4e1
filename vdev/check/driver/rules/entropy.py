"""What an entropy driver puts into its queue ("Entropy Device")."""

from vdev.check.driver.observation import ChainMadeAvailable
from vdev.check.driver.rule import Rule, rule, sees

__all__: list[str] = []


@rule("entropy.writable", covers=["entropy.driver.operation.1"], awaits="made a buffer available", types=["entropy"])
class Writable(Rule):
    """All buffers in the queue are for the device to write."""

    @sees(ChainMadeAvailable)
    def available(self, seen: ChainMadeAvailable) -> None:
        """None is device-readable."""
        readable = [each for each in seen.chain.segments if not each.is_writable]
        self.expect(
            not readable,
            "entropy.driver.operation.1",
            expected="no device-readable buffer",
            observed=f"{sum(each.size for each in readable)} device-readable bytes",
            shown=seen.chain.show(),
        )


@rule("entropy.room", covers=["entropy.driver.described.room"], awaits="made a buffer available", types=["entropy"])
class Room(Rule):
    """A buffer has room for a byte at least, and lies in guest RAM."""

    @sees(ChainMadeAvailable)
    def available(self, seen: ChainMadeAvailable) -> None:
        """Look at size and place."""
        outside = [each for each in seen.chain.segments if not self.picture.memory.contains(each.address, each.size)]
        self.expect(
            seen.chain.size > 0 and not outside,
            "entropy.driver.described.room",
            expected="room for a byte in guest RAM",
            observed=f"{seen.chain.size} bytes"
            + (f", some at {outside[0].address:#x}, outside of it" if outside else ""),
            shown=seen.chain.show(),
        )
