"""Liang Li's of 24 March: send at once, and filter whenever an answer is ready."""

from typing import ClassVar

from host_migrator.strategies.asking import Asking
from host_migrator.strategies.interface import HintStep

__all__ = ["FilterOnReady"]


class FilterOnReady(Asking):
    """Ask and start to send; whenever an answer is ready, filter, then sync, without a lock.

    Nobody waits, and the sync after the filter is to bring back what was written meanwhile. It costs a sync for each
    answer. A sync of the migrator between collection and filter has taken the record of those writes already: the
    filter erases it, and the sync after it finds nothing.
    """

    name: ClassVar[str] = "filter-on-ready"
    locked: ClassVar[bool] = False
    handler_steps: ClassVar[tuple[HintStep, ...]] = (HintStep.FILTER, HintStep.SYNC)
