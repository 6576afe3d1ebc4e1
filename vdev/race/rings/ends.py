"""A scenario's two actors: the real queues over watched memory, from a start that was prepared with the same code."""

from functools import lru_cache

from guest_agent.virtqueue import attach_driver_queue, make_driver_queue
from guest_agent.virtqueue.packed import PackedDriverQueue
from guest_agent.virtqueue.split import SplitDriverQueue
from vdev.memory import GuestMemory
from vdev.race.rings.actor import Actor, Execution
from vdev.race.rings.layout import AREA, Layout
from vdev.race.rings.programs import serve, use
from vdev.race.rings.scenario import RingScenario
from vdev.race.rings.watched import WatchedMemory
from vdev.virtqueue import PackedDeviceQueue, QueueAddresses, QueueState, SplitDeviceQueue, make_device_queue

__all__ = ["make_actors"]

_MANY = 1
"""With `batches`, so few buffers are many."""


@lru_cache(maxsize=64)
def _prepared(size: int, features: int, indirect_capacity: int, ram_size: int, start: int) -> tuple[bytes, QueueState]:
    """Return RAM and the device's state after `start` buffers went through."""
    memory = GuestMemory.private(ram_size)
    driver = make_driver_queue(memory, 0, size, AREA, features, indirect_capacity=indirect_capacity)
    device = make_device_queue(memory, 0, QueueAddresses(*driver.addresses), features)
    for _ in range(start):
        driver.add([], [(0, 1)], 0)
        driver.publish()
        driver.should_kick()
        while (chain := device.pop()) is not None:
            device.push(chain.head, 0)
        device.should_call()
        driver.collect()
    return memory.read(0, ram_size), device.save()


def make_actors(scenario: RingScenario) -> tuple[Layout, bytes, tuple[Actor, Actor]]:
    """Return the layout of the shared bytes, these bytes at the start, and driver and device."""
    layout = Layout(scenario)
    features = scenario.features
    ram, state = _prepared(scenario.size, features, layout.indirect_capacity, layout.ram_size, scenario.start)
    addresses = QueueAddresses(*attach_driver_queue(_with_content(ram), 0, AREA).addresses)
    driver_memory, device_memory = WatchedMemory(layout), WatchedMemory(layout)

    def execute_driver(log: tuple[int, ...]) -> Execution:
        driver_memory.own_bytes.data[:] = ram
        execution = Execution(log, lambda: driver_memory.own_bytes[AREA:].tobytes())
        driver_memory.accesses = execution
        queue = attach_driver_queue(driver_memory, 0, AREA)
        if scenario.batches:
            assert isinstance(queue, SplitDriverQueue | PackedDriverQueue)
            queue.small_batch = _MANY
        execution.run(lambda: use(scenario, queue, execution))
        return execution

    def execute_device(log: tuple[int, ...]) -> Execution:
        execution = Execution(log, lambda: repr(queue.save()).encode())
        device_memory.accesses = execution
        queue = make_device_queue(device_memory, 0, addresses, features)
        queue.restore(state)
        if scenario.batches:
            assert isinstance(queue, SplitDeviceQueue | PackedDeviceQueue)
            queue.small_batch = _MANY
        execution.run(lambda: serve(scenario, device_memory, queue, execution))
        return execution

    return layout, layout.image(ram), (Actor("driver", execute_driver), Actor("device", execute_device))


def _with_content(ram: bytes) -> GuestMemory:
    memory = GuestMemory.private(len(ram))
    memory.write(0, ram)
    return memory
