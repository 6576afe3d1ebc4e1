"""The destination process that `vdev migrate` starts when it is not told where to go."""

import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import trio

from host_migrator.query import Fate
from vdev.events import EventStream
from vdev.record_pipe import forward_records

__all__ = ["LocalDestination", "start_destination"]

_END_GRACE = 5.0
"""Seconds the process gets to end its guest and itself."""


class LocalDestination:
    """A destination process at the other end of `connection`. `up_fd` is readable once it is up, or has ended."""

    def __init__(self, process: trio.Process, connection: socket.socket, up_fd: int) -> None:
        self.process = process
        self.connection = connection
        self._up_fd = up_fd

    async def wait_up(self) -> None:
        """Wait until the process is up, or has ended: what it needs to start is no part of a migration's time."""
        await trio.lowlevel.wait_readable(self._up_fd)

    async def resolve(self, migration_id: UUID) -> Fate:
        """Make sure: this process is ours, and once it is killed its guest is gone."""
        if self.process.poll() is None:
            self.process.kill()
        await self.process.wait()
        return Fate.GONE


@asynccontextmanager
async def start_destination(events: EventStream) -> AsyncIterator[LocalDestination]:
    """Start the process; at the end wait for it, and kill it if it does not end."""
    ours, theirs = socket.socketpair()
    up_fd, their_up_fd = os.pipe()
    trace = os.pipe() if events.listening else None
    inherited = {"--link": theirs.fileno(), "--up": their_up_fd} | ({"--trace": trace[1]} if trace else {})
    command = [sys.executable, "-m", "vdev.run.destination_process"]
    command += [word for option, fd in inherited.items() for word in (option, str(fd))]
    async with trio.open_nursery() as nursery:
        try:
            process = await trio.lowlevel.open_process(
                command,
                pass_fds=list(inherited.values()),
                stdin=subprocess.DEVNULL,
                # A Ctrl-C at the terminal is the source's to handle.
                process_group=0,
            )
        finally:
            theirs.close()
            os.close(their_up_fd)
            if trace:
                os.close(trace[1])
        if trace:
            nursery.start_soon(forward_records, trace[0], events)
        try:
            yield LocalDestination(process, ours, up_fd)
        finally:
            ours.close()
            os.close(up_fd)
            with trio.CancelScope(shield=True):
                with trio.move_on_after(_END_GRACE):
                    await process.wait()
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            # Whatever its guest still had to say is in the pipe, which ends with the last writer.
            nursery.cancel_scope.deadline = trio.current_time() + _END_GRACE
