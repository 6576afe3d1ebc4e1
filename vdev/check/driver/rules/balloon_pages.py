"""What a balloon driver's inflate and deflate requests name, and when they come ("Device Operation")."""

from collections import deque

import numpy as np

from spec.balloon import CONFIG, PAGE_FRAME_SIZE, BalloonFeature
from vdev.check.driver.balloon_count import CountingRule, Pages
from vdev.check.driver.balloon_rule import BalloonRule
from vdev.check.driver.config_access import field_value
from vdev.check.driver.observation import (
    ChainGivenBack,
    ChainMadeAvailable,
    ConfigRead,
    ConfigWritten,
    FeaturesAgreed,
    Rested,
)
from vdev.check.driver.picture import Picture
from vdev.check.driver.rule import rule, sees

__all__: list[str] = []

_TYPES = ("balloon",)
_READS_KEPT = 3
_MODEST = 4
"""A balloon of so small a part of RAM (one of this many) every guest can fill."""


@rule("balloon.must-tell-host", covers=["balloon.driver.features.1"], awaits="chose features", types=_TYPES)
class TakesMustTellHost(BalloonRule):
    """MUST_TELL_HOST is accepted where it is offered."""

    @sees(FeaturesAgreed)
    def agreed(self, seen: FeaturesAgreed) -> None:
        """Look at the bit."""
        if self.picture.offered >> BalloonFeature.MUST_TELL_HOST & 1:
            self.expect(
                bool(seen.features >> BalloonFeature.MUST_TELL_HOST & 1),
                "balloon.driver.features.1",
                expected="MUST_TELL_HOST accepted",
                observed=f"it was offered, and features {seen.features:#x} were accepted",
            )


@rule(
    "balloon.page-numbers",
    covers=["balloon.driver.described.page-numbers", "balloon.driver.described.pages-of-ram"],
    awaits="gave a page",
    types=_TYPES,
)
class PageNumbers(CountingRule):
    """Requests are arrays of page numbers, of pages of RAM that are neither given nor taken back twice."""

    def inflates(self, seen: ChainMadeAvailable, pages: Pages) -> None:
        """Each page is RAM, named once, and not given before."""
        outside = {page for page in pages.tolist() if not self.picture.memory.contains(page, PAGE_FRAME_SIZE)}
        self._has_none(outside, seen, "pages of guest RAM", "is outside of it")
        self._has_none(_repeated(pages), seen, "each page named once", "is named more than once")
        before = (self.inside | self.entering).intersection(pages.tolist())
        self._has_none(before, seen, "pages that are not in the balloon", "was given before")

    def deflates(self, seen: ChainMadeAvailable, pages: Pages) -> None:
        """Each page is named once, and was given."""
        self._has_none(_repeated(pages), seen, "each page named once", "is named more than once")
        foreign = set(pages.tolist()) - self.inside - self.entering
        self._has_none(foreign, seen, "pages that are in the balloon", "is not in it")

    def _has_none(self, bad: set[int], seen: ChainMadeAvailable, expected: str, fault: str) -> None:
        observed = f"the page at {min(bad):#x} {fault}, one of {len(bad)}" if bad else ""
        statement = "balloon.driver.described.pages-of-ram"
        self.expect(not bad, statement, expected=expected, observed=observed, shown=seen.chain.show())


def _repeated(pages: Pages) -> set[int]:
    ordered = np.sort(pages)
    return set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())


@rule("balloon.no-deflate-before-inflate", covers=["balloon.driver.operation.10"], awaits="deflated", types=_TYPES)
class NoDeflateBeforeInflate(CountingRule):
    """No page is asked back before its inflate request was acknowledged."""

    def deflates(self, seen: ChainMadeAvailable, pages: Pages) -> None:
        """None of the pages is in a request that the device has not given back."""
        early = self.entering.intersection(pages.tolist())
        self.expect(
            not early,
            "balloon.driver.operation.10",
            expected="a deflate request for pages whose inflate request was acknowledged",
            observed=f"{len(early)} of {len(pages)} pages, whose inflate request the device still has",
            shown=seen.chain.show(),
        )


