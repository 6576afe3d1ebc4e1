"""JSON lines: one record a line, keys in the order of declaration, so equal runs give equal bytes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from vdev.events import Record, record_from_json, record_to_json

__all__ = ["JsonLinesWriter", "read_json_lines"]

_encode = json.JSONEncoder(separators=(",", ":")).encode


class JsonLinesWriter:
    """Writes each record as one line of JSON to a binary file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, record: Record) -> None:
        """Append one record. Raises OSError when the file cannot take it."""
        self._file.write(_encode(record_to_json(record)).encode() + b"\n")

    def finish(self) -> None:
        """Nothing to end: every line stands by itself."""


def read_json_lines(path: Path) -> Iterator[Record]:
    """Yield the records of a trace that `JsonLinesWriter` wrote, in order.

    Raises OSError when the file cannot be read, ValueError when a line is not JSON, KeyError when a line is not a
    record of this version.
    """
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield record_from_json(json.loads(line))
