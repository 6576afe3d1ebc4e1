"""What the guest does with its memory, one small operation after the other."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from guest_agent.page_database import Owner
from guest_agent.workload.objects import Objects

__all__ = ["Workload", "WorkloadOptions"]


@dataclass(frozen=True)
class WorkloadOptions:
    """What a workload can be told. Water marks are parts of RAM: below `low_water` it grows, above `high_water` it
    shrinks; `full_water` is how full RAM was before the guest's first operation, when it is warmed up.
    """

    low_water: float = 0.25
    high_water: float = 0.45
    full_water: float = 0.60
    files: Path | None = None


class Workload(ABC):
    """A program in the guest. All that it owns is in `objects`, so it goes on after a move as if nothing had been.

    It gives `step` a generator whose state moves with the vCPU, and remembers nothing between two steps.
    """

    name: ClassVar[str]
    owner: ClassVar[Owner] = Owner.WORKLOAD

    def __init__(self, objects: Objects, options: WorkloadOptions) -> None:
        self.objects = objects
        self.options = options

    @abstractmethod
    def step(self, random: np.random.Generator) -> None:
        """Do one operation, of at most a few milliseconds: the vCPU can stop only between two."""

    def boot(self, random: np.random.Generator) -> None:  # noqa: B027 - nothing is a good beginning, too
        """Begin on a guest that has just booted: do what must be there before the first operation."""

    @abstractmethod
    def warm_up(self, random: np.random.Generator) -> None:
        """Begin on a guest that was up for long: own what it owns in the long run, and leave stale data in free pages.

        Takes the place of `boot`.
        """

    def pages_of(self, part: float) -> int:
        """Return a part of RAM in pages."""
        return int(self.objects.ram_page_count * part)

    def drop_some(self, random: np.random.Generator, limit: int) -> int:
        """Free 1 to `limit` objects, if there are any; return the pages freed."""
        count = self.objects.count
        if not count:
            return 0
        wanted = min(int(random.integers(1, limit + 1)), count)
        return self.objects.drop(np.unique(random.integers(0, count, wanted)))

    def let_a_hog_exit(self) -> None:
        """Fill free memory up to `full_water`, and free it again with what was written there.

        That is the guest in which hints pay: its free pages are not zero, and many lie in large blocks.
        """
        allocator = self.objects.allocator
        order = min(10, max(self.objects.ram_page_count.bit_length() - 6, 0))
        used_count = self.objects.ram_page_count - allocator.free_page_count
        wanted_count = (self.pages_of(self.options.full_water) - used_count) >> order
        blocks = allocator.take_free_blocks(order, max(wanted_count, 0), self.owner)
        for page in blocks.tolist():
            self.objects.pages.scribble(page, 1 << order)
        allocator.free_blocks(blocks, self.owner)
