"""Strategies: how a migration uses what the guest says about free pages. One small class per proposal."""

from host_migrator.strategies.command_id import CommandId
from host_migrator.strategies.interface import HintingDevice, Strategy
from host_migrator.strategies.none import NoHints

__all__ = ["CommandId", "HintingDevice", "NoHints", "Strategy"]
