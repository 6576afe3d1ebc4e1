"""What a migration is asked to do."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["ANSWERS", "EXIT_STRATEGIES", "HOLDS", "STRATEGIES", "MigrateOptions"]

STRATEGIES = (
    "none",
    "block-bulk",
    "filter-on-ready",
    "drain-in-exit-sync-first",
    "drain-in-exit-filter-first",
    "flush-after-sync",
    "ignore-late",
    "ignore-late-unlocked",
    "interval",
    "resubmit",
    "host-timer",
    "command-id",
)
"""The names in `host_migrator.strategies.STRATEGIES`, which a command line that only refuses need not import."""

EXIT_STRATEGIES = frozenset({"drain-in-exit-sync-first", "drain-in-exit-filter-first"})
"""Those whose hints must come in exits."""

ANSWERS = ("list", "bitmap")
HOLDS = ("nothing", "until-queued", "until-used")


@dataclass(frozen=True)
class MigrateOptions:
    """One migration of one guest. Sizes in bytes, times in seconds, rates per second.

    `workload` is idle, churn or files; `strategy` is one of STRATEGIES, `answer` of ANSWERS and `guest_holds` of HOLDS;
    `dirty_log` is auto, kernel or cooperative;
    `to` is the address of a waiting `vdev receive`, or None to start the destination here. `ring` is split or packed,
    `in_order` says whether buffers are used in the order in which they were made available. `transport` is what carries
    the balloon: mmio or vhost-user. A strategy of EXIT_STRATEGIES has no ioeventfd, whatever `ioeventfd` says.
    """

    ram_size: int = 1 << 30
    workload: str = "churn"
    files: Path | None = None
    rate: float = 500.0
    strategy: str = "command-id"
    answer: str = "list"
    guest_holds: str = "until-queued"
    dirty_log: str = "auto"
    max_bandwidth: float | None = None
    downtime_limit: float = 0.3
    seed: int = 0
    to: str | None = None
    inflate_size: int = 0
    free_page_reporting: bool = False
    ioeventfd: bool = True
    ring: str = "split"
    in_order: bool = False
    transport: str = "mmio"

    @property
    def has_ioeventfd(self) -> bool:
        """Whether a kick leaves the vCPU running."""
        return self.ioeventfd and self.strategy not in EXIT_STRATEGIES
