"""The network device's requests: small frames to nobody (virtio 1.4, "Network Device")."""

import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING

from spec.device import DeviceId
from vdev.check.bench.request import Request

if TYPE_CHECKING:
    from vdev.check.bench.bench import Bench

__all__ = ["NetTraffic"]

_RECEIVE, _TRANSMIT = 0, 1
_HEADER = bytes(12)
"""No checksum to fill in, no segmentation, one buffer: all 0. With VERSION_1 it always has num_buffers."""
_FRAME = struct.pack(">6s6sH", bytes.fromhex("020000000001"), bytes.fromhex("020000000002"), 0x88B5).ljust(60, b"\0")
"""From one locally administered address to another, of the EtherType that is for local experiments."""
_RECEIVE_SIZE = 1526
_RECEIVE_COUNT = 4


class NetTraffic:
    """A frame to transmit, which the device only reads. A few buffers to receive into are there, as with any driver."""

    name = "net"
    device_id = int(DeviceId.NETWORK)
    queue = _TRANSMIT
    needs: tuple[int, ...] = ()

    def queues(self, bench: "Bench") -> Mapping[int, int]:
        """Return the first pair of queues."""
        return {_RECEIVE: 64, _TRANSMIT: 64}

    def prepare(self, bench: "Bench") -> None:
        """Make room for frames that come in."""
        ring = bench.ring(_RECEIVE)
        for _ in range(min(_RECEIVE_COUNT, ring.size)):
            ring.post(Request(writable_size=_RECEIVE_SIZE, answers=False))
        ring.publish()
        ring.kick()

    def plain(self, bench: "Bench", size: int | None = None) -> Request:
        """Return a frame to transmit; there is nothing for the device to write, whatever `size` says."""
        return Request(_HEADER + _FRAME, 0, _check, 0)


def _check(_: bytes, length: int) -> str | None:
    return f"used length {length} for a frame that the device only reads" if length else None
