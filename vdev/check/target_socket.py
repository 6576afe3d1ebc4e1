"""Whoever serves vhost-user at a socket: somebody else's process, or one that is started (and started again) here."""

import errno
import os
import socket
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from vdev.check.target import DEFAULT_PATIENCE, ConnectionClosed, Ending, HostAction, TargetGone
from vdev.check.target_probe import RETRY_SECONDS, answers, connect_within
from vdev.check.target_process import TargetProcess
from vdev.check.verdict import TargetHung
from vdev.devices.kind import Carrier
from vdev.errors import UserError

if TYPE_CHECKING:
    from vdev.memory import GuestMemory
    from vdev.mmio import MmioRegisters

__all__ = ["START_SECONDS", "SocketTarget"]

START_SECONDS = 30.0
"""How long a process that was started has until it listens."""


class SocketTarget:
    """The back end at `path`; with `spawn` its process is ours: started when it is needed, and ended with `close`.

    Without a path a directory of our own is made for the socket, and removed at the end.
    """

    carrier = Carrier.VHOST_USER

    def __init__(
        self, path: str | None = None, *, spawn: str | None = None, patience: float = DEFAULT_PATIENCE
    ) -> None:
        """Raise UserError, one line, for a socket that cannot be, or where somebody listens whom we did not start."""
        self.patience = patience
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        if path is None:
            if spawn is None:
                raise UserError('give the SOCKET of the device, or --spawn "COMMAND {socket}"')
            self._directory = tempfile.TemporaryDirectory(prefix="vdev-check-", ignore_cleanup_errors=True)
            path = str(Path(self._directory.name) / "device")
        self._path = path
        self._process: TargetProcess | None = None
        self._was_there = False
        """Whether a connection was made before."""
        self._came_back = False
        """Whether there was a second connection: then it does not end with the first."""
        self._usual_end: str | None = None
        """How a process of ours ends when a driver leaves, None if it goes on: virtiofsd, for one, ends."""
        self._has_served = False
        """Whether the process of ours that runs now has taken a connection."""
        self._unseen: Ending | None = None
        """How a process of ours ended while a driver was at work; `settle` has not told of it yet."""
        try:
            if spawn is not None:
                self._make_free()
                self._process = TargetProcess(spawn, path)
        except UserError:
            self.close()
            raise

    @property
    def place(self) -> str:
        """The socket."""
        return self._path

    @property
    def pid(self) -> int | None:
        """The process that is ours, if there is one now."""
        return None if self._process is None else self._process.pid

    @property
    def host(self) -> HostAction | None:
        """What asks at the control socket that `vdev serve` has beside the device's."""
        control = f"{self._path}.control"
        if not Path(control).is_socket():
            return None
        from vdev.check.balloon_host import host_at_socket

        return host_at_socket(control)

    def plug_in(self, memory: "GuestMemory") -> "MmioRegisters":
        """Raise TypeError: there are no registers."""
        raise TypeError(f"what is behind {self._path} has no registers; {memory!r} is of no use to it")

    # Connections

    def connect(self) -> socket.socket:
        """Return a new connection; a process of ours that has ended is started again.

        Raises UserError at the first time, for a socket or a command that is not there; TargetGone later;
        ConnectionClosed if the process has just crashed, and TargetHung if it lives and takes no connection.
        """
        try:
            connection = self._connect() if self._process is None else self._connect_to_process(self._process)
        except UserError as error:
            if self._was_there:
                raise TargetGone(str(error)) from error
            raise
        self._was_there = True
        return connection

    def _connect(self) -> socket.socket:
        # The first time somebody may be mistyping, later the target may be coming back.
        connection = self._dial(self.patience if self._was_there else 0)
        if connection is None:
            after = f" any more, for {self.patience:g} s" if self._was_there else ""
            raise UserError(f"nobody accepts at {self._path}{after}")
        return connection

    def _connect_to_process(self, process: TargetProcess) -> socket.socket:
        if process.pid is not None and self._has_served:
            # Who ends with its driver is about to, and must not get the next one.
            if process.has_ended(self.patience if self._usual_end is not None else 0):
                self._note_ending(process)
            elif (connection := self._dial(self.patience, process)) is not None:
                return connection
            elif process.has_ended(0):
                self._note_ending(process)
            else:
                raise TargetHung(f"its process lives, and takes no connection within {self.patience:g} s")
        return self._start(process)

    def _start(self, process: TargetProcess) -> socket.socket:
        process.stop()  # A daemon that died left its socket, at which the next one may refuse to listen.
        process.start()
        connection = self._dial(START_SECONDS, process)
        self._has_served = connection is not None
        if connection is not None:
            return connection
        if process.has_ended(0):
            ending = process.take_ending()
            why = f"{ending.why.replace('its process', '--spawn: the command')} before it listened at {self._path}"
            raise UserError(f"{why}{_quoted(ending.last_words)}")
        raise UserError(f"--spawn: nobody listens at {self._path} {START_SECONDS:g} s after the command was started")

    def _note_ending(self, process: TargetProcess) -> None:
        """Keep how the process ended for `settle`. Raises ConnectionClosed for a crash, which ends the case."""
        ending = self._ending(process)
        self._unseen = ending or self._unseen
        if ending is not None and ending.is_crash:
            raise ConnectionClosed(f"the target is gone: {ending.why}")

    def _dial(self, seconds: float, process: TargetProcess | None = None) -> socket.socket | None:
        try:
            if process is None:
                return connect_within(self._path, seconds)
            return connect_within(self._path, seconds, go_on=lambda: not process.has_ended(0))
        except OSError as error:
            raise UserError(f"cannot connect to {self._path}: {_reason(error)}") from error

    def _make_free(self) -> None:
        """See that the process can listen: what a dead one left is removed, for not every daemon does that."""
        path = Path(self._path)
        try:
            connection = connect_within(self._path, 0)
        except OSError as error:
            raise UserError(f"cannot use {self._path}: {_reason(error)}") from error
        if connection is not None:
            connection.close()
            raise UserError(f"somebody listens at {self._path} already; leave out --spawn, or choose another path")
        if path.is_socket():
            path.unlink()
        elif path.exists():
            raise UserError(f"{self._path} is there, and is no socket; choose another path")
        elif not path.parent.is_dir():
            raise UserError(f"cannot use {self._path}: its directory does not exist")

    # Afterwards

    def settle(self) -> Ending | None:
        """Wait until another driver can come. Raises TargetHung for one that neither answers nor ends in time.

        Raises TargetGone where it seems that its kind ends with its first driver, and nobody can start it again.
        """
        if self._process is not None:
            return self._settle_process(self._process)
        why = self._wait_answer()
        if why is None:
            self._came_back = True
            return None
        if not self._came_back:
            raise TargetGone(
                f"nobody answers at {self._path} any more; for a device that ends when its driver leaves, give --spawn"
            )
        return Ending(True, f"{why}, for {self.patience:g} s now")

    def _wait_answer(self) -> str | None:
        """Ask on new connections until one is answered; return what happened instead, None if one was."""
        deadline = time.monotonic() + self.patience
        while True:
            connection = self._dial(deadline - time.monotonic())
            if connection is None:
                return "it refuses connections"
            # Who is dying, or beginning anew, may take a connection that is never served.
            if _is_answered(connection, self.patience):
                return None
            if time.monotonic() >= deadline:
                return "it closes connections without an answer"
            time.sleep(RETRY_SECONDS)

    def _settle_process(self, process: TargetProcess) -> Ending | None:
        unseen, self._unseen = self._unseen, None
        ending = self._settle_running(process)
        return unseen if unseen is not None and (ending is None or unseen.is_crash) else ending

    def _settle_running(self, process: TargetProcess) -> Ending | None:
        if process.pid is None:
            return None
        if self._usual_end is not None and process.has_ended(self.patience):
            return self._ending(process)
        connection = self._dial(self.patience, process)
        if connection is not None and _is_answered(connection, self.patience):
            self._came_back = True
            return None
        if process.has_ended(self.patience):
            return self._ending(process)
        why = f"its process lives, and accepts no driver for {self.patience:g} s"
        return Ending(True, why, process.last_words())

    def _ending(self, process: TargetProcess) -> Ending | None:
        ending = process.take_ending()
        if not self._came_back and self._usual_end is None and not ending.is_crash:
            self._usual_end = ending.why
        return None if ending.why == self._usual_end else ending

    def last_words(self) -> str:
        """Return the end of what a process of ours printed."""
        return "" if self._process is None else self._process.last_words()

    def restart(self) -> bool:
        """Kill a process that is ours; the next `connect` starts another one. False if there is none of ours."""
        if self._process is None:
            return False
        self._process.stop(kill=True)
        return True

    def close(self) -> None:
        """End a process that is ours, and remove what it made of sockets."""
        if self._process is not None:
            self._process.stop()
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None


def _is_answered(connection: socket.socket, patience: float) -> bool:
    with connection:
        return answers(connection, patience)


def _reason(error: OSError) -> str:
    # Longer than 107 bytes: no errno says so.
    return error.strerror or str(error) if error.errno != errno.ENAMETOOLONG else os.strerror(errno.ENAMETOOLONG)


def _quoted(words: str) -> str:
    last = words.splitlines()[-1:]
    return f": {last[0]}" if last else ""
