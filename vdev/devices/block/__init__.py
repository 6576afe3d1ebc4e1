"""The block device."""

from vdev.devices.block.device import BlockDevice
from vdev.devices.block.file import BlockFile

__all__ = ["BlockDevice", "BlockFile"]
