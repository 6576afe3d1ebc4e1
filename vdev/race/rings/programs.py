"""What driver and device do in a scenario, over the real queues, and what each of them checks of the other."""

from typing import Protocol

import numpy as np

from guest_agent.virtqueue import DriverQueue
from spec.device import DeviceStatus
from vdev.device import Device
from vdev.errors import DriverViolation, VdevError
from vdev.memory import GuestMemory
from vdev.race.rings.scenario import RingScenario
from vdev.virtqueue import Chain, DeviceQueue

__all__ = ["Buffer", "Steps", "Wrong", "serve", "use"]


class Wrong(VdevError):
    """One side got something else than the other gave: the property that does not hold, and how."""

    def __init__(self, broken: str, message: str) -> None:
        self.broken = broken
        super().__init__(message)


class Steps(Protocol):
    """What a program does beside its accesses to RAM."""

    def notify(self) -> None:
        """Kick, or call."""
        ...

    def sleep(self, done_count: int, given_count: int) -> None:
        """Wait for the other side's notification: so many buffers were taken from it, so many given to it."""
        ...

    def mark(self, *state: object) -> None:
        """Here the program's state is `state` and that of its queue, and nothing else."""
        ...


class Buffer:
    """The buffer number `number` of a scenario: what the driver adds, and what the device has to find."""

    def __init__(self, scenario: RingScenario, number: int) -> None:
        address = 64 * (number % 64)
        self.token = number + 1
        self.readable = [(address, 8 + number)] if scenario.segments > 1 else []
        self.writable = [(address + 32, 16 + number)]
        # Every other one is written completely: with IN_ORDER its used entry may be left out.
        self.written_size = 1 + number % 16 if number & 1 else 16 + number

    def __str__(self) -> str:
        return f"buffer {self.token - 1}, {self.readable} and {self.writable}"

    def is_in(self, chain: Chain) -> bool:
        """Say whether this is what the device popped."""
        return [*chain.readable] == self.readable and [*chain.writable] == self.writable


# The driver


def use(scenario: RingScenario, queue: DriverQueue, steps: Steps) -> tuple[int, int]:
    """Send all buffers through `queue`, sleeping whenever there is nothing to do; returns those taken and given."""
    sleeps_deaf = scenario.driver == "sleeping"
    if sleeps_deaf:
        queue.disable_calls()
    added_count = collected_count = 0
    while collected_count < scenario.buffers:
        steps.mark(added_count, collected_count)
        room = min(_room(scenario, queue), scenario.buffers - added_count)
        if room:
            room = room if scenario.publishing == "together" else 1
            _add(scenario, queue, range(added_count, added_count + room))
            added_count += room
            queue.publish()
            steps.mark("published", added_count, collected_count)
            if queue.should_kick():
                steps.notify()
            continue
        taken = _collect(scenario, queue, added_count, collected_count, steps)
        collected_count += taken
        if taken or (sleeps_deaf and queue.enable_calls()):
            if sleeps_deaf and not taken:
                queue.disable_calls()
            continue
        steps.sleep(collected_count, added_count)
        if sleeps_deaf:
            queue.disable_calls()
    return collected_count, added_count


def _room(scenario: RingScenario, queue: DriverQueue) -> int:
    return queue.free_count // (1 if scenario.indirect else scenario.segments)


def _add(scenario: RingScenario, queue: DriverQueue, numbers: range) -> None:
    buffers = [Buffer(scenario, number) for number in numbers]
    if scenario.batches:
        addresses, sizes = np.array([each.writable[0] for each in buffers], np.uint64).T
        tokens = np.array([each.token for each in buffers], np.uint64)
        queue.add_batch(addresses, sizes, writable=True, tokens=tokens)
    else:
        for each in buffers:
            queue.add(each.readable, each.writable, each.token, indirect=scenario.indirect)


