"""A trace on disk that listens to the event stream."""

from pathlib import Path
from types import TracebackType
from typing import IO, Protocol, Self

from vdev.errors import UserError
from vdev.events import Record
from vdev.trace.jsonl import JsonLinesWriter

__all__ = ["PERFETTO_SUFFIX", "TraceFile", "open_trace"]

PERFETTO_SUFFIX = ".pftrace"


class _Writer(Protocol):
    def write(self, record: Record) -> None: ...

    def finish(self) -> None: ...


class TraceFile:
    """A listener that writes each record as it comes; a context manager that ends the file.

    A file that takes no more (a full disk) does not harm the run that is being traced: the trace falls silent, and
    `problem` says why in one line.
    """

    def __init__(self, file: IO[bytes], writer: _Writer, path: Path) -> None:
        self._file = file
        self._writer = writer
        self._path = path
        self.problem: str | None = None
        """None while every record has been written."""

    def __call__(self, record: Record) -> None:
        """Write one record."""
        if self.problem is None:
            try:
                self._writer.write(record)
            except OSError as error:
                self._give_up(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            if self.problem is None:
                self._writer.finish()
        except OSError as finish_error:
            self._give_up(finish_error)
        try:
            self._file.close()
        except OSError as close_error:
            self._give_up(close_error)

    def _give_up(self, error: OSError) -> None:
        self.problem = self.problem or f"the trace {self._path} is incomplete: {error.strerror}"


def open_trace(path: Path) -> TraceFile:
    """Create the trace file `path`: Perfetto's own format when the name ends in .pftrace, JSON lines otherwise.

    Subscribe what it returns to an `EventStream` and use it in a `with` statement.
    Raises UserError when the file cannot be created.
    """
    try:
        file = path.open("wb")
    except OSError as error:
        raise UserError(f"cannot write the trace {path}: {error.strerror}") from error
    if path.suffix != PERFETTO_SUFFIX:
        return TraceFile(file, JsonLinesWriter(file), path)
    # Perfetto's messages take 80 ms to import: only who asks for them pays.
    from vdev.trace.perfetto import PerfettoWriter

    return TraceFile(file, PerfettoWriter(file), path)
