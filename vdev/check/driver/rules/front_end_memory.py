"""What a front end tells of its memory and its log ("Vhost-user Protocol")."""

from itertools import pairwise

from spec.vhost_user import LOG_PAGE_SIZE, FrontEndRequest
from vdev.check.driver.front_end_rule import VHOST_USER, RegionRule, payload_of, show_message
from vdev.check.driver.observation import MessageReceived
from vdev.check.driver.rule import Rule, rule, sees

__all__: list[str] = []

R = FrontEndRequest


@rule(
    "front-end.descriptor-for-each-region",
    covers=["vhost-user.front-end.memory-table.1"],
    awaits="sent a memory table",
    carriers=VHOST_USER,
)
class DescriptorForEachRegion(RegionRule):
    """A memory table brings one file descriptor for each region."""

    def judge(self, seen: MessageReceived) -> None:
        """Count both."""
        if seen.request == R.SET_MEM_TABLE:
            self.expect(
                len(seen.fds) == len(self.regions),
                "vhost-user.front-end.memory-table.1",
                expected=f"{len(self.regions)} file descriptors",
                observed=f"{len(seen.fds)}",
                shown=show_message(seen),
            )


@rule(
    "front-end.regions-apart",
    covers=["vhost-user.front-end.memory-table.2"],
    awaits="told of its memory",
    carriers=VHOST_USER,
)
class RegionsApart(RegionRule):
    """Regions overlap neither in guest addresses nor in user addresses."""

    def told(self, seen: MessageReceived) -> None:
        """Compare each with the next."""
        for name, at in (("guest", 0), ("user", 2)):
            spans = sorted((region[at], region[at] + region[1]) for region in self.regions)
            clash = [(one, other) for one, other in pairwise(spans) if one[1] > other[0]]
            self.expect(
                not clash,
                "vhost-user.front-end.memory-table.2",
                expected=f"regions apart in {name} addresses",
                observed=f"{clash[0][0][0]:#x} to {clash[0][0][1]:#x}, and {clash[0][1][0]:#x}" if clash else "",
                shown=show_message(seen),
            )


@rule(
    "front-end.no-descriptor-to-remove",
    covers=["vhost-user.front-end.mem-slots.1"],
    awaits="sent REM_MEM_REG",
    carriers=VHOST_USER,
)
class NoDescriptorToRemove(Rule):
    """REM_MEM_REG brings no file descriptor."""

    @sees(MessageReceived)
    def received(self, seen: MessageReceived) -> None:
        """Count."""
        if seen.request == R.REM_MEM_REG:
            self.expect(
                not seen.fds,
                "vhost-user.front-end.mem-slots.1",
                expected="no file descriptor",
                observed=f"{len(seen.fds)}",
            )


@rule(
    "front-end.rings-in-memory",
    covers=["vhost-user.front-end.ring.6"],
    awaits="said where a ring is",
    carriers=VHOST_USER,
)
class RingsInMemory(RegionRule):
    """A ring's user addresses are in a region that the back end knows."""

    def judge(self, seen: MessageReceived) -> None:
        """Look each one up."""
        payload = payload_of(seen) if seen.request == R.SET_VRING_ADDR else None
        if payload is None:
            return
        for name in ("descriptor", "available", "used"):
            address = payload[name]
            self.expect(
                any(user <= address < user + size for _, size, user in self.regions),
                "vhost-user.front-end.ring.6",
                expected=f"the {name} area in a region that was told",
                observed=f"{address:#x}",
                shown=show_message(seen),
            )


@rule("front-end.log-large-enough", covers=["vhost-user.front-end.log.1"], awaits="gave a log", carriers=VHOST_USER)
class LogLargeEnough(RegionRule):
    """The log has a bit for each page of the regions that are known."""

    def judge(self, seen: MessageReceived) -> None:
        """Compare it with the highest address."""
        payload = payload_of(seen) if seen.request == R.SET_LOG_BASE else None
        if payload is None or not self.regions:
            return
        highest = max(guest + size for guest, size, _ in self.regions)
        needed = -(-highest // (8 * LOG_PAGE_SIZE))
        self.expect(
            payload.size >= needed,
            "vhost-user.front-end.log.1",
            expected=f"at least {needed} bytes, for addresses up to {highest:#x}",
            observed=f"{payload.size}",
            shown=show_message(seen),
        )
