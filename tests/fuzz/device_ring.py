"""The device's side of a ring over memory that a driver filled as it liked: nothing but DriverViolation comes out."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import vdev.virtqueue.packed
import vdev.virtqueue.split
from fuzz.program import Program
from spec.packed_ring import EVENT_SIZE
from spec.packed_ring import ring_size as packed_ring_size
from spec.split_ring import available_ring_size, descriptor_table_size
from vdev.errors import DriverViolation
from vdev.memory import GuestMemory
from vdev.virtqueue import DeviceQueue, QueueAddresses, make_device_queue

__all__ = ["fuzz_packed_device", "fuzz_split_device"]

_RAM_SIZE = 0x2000
_READ_LIMIT = 1 << 16
_MODULES: tuple[Any, ...] = (vdev.virtqueue.split, vdev.virtqueue.packed)


def fuzz_split_device(data: bytes) -> None:
    """Run a split ring's device side."""
    _fuzz(Program.parse(data, packed=False), packed=False)


def fuzz_packed_device(data: bytes) -> None:
    """Run a packed ring's device side."""
    _fuzz(Program.parse(data, packed=True), packed=True)


def _addresses(size: int, packed: bool) -> QueueAddresses:
    """Return areas that follow each other from address 0 on, so that little content fills them."""
    if packed:
        driver = packed_ring_size(size)
        return QueueAddresses(size, 0, driver, driver + EVENT_SIZE)
    driver = descriptor_table_size(size)
    return QueueAddresses(size, 0, driver, -(-(driver + available_ring_size(size)) // 4) * 4)


def _fuzz(program: Program, packed: bool) -> None:
    one_by_one, batches = _Run(program, packed), _Run(program, packed)
    with _vectorised_from(2):
        assert one_by_one.pop_all(batch=False) == batches.pop_all(batch=True), "the batch path differs from the other"
    run = _Run(program, packed)
    with _vectorised_from(2 if program.prefers_batches else 16):
        for call, offset, value in program.play(_RAM_SIZE):
            if call < 0:
                run.memory.write(offset, value)
            elif not run.do(call):
                return
        run.come_to_rest()


@contextmanager
def _vectorised_from(count: int) -> Iterator[None]:
    """Have `count` chains be enough for the batch path, so that little content reaches it."""
    before = [module._SMALL_BATCH for module in _MODULES]
    try:
        for module in _MODULES:
            module._SMALL_BATCH = count
        yield
    finally:
        for module, its_count in zip(_MODULES, before, strict=True):
            module._SMALL_BATCH = its_count


class _Run:
    def __init__(self, program: Program, packed: bool) -> None:
        self.program = program
        self.memory = GuestMemory.private(_RAM_SIZE)
        self.memory.write(0, program.content[:_RAM_SIZE])
        self.addresses = _addresses(program.size, packed)
        self.held: list[int] = []
        self.queue: DeviceQueue = make_device_queue(self.memory, 0, self.addresses, program.features)

    def do(self, call: int) -> bool:
        """Make one call; return whether the device would go on."""
        queue, held = self.queue, self.held
        before = queue.save()
        kind, amount = call % 10, 1 + call // 10
        try:
            match kind:
                case 0:
                    self._pop()
                case 1:
                    self.held += queue.pop_batch(amount).heads.tolist()
                case 2 if held:
                    queue.push(held.pop(0), amount)
                case 3 if held:
                    heads = np.array(held[:amount], np.int64)
                    queue.push_batch(heads, np.zeros(len(heads), np.int64))
                    del held[:amount]
                case 4:
                    queue.should_call()
                    return True
                case 5:
                    queue.disable_kicks()
                case 6:
                    queue.enable_kicks()
                case 7:
                    queue.has_available()
                case 8:
                    self._reopen()
                case 9:
                    base = queue.ring_base()
                    fresh = make_device_queue(self.memory, 0, self.addresses, self.program.features)
                    fresh.start_from(base)
        except DriverViolation:
            assert queue.save() == before, "a violation changed the queue"
            return False
        return True

    def _pop(self) -> None:
        chain = self.queue.pop()
        if chain is None:
            return
        self.held.append(chain.head)
        if chain.readable_size <= _READ_LIMIT:
            assert len(chain.read(self.memory)) == chain.readable_size

    def _reopen(self) -> None:
        state = self.queue.save()
        self.queue = make_device_queue(self.memory, 0, self.addresses, self.program.features)
        self.queue.restore(state)
        assert self.queue.save() == state

    def come_to_rest(self) -> None:
        """Serve the ring until it is empty or broken; a ring that nobody writes to any more has an end."""
        size = self.program.size
        try:
            for _ in range(2 * size + 2):
                self.held += self.queue.pop_batch().heads.tolist()
                if not self.held:
                    assert not self.queue.enable_kicks() or self.queue.has_available()
                    return
                heads = np.array(self.held, np.int64)
                self.held = []
                self.queue.push_batch(heads, np.ones(len(heads), np.int64))
                self.queue.should_call()
        except DriverViolation:
            return
        raise AssertionError("the device never comes to rest")

    def pop_all(self, *, batch: bool) -> list[Any]:
        """Return every chain as it was taken, and at last the violation's words, or None."""
        seen: list[Any] = []
        try:
            for _ in range(self.program.size + 1):
                chains = list(self.queue.pop_batch()) if batch else [self.queue.pop()]
                if not chains or chains == [None]:
                    return [*seen, None]
                seen += [(chain.head, list(chain.readable), list(chain.writable)) for chain in chains if chain]
        except DriverViolation as violation:
            return [*seen, str(violation)]
        raise AssertionError("more chains than descriptors")
