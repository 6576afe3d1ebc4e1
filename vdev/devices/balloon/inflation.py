"""The balloon itself: pages that the guest gave to the host, and takes back ("Device Operation")."""

import numpy as np
import numpy.typing as npt

from spec.balloon import PAGE_FRAME_NUMBER, PAGE_FRAME_SIZE
from spec.layout import dtype_of
from vdev.errors import DriverViolation
from vdev.events import Emitter, PagesDeflated, PagesInflated
from vdev.memory import PAGE_SIZE, GuestMemory, Region
from vdev.memory.pages import PageRanges
from vdev.virtqueue.chain import Chain
from vdev.virtqueue.queue import DeviceQueue

__all__ = ["Inflation"]

_CLAUSE = "Memory Balloon Device / Device Operation"
_FRAME = dtype_of(PAGE_FRAME_NUMBER)


class Inflation:
    """Which pages of RAM are in the balloon, and the two queues that change it.

    A page's memory goes back to the operating system before its inflate request is acknowledged.
    """

    def __init__(self, memory: GuestMemory, *, events: Emitter) -> None:
        self.inflated: npt.NDArray[np.bool_] = np.zeros(memory.page_count, np.bool_)
        """One flag per page of RAM: it is in the balloon."""
        self.inflated_count = 0
        """Pages in the balloon now."""
        self.returned_size = 0
        """Bytes that went back to the operating system through inflation, all in all."""
        self._memory = memory
        self._events = events

    def inflate(self, chain: Chain, queue: DeviceQueue) -> None:
        """Put the pages of one request into the balloon, and give it back.

        Raises DriverViolation for a page that is outside RAM, or already in the balloon.
        """
        pages = self._pages_of(chain, queue.number)
        self._check(pages, ~self.inflated[pages], "is in the balloon already", chain, queue.number)
        self.inflated[pages] = True
        self.inflated_count += len(pages)
        returned = self._memory.give_back(PageRanges.of_pages(np.sort(pages)))
        self.returned_size += returned
        if self._events.listening:
            self._events.emit(PagesInflated(len(pages), returned))
        queue.push(chain.head, 0)

    def deflate(self, chain: Chain, queue: DeviceQueue) -> None:
        """Take the pages of one request out of the balloon, and give it back.

        Raises DriverViolation for a page that is outside RAM, or not in the balloon.
        """
        pages = self._pages_of(chain, queue.number)
        self._check(pages, self.inflated[pages], "is not in the balloon", chain, queue.number)
        self.inflated[pages] = False
        self.inflated_count -= len(pages)
        if self._events.listening:
            self._events.emit(PagesDeflated(len(pages)))
        queue.push(chain.head, 0)

    def reset(self) -> None:
        """Empty the balloon: the driver that filled it is gone, and its guest may use every page."""
        if self.inflated_count:
            self.inflated[:] = False
            self.inflated_count = 0

    def renumber(self, before: tuple[Region, ...]) -> None:
        """Guest RAM has other regions than `before`: what was in the balloon and still is RAM stays in it."""
        # Flags that nobody sets cost no memory, however much RAM a front end tells of.
        flags, self.inflated = self.inflated, np.zeros(self._memory.page_count, np.bool_)
        if self.inflated_count:
            addresses = GuestMemory(before).addresses_of(np.flatnonzero(flags))
            still = self._memory.contains_many(addresses, np.full(len(addresses), PAGE_SIZE, np.uint64))
            self.inflated[self._memory.pages_of(addresses[still])] = True
            self.inflated_count = int(np.count_nonzero(still))

    def save(self) -> bytes:
        """Return a bit per page, or nothing for an empty balloon."""
        return np.packbits(self.inflated, bitorder="little").tobytes() if self.inflated_count else b""

    def restore(self, bits: bytes) -> bool:
        """Go on from what `save` gave; false if it is of another amount of RAM."""
        self.reset()
        if not bits:
            return True
        if len(bits) != (len(self.inflated) + 7) // 8:
            return False
        unpacked = np.unpackbits(np.frombuffer(bits, np.uint8), count=len(self.inflated), bitorder="little")
        self.inflated[:] = unpacked.view(np.bool_)
        self.inflated_count = int(self.inflated.sum())
        return True

    def _pages_of(self, chain: Chain, number: int) -> npt.NDArray[np.int64]:
        size = chain.readable_size
        if chain.writable:
            raise DriverViolation(
                _CLAUSE, "page frame numbers in a device-writable buffer", queue=number, descriptor=chain.head
            )
        if size % _FRAME.itemsize:
            raise DriverViolation(
                _CLAUSE,
                f"{size} bytes are no array of {_FRAME.itemsize}-byte page frame numbers",
                queue=number,
                descriptor=chain.head,
            )
        # Looked at before anything of it is read: 4 GiB of numbers would cost the host more than the guest.
        if size // _FRAME.itemsize > self._memory.page_count:
            raise DriverViolation(
                _CLAUSE,
                f"{size // _FRAME.itemsize} page frame numbers, of {self._memory.page_count} pages in all",
                queue=number,
                descriptor=chain.head,
            )
        frames = np.frombuffer(chain.read(self._memory), _FRAME)["pfn"]
        addresses = frames.astype(np.uint64) * np.uint64(PAGE_FRAME_SIZE)
        inside = self._memory.contains_many(addresses, np.full(len(addresses), PAGE_FRAME_SIZE, np.uint64))
        if not inside.all():
            bad = int(addresses[np.argmin(inside)])
            raise DriverViolation(_CLAUSE, "the page is outside RAM", queue=number, descriptor=chain.head, address=bad)
        return self._memory.pages_of(addresses)

    def _check(
        self, pages: npt.NDArray[np.int64], good: npt.NDArray[np.bool_], complaint: str, chain: Chain, number: int
    ) -> None:
        if not good.all():
            bad = int(pages[np.argmin(good)])
        else:
            ordered = np.sort(pages)
            twice = ordered[1:][ordered[1:] == ordered[:-1]]
            if not len(twice):
                return
            bad, complaint = int(twice[0]), "is named twice"
        raise DriverViolation(
            _CLAUSE,
            f"page {bad} {complaint}",
            queue=number,
            descriptor=chain.head,
            address=self._memory.address_of(bad),
        )
