"""`python -m vdev.run.destination_process`: what `vdev migrate` starts when it is not told where to go."""

import argparse
import os
import signal
import socket
import sys
import time

import trio

from host_migrator.destination import Destination
from host_migrator.link import SocketLink
from vdev.errors import VdevError
from vdev.events import EventStream
from vdev.record_pipe import stream_into_pipe
from vdev.run.arrival import Arrival
from vdev.schedule import FreeSchedule

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    """Take one guest over, let it prove itself, and end it; return the process's exit status."""
    parser = argparse.ArgumentParser(prog="vdev.run.destination_process")
    parser.add_argument("--link", type=int, required=True)
    parser.add_argument("--up", type=int, required=True, help="closed once this process is ready for the stream")
    parser.add_argument("--trace", type=int)
    options = parser.parse_args(arguments)
    # The source decides: it closes the link when it is interrupted.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    events = stream_into_pipe(options.trace) if options.trace is not None else EventStream(time.monotonic)
    return trio.run(_take_over, socket.socket(fileno=options.link), options.up, events)


async def _take_over(connection: socket.socket, up_fd: int, events: EventStream) -> int:
    schedule = FreeSchedule()
    async with trio.open_nursery() as nursery:
        arrival = Arrival(nursery, schedule, events)
        destination = Destination(
            SocketLink(connection), arrival.make, schedule, events=events.emitter("destination/loader")
        )
        try:
            await arrival.warm_up()
            os.close(up_fd)
            await destination.run()
        except VdevError:
            return 1  # The source was told why.
        finally:
            await arrival.discard()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
