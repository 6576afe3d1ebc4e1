"""The entropy device as the text has it, in twenty lines, and vdev's own driver that uses it.

    $ python examples/entropy_device.py
    the device gave 16 of 32 bytes: fe5518cbe8dfe59296946bd26935a014

The device is `Dice`. It fills buffers, as the text allows not always to the brim, and throws the same numbers in each
run. `vdev.devices.entropy` is the one to use: its bytes come from the operating system.
"""

import random

from guest_agent.drivers.entropy import EntropyDriver
from guest_agent.mmio import MmioDriver
from vdev.device import Device
from vdev.errors import DriverViolation
from vdev.memory import GuestMemory
from vdev.mmio import MmioRegisters


class Dice(Device):
    device_id = 4
    name = "dice"
    queue_sizes = (64,)
    random = random.Random(6)

    def handle_queue(self, number: int) -> None:
        for chain in self.chains(number):
            if chain.readable or not chain.writable_size:
                raise DriverViolation("Entropy Device / Device Operation", "a buffer that cannot be filled")
            data = self.random.randbytes(min(chain.writable_size, 16))
            self.queues[number].push(chain.head, chain.write(self.memory, data))


def roll(size: int) -> bytes:
    """Let a guest ask for `size` random bytes, and return what it gets."""
    memory = GuestMemory.private(1 << 20)
    transport = MmioDriver(MmioRegisters(Dice(memory)), base=0)
    driver = EntropyDriver.start(transport, memory, area_address=0x1000)
    driver.ask(size)
    driver.work()
    return driver.take()


if __name__ == "__main__":
    data = roll(32)
    print(f"the device gave {len(data)} of 32 bytes: {data.hex()}")
