"""The process that serves a target, started by us: how it is waited for, what its end says, and how it is ended."""

import contextlib
import ctypes
import os
import select
import shlex
import signal
import stat
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from vdev.check.target import Ending
from vdev.errors import UserError

__all__ = ["TargetProcess", "ending_of"]

_END_SECONDS = 5.0
"""How long a process has to end when it was asked to, before it is killed."""
_PR_SET_PDEATHSIG = 1
_LAST_WORDS_SIZE = 2000
_PLACEHOLDER = "{socket}"
_RUST_PANIC_STATUS = 101
_GO_PANIC_STATUS = 2
_SHELL_SIGNAL_BASE = 128
_CRASH_SIGNALS = frozenset(
    {signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGSYS, signal.SIGTRAP}
)


class TargetProcess:
    """`command`, split as a shell splits words but run without one; `{socket}` in it is replaced by `path`.

    It has a session of its own: a Ctrl-C on the terminal is not meant for it, and what it starts ends with it. It dies
    with this process, however that ends.
    """

    def __init__(self, command: str, path: str) -> None:
        """Raise UserError for a command that cannot be split, or is empty."""
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise UserError(f"--spawn: cannot split {command!r}: {error}") from error
        if not words:
            raise UserError('--spawn: there is no command; write one like --spawn "my-device --socket {socket}"')
        self._words = [word.replace(_PLACEHOLDER, path) for word in words]
        self._path = Path(path)
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._output: IO[bytes] | None = None
        self._there_before = self._beside()

    @property
    def pid(self) -> int | None:
        """Its number while it was started and its end was not looked at."""
        return None if self._process is None else self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and not self.has_ended(0)

    def start(self) -> None:
        """Start it. Raises UserError, one line, for a command that cannot be run."""
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process runs
        try:
            self._process = subprocess.Popen(
                self._words,
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent(),
            )
        except (OSError, ValueError) as error:
            self._output.close()
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise UserError(f"--spawn: cannot run {self._words[0]}: {reason}") from error
        self._pidfd = os.pidfd_open(self._process.pid)

    def has_ended(self, seconds: float) -> bool:
        """Wait at most `seconds` for its end, and say whether it has come."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def last_words(self) -> str:
        """Return the end of what it printed."""
        if self._output is None or self._output.closed:
            return ""
        # pread: the process writes at the offset that we would move.
        descriptor = self._output.fileno()
        size = os.fstat(descriptor).st_size
        data = os.pread(descriptor, _LAST_WORDS_SIZE, max(0, size - _LAST_WORDS_SIZE))
        return data.decode(errors="replace").strip()

    def take_ending(self) -> Ending:
        """Return how a process that has ended did so, and forget it: it can be started again."""
        process = self._process
        if process is None:
            raise RuntimeError("there is no process whose end could be looked at")
        words = self.last_words()
        return ending_of(self._reap(process), words)

    def stop(self, *, kill: bool = False) -> None:
        """End it if it runs: ask first, then kill; its socket and the files beside it that it made are removed."""
        try:
            if self._process is not None and not kill and not self.has_ended(0):
                self._signal(self._process, signal.SIGTERM)
                self.has_ended(_END_SECONDS)
        finally:
            # Whoever is impatient, with a second Ctrl-C, leaves no process either.
            if self._process is not None:
                self._reap(self._process)
            self._tidy()

    def _reap(self, process: subprocess.Popen[bytes]) -> int:
        # The leader is not waited for yet, so the number of its group is still its own.
        self._signal(process, signal.SIGKILL)
        status = process.wait()
        os.close(self._pidfd)
        if self._output is not None:
            self._output.close()
        self._process, self._pidfd = None, -1
        return status

    @staticmethod
    def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)

    def _beside(self) -> frozenset[str]:
        """Return the names in the socket's directory that begin with the socket's own."""
        try:
            return frozenset(name for name in os.listdir(self._path.parent) if name.startswith(self._path.name))
        except OSError:
            return frozenset()

    def _tidy(self) -> None:
        """Remove the socket, other sockets named after it, and its .pid file, if they were not there before us."""
        for name in self._beside() - self._there_before:
            made = self._path.parent / name
            with contextlib.suppress(OSError):
                if stat.S_ISSOCK(made.lstat().st_mode) or name == f"{self._path.name}.pid":
                    made.unlink()


def _die_with_parent() -> Callable[[], None]:
    """Return what the child does before it becomes the command: have the kernel kill it when this thread has ended."""
    # Looked up here: after the fork nothing may be imported or loaded.
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def arrange() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL.value, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)  # It has ended already.

    return arrange


def ending_of(status: int, words: str) -> Ending:
    """Return what a process's exit status says: negative for a signal, as `subprocess` has it."""
    number = -status if status < 0 else status - _SHELL_SIGNAL_BASE
    if status < 0 or number in _CRASH_SIGNALS:
        return Ending(True, f"its process was killed by {_signal_name(number)}", words)
    if status == _RUST_PANIC_STATUS and "panicked at" in words:
        return Ending(True, "its process panicked (status 101)", words)
    if status == _RUST_PANIC_STATUS:
        return Ending(True, "its process ended with status 101, as a panic in Rust does", words)
    if status == _GO_PANIC_STATUS and any(line.startswith(("panic: ", "fatal error: ")) for line in words.splitlines()):
        return Ending(True, "its process panicked (status 2)", words)
    if "Sanitizer: " in words and status:
        return Ending(True, f"its process was ended by a sanitizer (status {status})", words)
    return Ending(False, f"its process ended with status {status}", words)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
