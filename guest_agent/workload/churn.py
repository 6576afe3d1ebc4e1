"""churn: allocates, writes, rewrites and frees, with a hot set, between two water marks."""

from typing import ClassVar

import numpy as np

from guest_agent.workload.workload import Workload

__all__ = ["Churn"]

_MOST_PAGES = 64
"""Single pages that one operation allocates at most."""

_MOST_OBJECTS = 32
_ORDER_WEIGHTS = np.cumsum([0.4, 0.25, 0.15, 0.1, 0.1])
_LARGE_CHANCE = 1 / 256
_LARGE_ORDER = 10
_LARGE_NEEDS_PAGES = 1 << 14
"""RAM below this (64 MiB) sees no 4 MiB allocations: one would be a large part of it."""


class Churn(Workload):
    """Programs that come and go."""

    name: ClassVar[str] = "churn"

    def step(self, random: np.random.Generator) -> None:
        """Allocate and write 1 to 64 pages or a block, or rewrite up to 16 pages, or free up to 32 objects.

        When memory is short it frees something instead.
        """
        used, choice = self.objects.page_count, random.random()
        if used >= self.pages_of(self.options.high_water):
            self.drop_some(random, _MOST_OBJECTS)
        elif used < self.pages_of(self.options.low_water) or choice < 0.3:
            if not self._grow(random):
                self.drop_some(random, _MOST_OBJECTS)
        elif choice < 0.55:
            self.drop_some(random, _MOST_OBJECTS)
        else:
            self._rewrite(random)

    def _grow(self, random: np.random.Generator) -> bool:
        choice = random.random()
        if choice < _LARGE_CHANCE and self.objects.ram_page_count >= _LARGE_NEEDS_PAGES:
            return self.objects.add_block(_LARGE_ORDER)
        if choice < 0.5:
            return self.objects.add_block(int(np.searchsorted(_ORDER_WEIGHTS, random.random())))
        return self.objects.add_pages(int(random.integers(1, _MOST_PAGES + 1))) > 0

    def _rewrite(self, random: np.random.Generator) -> None:
        # The cube makes low rows hot: half of the rewrites hit the first eighth of the objects.
        count = self.objects.count
        rows = (random.random(int(random.integers(1, 17))) ** 3 * count).astype(np.int64)
        self.objects.rewrite(np.unique(rows), random)

    def warm_up(self, random: np.random.Generator) -> None:
        """Own as much as the long run gives, in pages that are not all neighbours; then let a hog exit."""
        wanted = self.pages_of((self.options.low_water + self.options.high_water) / 2)
        self.objects.add_pages(wanted * 9 // 8)
        count = self.objects.count
        self.objects.drop(np.flatnonzero(random.random(count) < 1 / 9))
        self.let_a_hog_exit()
