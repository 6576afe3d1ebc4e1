"""What may be typed after an option: parsed and checked before anything starts."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from vdev.cli.sizes import format_size, parse_bandwidth, parse_duration, parse_size

__all__ = [
    "bandwidth",
    "check_inflate_size",
    "check_ram_size",
    "check_writable",
    "duration",
    "memory_size",
    "rate",
    "size",
]

PAGE_SIZE = 4096
SMALLEST_RAM_SIZE = 4 << 20
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def size(text: str) -> int:
    """Return the bytes that `text` names. Raises BadParameter."""
    with _refusals():
        return parse_size(text)


def bandwidth(text: str) -> float:
    """Return the bytes per second that `text` names, more than 0. Raises BadParameter."""
    with _refusals():
        return _positive(parse_bandwidth(text), f"{text!r} would never end; give more than 0, like 100MiB/s")


def duration(text: str) -> float:
    """Return the seconds that `text` names, more than 0. Raises BadParameter."""
    with _refusals():
        return _positive(parse_duration(text), f"{text!r} can never be met; give more than 0, like 300ms")


def rate(text: str) -> float:
    """Return operations per second, more than 0. Raises BadParameter."""
    with _refusals():
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(f"{text!r} is not a number of operations per second, like 500")
        return _positive(value, f"{text!r} operations per second are none; give more than 0, or --workload idle")


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _positive(value: float, refusal: str) -> float:
    if value <= 0:
        raise ValueError(refusal)
    return value


def memory_size() -> int:
    """Return the bytes of memory that this machine, or the control group around us, has."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        limit = int(_CGROUP_LIMIT.read_text())
    except (OSError, ValueError):  # no control group of version 2 at this place, or "max"
        return physical
    return min(physical, limit)


def check_ram_size(ram_size: int, copy_count: int, memory: int) -> None:
    """Refuse guest RAM that no guest could use, or `copy_count` copies that do not fit `memory` bytes.

    Raises BadParameter with one line that says what to do.
    """
    if ram_size < SMALLEST_RAM_SIZE:
        raise click.BadParameter(
            f"{ram_size} bytes is too little for a guest; give at least {SMALLEST_RAM_SIZE >> 20}MiB",
            param_hint="'--ram'",
        )
    _check_whole_pages(ram_size, "'--ram'")
    if ram_size * copy_count > memory:
        sides = "source and destination together" if copy_count == 2 else "the source"
        raise click.BadParameter(
            f"{sides} would need {format_size(ram_size * copy_count)} and this machine has {format_size(memory)};"
            " give less",
            param_hint="'--ram'",
        )


def check_inflate_size(inflate_size: int, ram_size: int) -> None:
    """Refuse a balloon that leaves the guest no room to work.

    Raises BadParameter with one line that says what to do.
    """
    _check_whole_pages(inflate_size, "'--inflate'")
    if not 0 <= inflate_size <= ram_size // 2:
        raise click.BadParameter(
            f"give 0 to {format_size(ram_size // 2)}, half of guest RAM; the guest needs the rest",
            param_hint="'--inflate'",
        )


def _check_whole_pages(value: int, hint: str) -> None:
    if value % PAGE_SIZE:
        raise click.BadParameter(
            f"{value} bytes is not whole pages of {PAGE_SIZE} bytes; give a multiple, like 64MiB", param_hint=hint
        )


def check_writable(path: Path, option: str) -> None:
    """Refuse a file that cannot be written; leaves nothing behind.

    Raises BadParameter with one line that says why.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        return  # a pipe or a terminal: opening it now would be seen at its other end
    is_new = not path.exists()
    try:
        with path.open("ab"):
            pass
        if is_new:
            path.unlink()
    except OSError as error:
        raise click.BadParameter(
            f"cannot write {path}: {error.strerror}; choose another file", param_hint=f"'{option}'"
        ) from error
