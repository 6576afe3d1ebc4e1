"""Tsirkin's first: no ioeventfd, so that the vCPU stands still inside the exit while the host handles its hints."""

from typing import ClassVar

from host_migrator.strategies.asking import Asking
from host_migrator.strategies.interface import HintStep

__all__ = ["DrainInExitFilterFirst", "DrainInExitSyncFirst"]


class DrainInExitSyncFirst(Asking):
    """In the exit: sync, then filter.

    The vCPU that hints cannot write until its hint is applied. It costs an exit of the vCPU and a sync for each batch.
    Other vCPUs go on, and so does the migrator: a page may be written between its collection and the exit's sync,
    which records the write in the set just before the filter erases it.
    """

    name: ClassVar[str] = "drain-in-exit-sync-first"
    locked: ClassVar[bool] = False
    needs_exits: ClassVar[bool] = True
    handler_steps: ClassVar[tuple[HintStep, ...]] = (HintStep.SYNC, HintStep.FILTER)


class DrainInExitFilterFirst(Asking):
    """In the exit: filter, then sync.

    What was written since the collection is in the dirty log still, unless a sync of the migrator took it, and comes
    back with the sync. It costs what the other order does.
    """

    name: ClassVar[str] = "drain-in-exit-filter-first"
    locked: ClassVar[bool] = False
    needs_exits: ClassVar[bool] = True
    handler_steps: ClassVar[tuple[HintStep, ...]] = (HintStep.FILTER, HintStep.SYNC)
