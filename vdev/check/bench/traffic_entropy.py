"""The entropy device's requests: room for random bytes (virtio 1.4, "Entropy Device")."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from spec.device import DeviceId
from spec.entropy import REQUEST_QUEUE
from vdev.check.bench.arena import FILL
from vdev.check.bench.request import Request

if TYPE_CHECKING:
    from vdev.check.bench.bench import Bench

__all__ = ["EntropyTraffic"]

_SIZE = 64


class EntropyTraffic:
    """A buffer that the device fills with at least one byte, and with no more than it has room for."""

    name = "entropy"
    device_id = int(DeviceId.ENTROPY)
    queue = REQUEST_QUEUE
    needs: tuple[int, ...] = ()

    def queues(self, bench: "Bench") -> Mapping[int, int]:
        """Return the only queue."""
        return {REQUEST_QUEUE: 64}

    def prepare(self, bench: "Bench") -> None:
        """Do nothing: the device works from DRIVER_OK on."""

    def plain(self, bench: "Bench", size: int | None = None) -> Request:
        """Return room for `size` random bytes."""
        size = _SIZE if size is None else size

        def check(written: bytes, length: int) -> str | None:
            if not 0 < length <= size:
                return f"{length} bytes were written into room for {size}"
            if any(byte != FILL for byte in written[length:]):
                return f"bytes behind the {length} that were said to be written were changed"
            return None

        return Request(writable_size=size, check=check)
