"""The block device's requests: reads from its first sector on, which change nothing (virtio 1.4, "Block Device")."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from spec.block import CONFIG, REQUEST_HEADER, SECTOR_SIZE, BlockFeature, RequestStatus, RequestType
from spec.device import DeviceId
from spec.layout import offset_of
from vdev.check.bench.request import Request

if TYPE_CHECKING:
    from vdev.check.bench.bench import Bench

__all__ = ["BlockTraffic"]


class BlockTraffic:
    """A read that begins at sector 0, of whole blocks. Its used length is that of the data and the status byte."""

    name = "block"
    device_id = int(DeviceId.BLOCK)
    queue = 0
    needs: tuple[int, ...] = ()

    def __init__(self) -> None:
        self._block_size = 0

    def queues(self, bench: "Bench") -> Mapping[int, int]:
        """Return the first request queue: without MQ there is no other."""
        return {self.queue: 64}

    def prepare(self, bench: "Bench") -> None:
        """Do nothing: a disk works from DRIVER_OK on."""

    def plain(self, bench: "Bench", size: int | None = None) -> Request:
        """Return a read of `size` bytes, rounded up to whole blocks; of one block where that is left open."""
        block_size = self._block_size or self._find_block_size(bench)
        size = -(-max(size or 1, 1) // block_size) * block_size
        header: bytes = REQUEST_HEADER.build({"type": RequestType.IN, "reserved": 0, "sector": 0})

        def check(written: bytes, length: int) -> str | None:
            if written[-1] != RequestStatus.OK:
                return f"status {written[-1]:#04x} for a read of {size} bytes at sector 0"
            if length != size + 1:
                return f"used length {length} for {size} bytes of data and the status"
            return None

        return Request(header, size + 1, check, size + 1)

    def _find_block_size(self, bench: "Bench") -> int:
        found = SECTOR_SIZE
        if bench.offered >> BlockFeature.BLK_SIZE & 1:
            raw = bench.control.read_config(offset_of(CONFIG, "blk_size"), 4)
            told = int.from_bytes(raw, "little")
            found = told if told and told % SECTOR_SIZE == 0 else SECTOR_SIZE
        self._block_size = found
        return found
