"""A back end as a process of its own, for tests that kill it: gives back the buffers that say so and keeps the others.

python tests/vhost_user_back_end_process.py SOCKET
"""

import sys
from pathlib import Path

import trio

from vdev.device import Device
from vdev.memory import GuestMemory
from vdev.vhost_user.server import BackEnd, listen


class Holder(Device):
    """Keeps what it gets, but for buffers that begin with "done"; `seen` has what each said, in order."""

    device_id = 63
    name = "holder"
    queue_sizes = (64,)

    def __init__(self, memory, **options):
        super().__init__(memory, **options)
        self.seen = []

    def handle_queue(self, number):
        for chain in self.chains(number):
            said = chain.read(self.memory)
            self.seen.append(said)
            if said.startswith(b"done"):
                self.queues[number].push(chain.head, 0)


if __name__ == "__main__":
    with listen(Path(sys.argv[1])) as listener:
        print("listening", flush=True)
        trio.run(BackEnd(Holder(GuestMemory.absent())).serve, listener)
