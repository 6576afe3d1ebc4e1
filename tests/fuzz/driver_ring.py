"""The driver's side of a ring whose device stores what it likes: nothing but DeviceViolation comes out."""

from contextlib import suppress

import numpy as np

from fuzz.program import Program
from guest_agent.virtqueue import (
    DriverQueue,
    QueueFull,
    attach_driver_queue,
    driver_area_size,
    make_driver_queue,
)
from spec.packed_ring import EVENT_SIZE
from spec.packed_ring import ring_size as packed_ring_size
from spec.split_ring import used_ring_size
from vdev.errors import DeviceViolation
from vdev.memory import GuestMemory

__all__ = ["fuzz_packed_driver", "fuzz_split_driver"]

_AREA = 0x1000
_CAPACITY = 4


def fuzz_split_driver(data: bytes) -> None:
    """Run a split ring's driver side."""
    _fuzz(Program.parse(data, packed=False), packed=False)


def fuzz_packed_driver(data: bytes) -> None:
    """Run a packed ring's driver side."""
    _fuzz(Program.parse(data, packed=True), packed=True)


def _fuzz(program: Program, packed: bool) -> None:
    run = _Run(program, packed)
    try:
        for call, offset, value in program.play(run.span):
            if call < 0:
                run.store(offset, value)
            else:
                run.do(call)
        run.store(0, program.content)
        run.come_to_rest()
    except DeviceViolation:
        return


class _Run:
    def __init__(self, program: Program, packed: bool) -> None:
        self.memory = GuestMemory.private(_AREA + driver_area_size(program.size, _CAPACITY))
        self.queue: DriverQueue = make_driver_queue(
            self.memory, 0, program.size, _AREA, program.features, indirect_capacity=_CAPACITY
        )
        self.lent: set[int] = set()
        self._next_token = 1
        size, addresses = program.size, self.queue.addresses
        # What a device may write to: a packed ring's descriptors and its event structure, a split ring's used ring.
        if packed:
            self._pieces = [(addresses.descriptor, packed_ring_size(size)), (addresses.device, EVENT_SIZE)]
        else:
            self._pieces = [(addresses.device, used_ring_size(size))]
        self.span = sum(piece for _, piece in self._pieces)

    def store(self, offset: int, data: bytes) -> None:
        """Store as the device, from `offset` of all that it may write to on."""
        for address, size in self._pieces:
            part = data[: max(size - offset, 0)]
            if part:
                self.memory.write(address + offset, part)
            data, offset = data[len(part) :], max(offset - size, 0)

    def do(self, call: int) -> None:
        """Make one call."""
        queue = self.queue
        kind, amount = call % 10, 1 + call // 10
        match kind:
            case 0:
                self._add([(0, 16)], [])
            case 1:
                self._add([(0, 16)] * (amount % 3), [(0x100, 32)] * (1 + amount % 2))
            case 2:
                self._add_batch(amount)
            case 3:
                queue.publish()
            case 4:
                queue.should_kick()
            case 5:
                self._take([used.token] if (used := queue.collect()) is not None else [])
            case 6:
                self._take(queue.collect_batch(amount).tokens.tolist())
            case 7:
                queue.disable_calls()
            case 8:
                queue.enable_calls()
            case 9:
                self.queue = attach_driver_queue(self.memory, 0, _AREA)

    def _add(self, readable: list[tuple[int, int]], writable: list[tuple[int, int]]) -> None:
        if len(readable) + len(writable) > self.queue.size:
            return
        with suppress(QueueFull):
            self.queue.add(readable, writable, self._next_token)
            self._lend(1)

    def _add_batch(self, count: int) -> None:
        tokens = np.arange(self._next_token, self._next_token + count, dtype=np.uint64)
        addresses, sizes = np.zeros(count, np.uint64), np.full(count, 16, np.uint64)
        self._lend(self.queue.add_batch(addresses, sizes, writable=True, tokens=tokens))

    def _lend(self, count: int) -> None:
        self.lent.update(range(self._next_token, self._next_token + count))
        self._next_token += count

    def _take(self, tokens: list[int]) -> None:
        for token in tokens:
            assert token in self.lent, "a buffer came back that was not lent"
            self.lent.remove(token)

    def come_to_rest(self) -> None:
        """Collect until nothing comes back; a device that writes nothing more has given back what it has."""
        for _ in range(len(self.lent) + 1):
            taken = self.queue.collect_batch().tokens.tolist()
            self._take(taken)
            if not taken:
                return
        raise AssertionError("the driver collects without end")