def _collect(scenario: RingScenario, queue: DriverQueue, added_count: int, collected_count: int, steps: Steps) -> int:
    """Take everything that was used; returns how many buffers."""
    taken_count = 0
    while True:
        steps.mark("collecting", added_count, collected_count, taken_count)
        if scenario.batches:
            batch = queue.collect_batch()
            taken = list(zip(batch.tokens.tolist(), batch.written_sizes.tolist(), strict=True))
        else:
            used = queue.collect()
            taken = [] if used is None else [(used.token, used.written_size)]
        if not taken:
            return taken_count
        for token, written_size in taken:
            expected = Buffer(scenario, collected_count + taken_count)
            if token <= collected_count + taken_count:
                raise Wrong("buffer twice", f"the driver collected buffer {token - 1} again")
            if (token, written_size) != (expected.token, expected.written_size):
                got, given = (
                    f"{token - 1}, {written_size} bytes",
                    f"{expected.token - 1}, {expected.written_size} bytes",
                )
                raise Wrong("wrong buffer", f"the device gave back buffer {given}, and the driver collected {got}")
            taken_count += 1


# The device


class _EchoDevice(Device):
    """A device with one queue that gives each buffer back as it finds it."""

    device_id = 0
    name = "echo"
    queue_sizes = (64,)

    def __init__(self, memory: GuestMemory, scenario: RingScenario, queue: DeviceQueue, steps: Steps) -> None:
        super().__init__(memory)
        self._scenario = scenario
        self._queue = queue
        self._steps = steps
        self.served_count = 0
        self.pass_count = 0
        self.call = lambda _: steps.notify()
        self.queue_setups[0].size = scenario.size
        self.queues[0] = queue
        self.status = DeviceStatus.DRIVER_OK

    def needs_reset(self, violation: DriverViolation) -> None:
        """Here no driver breaks the text: what looks so is a race."""
        raise violation

    def handle_queue(self, number: int) -> None:
        """Give back all that is there."""
        self.pass_count += 1
        if self._scenario.batches:
            self._serve_batches()
            return
        for position, chain in enumerate(self.chains(number)):
            self._queue.push(chain.head, self._found(chain))
            self._steps.mark("pushed", self.served_count, self.pass_count, position)

    def wake(self) -> None:
        """Serve the queue after a kick."""
        self.pass_count = 0
        if self._scenario.device == "notify":
            while self.queue_notify(0):
                self.pass_count = 0
            return
        # Kicks stay on: a look that finds nothing is to be believed.
        if self._scenario.batches:
            self._serve_batches()
        else:
            while (chain := self._queue.pop()) is not None:
                self._queue.push(chain.head, self._found(chain))
                self._steps.mark("pushed", self.served_count)
        self.call_driver(0)

    def _serve_batches(self) -> None:
        heads: list[int] = []
        written_sizes: list[int] = []
        while True:
            self._steps.mark("popping", self.served_count, self.pass_count, heads, written_sizes)
            batch = self._queue.pop_batch()
            if not len(batch):
                break
            heads += batch.heads.tolist()
            written_sizes += [self._found(chain) for chain in batch]
        if heads:
            self._queue.push_batch(np.array(heads), np.array(written_sizes))

    def _found(self, chain: Chain) -> int:
        """Check a popped buffer; returns how many bytes are said to be written."""
        number = self.served_count
        for earlier in range(number):
            if Buffer(self._scenario, earlier).is_in(chain):
                raise Wrong("buffer twice", f"the device popped buffer {earlier} again")
        expected = Buffer(self._scenario, number)
        if not expected.is_in(chain):
            raise Wrong("wrong buffer", f"the driver added {expected}, and the device popped {_told(chain)}")
        self.served_count += 1
        return expected.written_size


def _told(chain: Chain) -> str:
    return f"{list(map(tuple, chain.readable))} and {list(map(tuple, chain.writable))}"


def serve(scenario: RingScenario, memory: GuestMemory, queue: DeviceQueue, steps: Steps) -> None:
    """Sleep, and serve `queue` at each kick, for ever."""
    device = _EchoDevice(memory, scenario, queue, steps)
    while True:
        steps.mark("sleeping", device.served_count)
        steps.sleep(device.served_count, device.served_count)
        steps.mark("awake", device.served_count)
        device.wake()
