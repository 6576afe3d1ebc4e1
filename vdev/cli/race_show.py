"""How lines, JSON and files of `vdev race` are written."""

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.text import Text

from vdev.cli.streams import silence
from vdev.errors import UserError
from vdev.race.story import Line

__all__ = ["print_lines", "write_json", "write_text"]

_STYLES = {"title": "bold red", "good": "bold green", "header": "dim", "fatal": "red", "end": "bold"}
_STDOUT = Path("-")


def print_lines(lines: Iterable[Line], json_path: Path | None) -> None:
    """Print lines on stdout, on stderr if JSON has that; with colours where there are some.

    A reader who has gone away is no failure. Raises UserError for any other.
    """
    file = sys.stderr if json_path == _STDOUT else sys.stdout
    console = Console(file=file, highlight=False)
    with console.capture() as capture:
        for line in lines:
            console.print(Text(line.text, _STYLES.get(line.kind, "")), soft_wrap=True)
    _write(file, capture.get())


def write_json(path: Path, mapping: Mapping[str, Any] | list[Any]) -> None:
    """Write JSON into a file, or on stdout for "-". Raises UserError for a place that cannot be written."""
    text = json.dumps(mapping, indent=2) + "\n"
    if path == _STDOUT:
        _write(sys.stdout, text)
    else:
        write_text(path, text)


def write_text(path: Path, text: str) -> None:
    """Write a file. Raises UserError for a place that cannot be written."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def _write(file: IO[str], text: str) -> None:
    try:
        file.write(text)
        file.flush()
    except BrokenPipeError:
        silence(file)
    except OSError as error:
        raise UserError(f"cannot write to standard output: {error.strerror}") from error
