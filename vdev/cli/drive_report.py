"""What came of `vdev drive`, for a person."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vdev.cli.one_line import complain
from vdev.cli.running import STDOUT
from vdev.cli.sizes import format_count, format_duration, format_size
from vdev.cli.streams import silence

__all__ = ["render_report", "show_report"]

_SHOWN_SECTOR_COUNT = 8
_UNITS = ("bytes", "seconds")


def show_report(command: str, report: Mapping[str, Any], json_path: Path | None, *, table_on_stderr: bool) -> bool:
    """Write table and JSON; return whether everything was written."""
    file = sys.stderr if table_on_stderr else sys.stdout
    json_text = json.dumps(report, indent=2) + "\n"
    try:
        try:
            file.write(render_report(report, Console(file=file, highlight=False)))
            file.flush()
            if json_path == STDOUT:
                file = sys.stdout
                file.write(json_text)
                file.flush()
        except BrokenPipeError:
            silence(file)
        if json_path is not None and json_path != STDOUT:
            json_path.write_text(json_text)
    except OSError as error:
        complain(command, f"cannot write the report: {error.strerror}")
        return False
    return True


def render_report(report: Mapping[str, Any], console: Console) -> str:
    """Return the report as text for `console`."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _rows(report):
        table.add_row(name, value)
    with console.capture() as capture:
        console.print(table)
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())


def _rows(report: Mapping[str, Any]) -> list[tuple[str, Text]]:
    rows = []
    for key, value in report.items():
        if isinstance(value, Mapping):
            text = ", ".join(filter(None, (_words(name, inner) for name, inner in value.items())))
        else:
            text = _value(key, value)
        if text:
            is_wrong = key in ("exercise", "verified") and _has_mismatch(value)
            rows.append((_name(key), Text(text, style="red" if is_wrong else "")))
    return rows


def _has_mismatch(value: Mapping[str, Any]) -> bool:
    return bool(value.get("mismatched_sectors") or value.get("mismatched"))


def _name(key: str) -> str:
    stem, _, unit = key.rpartition("_")
    return (stem if stem and unit in _UNITS else key).replace("_", " ")


def _words(key: str, value: Any) -> str:
    text = _value(key, value)
    return f"{_name(key)} {text}" if text else ""


def _value(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        limit = _SHOWN_SECTOR_COUNT if key.endswith("sectors") else len(value)
        shown = [str(item) for item in value[:limit]]
        more = [f"and {len(value) - limit} more"] if len(value) > limit else []
        return ", ".join(shown + more)
    if key.endswith("bytes") and isinstance(value, int):
        return format_size(value)
    if key.endswith("seconds"):
        return format_duration(value)
    return format_count(value) if isinstance(value, int) else str(value)
