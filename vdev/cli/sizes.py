"""Sizes, durations and rates as people write them.

>>> parse_size("1GiB"), parse_size("4096"), parse_size("1.5M")
(1073741824, 4096, 1572864)
>>> parse_duration("300ms")
0.3
>>> parse_bandwidth("100MiB/s"), parse_bandwidth("1Gbit/s")
(104857600.0, 125000000.0)
>>> format_size(1 << 30), format_duration(0.0123), format_bandwidth(2.5e9)
('1.00 GiB', '12.3 ms', '2.33 GiB/s')
"""

import math
import re
from collections.abc import Mapping

__all__ = [
    "format_bandwidth",
    "format_count",
    "format_duration",
    "format_size",
    "parse_bandwidth",
    "parse_duration",
    "parse_size",
]

_BINARY = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE_UNITS = {
    "b": 1,
    **_BINARY,
    **{f"{letter}ib": factor for letter, factor in _BINARY.items() if letter},
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgt", 1)},
}
_BIT_UNITS = {f"{letter}bit": 1000**power / 8 for power, letter in enumerate(["", "k", "m", "g", "t"])}
_TIME_UNITS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0}
_NUMBER_AND_UNIT = re.compile(r"\s*([+-]?[0-9]+(?:\.[0-9]*)?|[+-]?\.[0-9]+)\s*([^\W\d_]*)\s*")


def parse_size(text: str) -> int:
    """Return the bytes that `text` names: 4096, 512MiB, 1G (as GiB), 1GB (10**9).

    Raises ValueError, whose message says what would do.
    """
    size = _parse(text, _SIZE_UNITS, "a size like 512MiB or 1GiB")
    if size != int(size):
        raise ValueError(f"{text!r} is not a whole number of bytes")
    return int(size)


def parse_duration(text: str) -> float:
    """Return the seconds that `text` names: 300ms, 0.3s, 2min. A bare number is refused: it could be either.

    Raises ValueError, whose message says what would do.
    """
    return _parse(text, _TIME_UNITS, "a time with its unit, like 300ms or 0.3s")


def parse_bandwidth(text: str) -> float:
    """Return the bytes per second that `text` names: 100MiB/s, 100MiB, 1Gbit/s.

    Raises ValueError, whose message says what would do.
    """
    stem = text.strip().removesuffix("/s")
    return float(_parse(stem, _SIZE_UNITS | _BIT_UNITS, "a bandwidth like 100MiB/s or 1Gbit/s", shown=text))


def format_size(size: float) -> str:
    """Return `size` bytes with a binary unit and three digits."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{_three_digits(size)} {unit}"
        size /= 1024
    return f"{_three_digits(size)} TiB"


def format_bandwidth(rate: float) -> str:
    """Return `rate` bytes per second with a binary unit and three digits."""
    return f"{format_size(rate)}/s"


def format_duration(seconds: float) -> str:
    """Return `seconds` with a unit that suits them and three digits."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 1:
        return f"{_three_digits(seconds * 1e3)} ms"
    if seconds < 100:
        return f"{_three_digits(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s"


def format_count(count: int) -> str:
    """Return `count` with its thousands apart."""
    return f"{count:,}"


def _three_digits(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def _parse(text: str, units: Mapping[str, float], wanted: str, *, shown: str | None = None) -> float:
    match = _NUMBER_AND_UNIT.fullmatch(text)
    factor = units.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise ValueError(f"{shown or text!r} is not {wanted}")
    value = float(match[1]) * factor if "." in match[1] else int(match[1]) * factor
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is too large")
    return value
