"""Which pages are in a balloon, as the device has acknowledged it: what rules about inflating and deflating go by."""

import numpy as np
import numpy.typing as npt

from spec.balloon import BalloonQueue
from vdev.check.driver.balloon_rule import BalloonRule
from vdev.check.driver.observation import ChainGivenBack, ChainMadeAvailable
from vdev.check.driver.picture import Picture
from vdev.check.driver.rule import sees

__all__ = ["CountingRule", "Pages"]

Pages = npt.NDArray[np.uint64]
"""Guest-physical addresses of pages of 4096 bytes."""


class CountingRule(BalloonRule):
    """Follows inflate and deflate requests; `inflates` and `deflates` look at one before it is counted."""

    def __init__(self, picture: Picture) -> None:
        super().__init__(picture)
        self.entering: set[int] = set()
        """Pages of inflate requests that were not acknowledged."""
        self.inside: set[int] = set()
        """Pages whose inflate request was acknowledged, and which were not asked back."""
        self.leaving: set[int] = set()
        """Pages of deflate requests that were not acknowledged."""

    def inflates(self, seen: ChainMadeAvailable, pages: Pages) -> None:
        """Look at a request to inflate."""

    def deflates(self, seen: ChainMadeAvailable, pages: Pages) -> None:
        """Look at a request to deflate."""

    def acknowledged(self, seen: ChainGivenBack, pages: Pages, *, inflated: bool) -> None:
        """Look at a request that went back, after it was counted."""

    @property
    def is_quiet(self) -> bool:
        """Whether the device holds no request of either kind."""
        return not self.entering and not self.leaving

    @sees(ChainMadeAvailable)
    def _available(self, seen: ChainMadeAvailable) -> None:
        if self.is_of(seen.number, BalloonQueue.INFLATE):
            pages = self.pages(seen.chain)
            self.inflates(seen, pages)
            self.entering.update(pages.tolist())
        elif self.is_of(seen.number, BalloonQueue.DEFLATE):
            pages = self.pages(seen.chain)
            self.deflates(seen, pages)
            self.inside.difference_update(pages.tolist())
            self.leaving.update(pages.tolist())

    @sees(ChainGivenBack)
    def _given_back(self, seen: ChainGivenBack) -> None:
        inflated = self.is_of(seen.number, BalloonQueue.INFLATE)
        if not inflated and not self.is_of(seen.number, BalloonQueue.DEFLATE):
            return
        pages = self.pages(seen.chain)
        if inflated:
            self.entering.difference_update(pages.tolist())
            self.inside.update(pages.tolist())
        else:
            self.leaving.difference_update(pages.tolist())
        self.acknowledged(seen, pages, inflated=inflated)
