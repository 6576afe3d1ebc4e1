"""The balloon's requests: pages of the guest that go into the balloon (virtio 1.4, "Memory Balloon Device").

Inflate and deflate are queues 0 and 1 whether queues have the text's fixed numbers or the compact ones of most
implementations. So nothing has to be known of the numbering as long as no feature is negotiated that has a queue.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from spec.balloon import PAGE_FRAME_SIZE, BalloonQueue
from spec.device import DeviceId
from vdev.check.bench.arena import Place
from vdev.check.bench.request import Request
from vdev.check.verdict import Inconclusive

if TYPE_CHECKING:
    from vdev.check.bench.bench import Bench

__all__ = ["BalloonTraffic", "frames"]

_POOL_SIZE = 8192
"""Pages that a guest of the bench can have in the balloon."""


def frames(addresses: Iterable[int]) -> bytes:
    """Return the page frame numbers of guest-physical addresses, as an inflate or deflate request has them."""
    return (np.fromiter(addresses, np.uint64) // PAGE_FRAME_SIZE).astype("<u4").tobytes()


class BalloonTraffic:
    """An inflate request of one page that is not in the balloon.

    When all pages of the pool are, the older half, which went in thousands of requests ago, is taken out first.
    """

    name = "balloon"
    device_id = int(DeviceId.BALLOON)
    queue = int(BalloonQueue.INFLATE)
    needs: tuple[int, ...] = ()

    def __init__(self) -> None:
        self._free: deque[int] = deque()
        self._inflated: deque[int] = deque()
        self._has_pool = False

    def queues(self, bench: "Bench") -> Mapping[int, int]:
        """Return the inflate and the deflate queue, which every balloon has."""
        return {int(BalloonQueue.INFLATE): 64, int(BalloonQueue.DEFLATE): 64}

    def prepare(self, bench: "Bench") -> None:
        """Begin anew: whether the device forgot what is in the balloon is not known, so those pages rest."""
        self._inflated.clear()

    def plain(self, bench: "Bench", size: int | None = None) -> Request:
        """Return an inflate request of one page; there is nothing for the device to write, whatever `size` says."""
        if not self._free:
            self._refill(bench)
        address = self._free.popleft()
        self._inflated.append(address)
        return Request(frames([address]), 0, _check, 0)

    def _refill(self, bench: "Bench") -> None:
        half = _POOL_SIZE // 2
        if not self._has_pool:
            self._has_pool = True
            pages = bench.memory.allocate(
                _POOL_SIZE * PAGE_FRAME_SIZE, align=PAGE_FRAME_SIZE, what="pages for the balloon", place=Place.HIGH
            )
            self._free.extend(range(pages.address, pages.address + pages.size, PAGE_FRAME_SIZE))
            return
        if len(self._inflated) < half:
            raise Inconclusive(f"{_POOL_SIZE} pages of the bench went into balloons, and it has no more")
        oldest = [self._inflated.popleft() for _ in range(half)]
        bench.exchange(bench.ring(BalloonQueue.DEFLATE), Request(frames(oldest), 0, _check, 0))
        self._free += oldest


def _check(_: bytes, length: int) -> str | None:
    return f"used length {length}, and nothing was to be written" if length else None
