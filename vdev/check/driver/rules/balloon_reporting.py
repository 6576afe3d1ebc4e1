"""What a balloon driver reports as free ("Free Page Reporting")."""

from spec.balloon import BalloonFeature, BalloonQueue
from vdev.check.driver.balloon_rule import BalloonRule
from vdev.check.driver.observation import ChainMadeAvailable
from vdev.check.driver.rule import rule, sees
from vdev.memory import PAGE_SIZE

__all__: list[str] = []


class _BlocksRule(BalloonRule):
    queue: BalloonQueue
    statement = ""
    what = ""

    @sees(ChainMadeAvailable)
    def available(self, seen: ChainMadeAvailable) -> None:
        """Each buffer is device-writable, in RAM, and whole pages."""
        if not self.is_of(seen.number, self.queue) or not self.names_pages(seen):
            return
        for block in seen.chain.segments:
            is_inside = self.picture.memory.contains(block.address, block.size)
            is_whole = not block.address % PAGE_SIZE and not block.size % PAGE_SIZE and bool(block.size)
            side = "device-writable" if block.is_writable else "device-readable"
            place = "in guest RAM" if is_inside else "not in guest RAM"
            self.expect(
                block.is_writable and is_inside and is_whole,
                self.statement,
                expected=f"whole pages of guest RAM, device-writable, as {self.what}",
                observed=f"{block.size} bytes at {block.address:#x}, {side}, {place}",
                shown=(block.show(),),
            )

    def names_pages(self, seen: ChainMadeAvailable) -> bool:
        """Say whether the chain is about pages."""
        return True


@rule(
    "balloon.reported-pages",
    covers=["balloon.driver.described.reported-pages"],
    awaits="reported a page",
    types=["balloon"],
    features=[BalloonFeature.PAGE_REPORTING],
)
class ReportedPages(_BlocksRule):
    """A report names whole pages of guest RAM in device-writable buffers."""

    queue = BalloonQueue.REPORTING
    statement = "balloon.driver.described.reported-pages"
    what = "a report"


@rule(
    "balloon.hinted-pages",
    covers=["balloon.driver.described.hinted-pages"],
    awaits="hinted a page",
    types=["balloon"],
    features=[BalloonFeature.FREE_PAGE_HINT],
)
class HintedPages(_BlocksRule):
    """A hint names whole pages of guest RAM in a device-writable buffer."""

    queue = BalloonQueue.FREE_PAGE
    statement = "balloon.driver.described.hinted-pages"
    what = "a hint"

    def names_pages(self, seen: ChainMadeAvailable) -> bool:
        """A device-readable buffer is a command id."""
        return any(each.is_writable for each in seen.chain.segments)
