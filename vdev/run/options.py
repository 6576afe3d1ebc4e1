"""What a migration is asked to do."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["MigrateOptions"]


@dataclass(frozen=True)
class MigrateOptions:
    """One migration of one guest. Sizes in bytes, times in seconds, rates per second.

    `workload` is idle, churn or files; `strategy` is none or command-id; `dirty_log` is auto, kernel or cooperative;
    `to` is the address of a waiting `vdev receive`, or None to start the destination here. `ring` is split or packed,
    `in_order` says whether buffers are used in the order in which they were made available. `transport` is what carries
    the balloon: mmio or vhost-user.
    """

    ram_size: int = 1 << 30
    workload: str = "churn"
    files: Path | None = None
    rate: float = 500.0
    strategy: str = "command-id"
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
