"""Events of one process in the stream of another: JSON lines in a pipe."""

import json
import os
import time

import trio

from vdev.events import EventStream, Record, record_from_json, record_to_json

__all__ = ["PipeBroken", "forward_records", "stream_into_pipe"]

_READ_SIZE = 64 << 10


class PipeBroken(OSError):
    """The process that read our events is gone."""


def stream_into_pipe(fd: int) -> EventStream:
    """Return a stream whose records are written to the pipe `fd`, stamped by CLOCK_MONOTONIC.

    Emitting raises PipeBroken once the reader is gone.
    """
    pipe = os.fdopen(fd, "w", buffering=1)

    def write(record: Record) -> None:
        try:
            pipe.write(json.dumps(record_to_json(record)) + "\n")
        except BrokenPipeError as error:
            raise PipeBroken("the process that reads our events is gone") from error

    stream = EventStream(time.monotonic)
    stream.subscribe(write)
    return stream


async def forward_records(fd: int, events: EventStream, *, prefix: str = "") -> None:
    """Read records from the pipe `fd` until its writers are gone, and hand them on; `prefix` goes before the actor."""
    async with trio.lowlevel.FdStream(fd) as pipe:
        rest = b""
        while piece := await pipe.receive_some(_READ_SIZE):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                record = record_from_json(json.loads(line))
                events.forward(Record(record.time, prefix + record.actor, record.event))