@rule("balloon.deflation-is-wanted", covers=["errata.balloon.deflation"], awaits="deflated", types=_TYPES)
class DeflationIsWanted(CountingRule):
    """Without DEFLATE_ON_OOM no page is taken back while num_pages is at or above the balloon's size."""

    def __init__(self, picture: Picture) -> None:
        super().__init__(picture)
        # A driver may still act on what it read a moment ago, and a front end may read more than its driver.
        self._targets: deque[int] = deque(maxlen=_READS_KEPT)

    @sees(ConfigRead)
    def read(self, seen: ConfigRead) -> None:
        """Note what the driver knows."""
        if (target := field_value(CONFIG, "num_pages", seen)) is not None:
            self._targets.append(target)

    def deflates(self, seen: ChainMadeAvailable, pages: Pages) -> None:
        """Some target that the driver has just read is below the balloon's size."""
        if self.picture.has(BalloonFeature.DEFLATE_ON_OOM) or not self._targets:
            return
        size = len(self.inside)
        self.expect(
            min(self._targets) < size,
            "errata.balloon.deflation",
            expected=f"no page taken back while num_pages is not below the balloon's size, which is {size} pages",
            observed=f"a request to deflate {len(pages)} pages; the driver read num_pages as {self._targets[-1]}",
            shown=seen.chain.show(),
        )


@rule("balloon.gives-pages", covers=["balloon.driver.operation.1"], awaits="was asked for pages", types=_TYPES)
class GivesPages(CountingRule):
    """When num_pages is above the balloon's size, the driver gives pages."""

    def __init__(self, picture: Picture) -> None:
        super().__init__(picture)
        self._target = 0
        self._asked = False

    @sees(ConfigRead)
    def read(self, seen: ConfigRead) -> None:
        """Note a target that the driver did not know before. Only a small one: a guest may have no more to give."""
        target = field_value(CONFIG, "num_pages", seen)
        if target is None or target == self._target:
            return
        self._target = target
        is_modest = target * PAGE_FRAME_SIZE * _MODEST <= self.picture.memory.size
        self._asked = is_modest and len(self.inside) + len(self.entering) < target and not self.leaving

    def inflates(self, seen: ChainMadeAvailable, pages: Pages) -> None:
        """It does."""
        if self._asked:
            self._asked = False
            self.expect(True, "balloon.driver.operation.1", expected="", observed="")

    @sees(Rested)
    def rested(self, seen: Rested) -> None:
        """It should have."""
        if self._asked and self.is_working and self.is_quiet:
            self.due(
                False,
                "balloon.driver.operation.1",
                seen,
                expected=f"a request to inflate, as num_pages is {self._target}",
                observed=f"the driver read that, has {len(self.inside)} pages in the balloon, and gave none",
            )


@rule("balloon.actual", covers=["balloon.driver.operation.11"], awaits="changed the balloon's size", types=_TYPES)
class TellsActual(CountingRule):
    """After the balloon's size changed, actual says so."""

    def __init__(self, picture: Picture) -> None:
        super().__init__(picture)
        self._actual: int | None = None
        self._changed = False

    @sees(ConfigWritten)
    def written(self, seen: ConfigWritten) -> None:
        """Note what the driver says."""
        actual = field_value(CONFIG, "actual", seen)
        if actual is None:
            return
        self._actual = actual
        if self._changed and self.is_quiet and actual == len(self.inside):
            self._changed = False
            self.expect(True, "balloon.driver.operation.11", expected="", observed="")

    def acknowledged(self, seen: ChainGivenBack, pages: Pages, *, inflated: bool) -> None:
        """The size is another one now."""
        self._changed = True

    @sees(Rested)
    def rested(self, seen: Rested) -> None:
        """By now the driver has said so."""
        if self._changed and self.is_working and self.is_quiet:
            self._changed = False
            self.due(
                self._actual == len(self.inside),
                "balloon.driver.operation.11",
                seen,
                expected=f"actual to be written as {len(self.inside)}",
                observed="it was not written" if self._actual is None else f"it was last written as {self._actual}",
            )
