"""A virtio device of one's own, and a driver that uses it.

    $ python examples/minimal_device.py
    the device answered: HELLO FROM THE GUEST

The device is `Shouter`: it gives each buffer back in capital letters. Everything else here is the guest's side, so that
there is somebody to talk to.
"""

from guest_agent.mmio import MmioDriver
from guest_agent.virtqueue import make_driver_queue
from vdev.device import RING_FEATURES, Device
from vdev.memory import GuestMemory
from vdev.mmio import MmioRegisters


class Shouter(Device):
    device_id = 63  # a number that the text does not give to anybody
    name = "shouter"
    queue_sizes = (64,)

    def handle_queue(self, number: int) -> None:
        for chain in self.chains(number):
            answer = chain.read(self.memory).upper()[: chain.writable_size]
            self.queues[number].push(chain.head, chain.write(self.memory, answer))


def shout(text: bytes) -> bytes:
    """Let a guest send `text` to the device, and return the answer."""
    memory = GuestMemory.private(1 << 20)
    registers = MmioRegisters(Shouter(memory))

    driver = MmioDriver(registers, base=0)
    driver.acknowledge_device()
    features = driver.negotiate(RING_FEATURES)
    queue = make_driver_queue(memory, 0, 16, 0x1000, features)
    driver.set_up_queue(0, queue.addresses)
    driver.drive()

    memory.write(0x8000, text)
    queue.add([(0x8000, len(text))], [(0x9000, len(text))], token=1)
    driver.publish(queue)
    used = queue.collect()
    assert used is not None
    return memory.read(0x9000, used.written_size)


if __name__ == "__main__":
    print("the device answered:", shout(b"hello from the guest").decode())
