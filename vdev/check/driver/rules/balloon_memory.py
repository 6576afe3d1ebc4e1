"""Whether a balloon driver leaves alone what it gave away ("Device Operation")."""

from spec.balloon import PAGE_FRAME_SIZE, BalloonFeature, BalloonQueue
from vdev.check.driver.balloon_count import CountingRule, Pages
from vdev.check.driver.balloon_rule import BalloonRule
from vdev.check.driver.observation import (
    ChainGivenBack,
    ChainMadeAvailable,
    DeviceWrote,
    EntryChanged,
    EntryKept,
    MessageReceived,
    Rested,
)
from vdev.check.driver.page_watch import PageWatch
from vdev.check.driver.picture import Picture
from vdev.check.driver.rule import rule, sees
from vdev.check.evidence import Shown

__all__: list[str] = []

_TYPES = ("balloon",)
_PAGES_OF_A_REQUEST = 32
_PAGES_WATCHED = 2048


class _HeldRule(BalloonRule):
    """Looks at the pages of a request for as long as the device has it."""

    queue: BalloonQueue
    statement = ""
    done = ""

    def __init__(self, picture: Picture) -> None:
        super().__init__(picture)
        self._held: dict[int, PageWatch] = {}

    def named(self, seen: ChainMadeAvailable) -> list[tuple[int, int]]:
        """Return the memory that a request names, as (address, size)."""
        return [(page, PAGE_FRAME_SIZE) for page in self.pages(seen.chain).tolist()]

    @sees(ChainMadeAvailable)
    def available(self, seen: ChainMadeAvailable) -> None:
        """Note what the pages hold."""
        if self.is_of(seen.number, self.queue):
            watch = self._held[seen.chain.head] = PageWatch(self.picture.memory)
            for address, size in self.named(seen)[:_PAGES_OF_A_REQUEST]:
                watch.add(address, size)

    @sees(EntryKept, EntryChanged)
    def looked(self, seen: EntryKept | EntryChanged) -> None:
        """The device still has it: the pages hold what they held, or nothing, as the device may empty them."""
        if not self.is_of(seen.number, self.queue):
            return
        for watch in self._held.values():
            changed = watch.changed(may_be_empty=True)
            self.expect(
                changed is None,
                self.statement,
                expected=f"pages that are left alone until the request {self.done} is acknowledged",
                observed=f"the page at {changed or 0:#x} was written while the device still had the request",
                shown=_page(self.picture, changed),
            )

    @sees(DeviceWrote)
    def device_wrote(self, seen: DeviceWrote) -> None:
        """That was not the driver."""
        for watch in self._held.values():
            if seen.address in watch:
                watch.add(seen.address, seen.size)

    @sees(ChainGivenBack)
    def given_back(self, seen: ChainGivenBack) -> None:
        """Look no longer."""
        if self.is_of(seen.number, self.queue):
            self._held.pop(seen.chain.head, None)


@rule("balloon.inflating-pages", covers=["balloon.driver.operation.9"], awaits="gave a page", types=_TYPES)
class InflatingPages(_HeldRule):
    """A page that was given is left alone until the inflate request is acknowledged."""

    queue = BalloonQueue.INFLATE
    statement = "balloon.driver.operation.9"
    done = "to inflate"


@rule(
    "balloon.deflating-pages",
    covers=["balloon.driver.operation.7"],
    awaits="took a page back",
    types=_TYPES,
    features=[BalloonFeature.MUST_TELL_HOST],
)
class DeflatingPages(_HeldRule):
    """With MUST_TELL_HOST a page is used again only after its deflate request was acknowledged."""

    queue = BalloonQueue.DEFLATE
    statement = "balloon.driver.operation.7"
    done = "to deflate"

    @sees(ChainMadeAvailable)
    def available(self, seen: ChainMadeAvailable) -> None:
        """Note what the pages hold, if the driver has to wait."""
        if self.picture.has(BalloonFeature.MUST_TELL_HOST):
            super().available(seen)


@rule(
    "balloon.reported-pages-in-use",
    covers=["balloon.driver.reporting.3"],
    awaits="reported a page",
    types=_TYPES,
    features=[BalloonFeature.PAGE_REPORTING],
)
class ReportedPages(_HeldRule):
    """A reported page is left alone until the device has used its request."""

    queue = BalloonQueue.REPORTING
    statement = "balloon.driver.reporting.3"
    done = "to report"

    def named(self, seen: ChainMadeAvailable) -> list[tuple[int, int]]:
        """Take the first page of each block, and the last."""
        blocks = [(each.address, each.size) for each in seen.chain.segments if each.size >= PAGE_FRAME_SIZE]
        return [
            (address + at, PAGE_FRAME_SIZE)
            for address, size in blocks
            for at in {0, (size - PAGE_FRAME_SIZE) & -PAGE_FRAME_SIZE}
        ]


@rule("balloon.told-of-use", covers=["balloon.driver.operation.6"], awaits="kept a page in the balloon", types=_TYPES)
class TellsOfUse(CountingRule):
    """Pages are taken out of the balloon by telling the device, and not otherwise."""

    def __init__(self, picture: Picture) -> None:
        super().__init__(picture)
        self._watch = PageWatch(picture.memory)
        self._suspects: set[int] = set()

    def acknowledged(self, seen: ChainGivenBack, pages: Pages, *, inflated: bool) -> None:
        """Note what is in pages that are the device's now."""
        for page in pages[:_PAGES_OF_A_REQUEST].tolist() if inflated else ():
            if len(self._watch) < _PAGES_WATCHED:
                self._watch.add(page, PAGE_FRAME_SIZE)

    def deflates(self, seen: ChainMadeAvailable, pages: Pages) -> None:
        """The driver takes these back as it should."""
        for page in pages.tolist():
            self._watch.remove(page)
            self._suspects.discard(page)

    @sees(Rested, MessageReceived)
    def looked(self, seen: Rested | MessageReceived) -> None:
        """All queues were looked at. A page that has changed was in use, unless a request was on its way: twice."""
        if not self._watch or not self.is_working:
            return
        again = {page for page in self._suspects if page in self._watch}
        self.expect(
            not again,
            "balloon.driver.operation.6",
            expected="pages in the balloon that are left alone until a deflate request names them",
            observed=f"{len(again)} pages were written, and no request to deflate names them",
            shown=_page(self.picture, min(again, default=None)),
        )
        self._suspects = set(self._watch.all_changed())


def _page(picture: Picture, address: int | None) -> tuple[Shown, ...]:
    if address is None:
        return ()
    return (Shown("beginning of the page", picture.memory.read(address, 32), address),)
