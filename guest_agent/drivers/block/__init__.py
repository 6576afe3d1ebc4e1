"""The block driver."""

from guest_agent.drivers.block.driver import BLOCK_DRIVER_FEATURES, BlockDriver, Completion

__all__ = ["BLOCK_DRIVER_FEATURES", "BlockDriver", "Completion"]
