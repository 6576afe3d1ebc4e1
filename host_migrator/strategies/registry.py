"""Every strategy by its name."""

from collections.abc import Callable, Mapping

from host_migrator.strategies.block_bulk import BlockBulk
from host_migrator.strategies.command_id import Advance, CommandId
from host_migrator.strategies.drain_in_exit import DrainInExitFilterFirst, DrainInExitSyncFirst
from host_migrator.strategies.filter_on_ready import FilterOnReady
from host_migrator.strategies.flush_after_sync import FlushAfterSync
from host_migrator.strategies.ignore_late import IgnoreLate, IgnoreLateUnlocked
from host_migrator.strategies.interface import HintingDevice, Refresh, Strategy
from host_migrator.strategies.none import NoHints
from host_migrator.strategies.refreshed import HostTimer, Interval, Resubmit

__all__ = ["STRATEGIES", "make_strategy", "refresh_of"]

_KINDS = (
    NoHints,
    BlockBulk,
    FilterOnReady,
    DrainInExitSyncFirst,
    DrainInExitFilterFirst,
    FlushAfterSync,
    IgnoreLate,
    IgnoreLateUnlocked,
    Interval,
    Resubmit,
    HostTimer,
    CommandId,
)

STRATEGIES: Mapping[str, Callable[[HintingDevice], Strategy]] = {kind.name: kind for kind in _KINDS}
"""Name -> makes the strategy for a device, in the order of the proposals."""

_REFRESHES = {kind.name: kind.refresh for kind in _KINDS}


def refresh_of(name: str) -> Refresh:
    """Return when the guest must answer again by itself under the strategy called `name`."""
    return _REFRESHES[name]


def make_strategy(name: str, hinting: HintingDevice, *, advance: str = Advance.AFTER_SYNC) -> Strategy:
    """Return the strategy called `name`. `advance` is command-id's alone. Raises ValueError for what there is not."""
    if name not in STRATEGIES:
        raise ValueError(f"there is no strategy {name!r}; there are {', '.join(STRATEGIES)}")
    if name == CommandId.name:
        return CommandId(hinting, advance=Advance(advance))
    if advance != Advance.AFTER_SYNC:
        raise ValueError(f"{name} has no id that could be advanced {advance}")
    return STRATEGIES[name](hinting)
