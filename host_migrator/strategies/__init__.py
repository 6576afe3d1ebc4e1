"""Strategies: how a migration uses what the guest says about free pages. One small class per proposal."""

from host_migrator.strategies.command_id import Advance, CommandId
from host_migrator.strategies.interface import HintingDevice, HintStep, HintTaker, Refresh, Strategy
from host_migrator.strategies.none import NoHints
from host_migrator.strategies.registry import STRATEGIES, make_strategy, refresh_of

__all__ = [
    "STRATEGIES",
    "Advance",
    "CommandId",
    "HintStep",
    "HintTaker",
    "HintingDevice",
    "NoHints",
    "Refresh",
    "Strategy",
    "make_strategy",
    "refresh_of",
]
