"""A device that gives every buffer back reversed, as a program of its own over shared RAM.

Arguments: memfd, its size, kick eventfd, call eventfd, features, number of buffers to handle, then the queue's size
and three addresses.
"""

import sys
from functools import partial

import numpy as np
import trio

from spec.device import Feature
from vdev.memory import GuestMemory, MemfdBacking, Region
from vdev.notify import EventfdDoorbell
from vdev.virtqueue import QueueAddresses, make_device_queue


async def serve(memory, device, kick, call, count, *, in_order):
    handled = 0
    while handled < count:
        await kick.wait_rung()
        device.disable_kicks()
        while True:
            # By turns: everything at once in numpy, or a few one by one.
            chains = list(device.pop_batch(None if handled % 3 else 5))
            for chain in chains:
                chain.write(memory, chain.read(memory)[::-1])
            if not in_order:
                chains.reverse()
            if handled % 2:
                sizes = [chain.writable_size for chain in chains]
                device.push_batch(np.array([chain.head for chain in chains], np.int64), np.array(sizes, np.int64))
            else:
                for chain in chains:
                    device.push(chain.head, chain.writable_size)
            handled += len(chains)
            if device.should_call():
                call.ring()
            if not chains and not device.enable_kicks():
                break


def main():
    fd, size, kick, call, features, count, *addresses = map(int, sys.argv[1:])
    memory = GuestMemory([Region(0, MemfdBacking(size, fd))])
    device = make_device_queue(memory, 0, QueueAddresses(*addresses), features)
    in_order = bool(features >> Feature.IN_ORDER & 1)
    doorbells = EventfdDoorbell(kick), EventfdDoorbell(call)
    trio.run(partial(serve, memory, device, *doorbells, count, in_order=in_order))


if __name__ == "__main__":
    main()
