"""idle: a guest with nothing to do but its tick."""

from typing import ClassVar

import numpy as np

from guest_agent.workload.workload import Workload

__all__ = ["Idle"]

_WORKING_SET = 64


class Idle(Workload):
    """Owns a few pages and writes one of them in each operation."""

    name: ClassVar[str] = "idle"

    def step(self, random: np.random.Generator) -> None:
        """Rewrite one page; get one first if none is left."""
        if self.objects.count or self.objects.add_pages(1):
            self.objects.rewrite(random.integers(0, self.objects.count, 1), random)

    def boot(self, random: np.random.Generator) -> None:
        """Get the working set."""
        self.objects.add_pages(min(_WORKING_SET, self.objects.ram_page_count // 8))

    def warm_up(self, random: np.random.Generator) -> None:
        """Get the working set, and let a hog exit: an idle guest that was busy before."""
        self.boot(random)
        self.let_a_hog_exit()
