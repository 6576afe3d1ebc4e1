"""A schedule as a small text file that a person can read, mail and change, and that replays exactly.

    vdev schedule 1
    # a page is lost in 12 steps
    strategy: filter-on-ready
    holds: until-queued
    pages: 1
    lost: 0

    migrator: start
    vcpu 0: look

The first line names the format and its version. Then one `name: value` a line: the strategy, every dimension and number
of the bound (what is left out is usual), and how it ended, if that is known. Then an act a line. `#` begins a comment.
"""

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from vdev.errors import UserError
from vdev.race.acts import ACTORS, parse_act
from vdev.race.combination import DIMENSIONS, Bound, Combination
from vdev.race.invariants import INVARIANTS
from vdev.race.verdict import Act, Finding
from vdev.run.options import STRATEGIES

__all__ = ["Schedule", "format_schedule", "parse_schedule", "read_schedule", "schedule_of", "write_schedule"]

VERSION = 1
_MAGIC = "vdev schedule"
_LARGEST_SIZE = 1 << 20
_NUMBERS = tuple(field.name for field in fields(Bound))
_NOTHING = "nothing"


@dataclass(frozen=True)
class Schedule:
    """A combination, a bound, and the acts in their order.

    `lost` are the pages that were lost when it was saved, None if nobody knows; `breaks` names the invariant that its
    last act broke.
    """

    combination: Combination
    bound: Bound
    acts: tuple[Act, ...]
    lost: tuple[int, ...] | None = None
    breaks: str | None = None


def schedule_of(finding: Finding) -> Schedule:
    """Return the schedule of a finding, with how it ended."""
    return Schedule(finding.combination, finding.bound, finding.acts, finding.lost, finding.broken)


def format_schedule(schedule: Schedule) -> str:
    """Return `schedule` as the text of a file."""
    values = {"strategy": schedule.combination.strategy}
    values |= {name.replace("_", "-"): value for name, value in schedule.combination.dimensions().items()}
    values |= {name: str(number) for name, number in asdict(schedule.bound).items()}
    if schedule.lost is not None:
        values["lost"] = " ".join(map(str, schedule.lost)) or _NOTHING
    if schedule.breaks is not None:
        values["breaks"] = schedule.breaks
    lines = [
        f"{_MAGIC} {VERSION}",
        *(f"{name}: {value}" for name, value in values.items()),
        "",
        *map(str, schedule.acts),
    ]
    return "".join(f"{line}\n" for line in lines)


def write_schedule(path: Path, schedule: Schedule) -> None:
    """Write `schedule` to `path`. Raises UserError for a place that cannot be written."""
    try:
        path.write_text(format_schedule(schedule), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def read_schedule(path: Path) -> Schedule:
    """Return the schedule in `path`. Raises UserError, with file and line, for anything else that is there."""
    try:
        content = _read_small_file(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # a NUL in the name
        raise UserError(f"cannot read {str(path)!r}: {error}") from error
    return parse_schedule(content, str(path))


def _read_small_file(path: Path) -> bytes:
    # Without waiting, for a pipe that nobody writes to would be waited for here.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise UserError(f"cannot read {path}: it is no regular file")
        content = file.read(_LARGEST_SIZE + 1)
    if len(content) > _LARGEST_SIZE:
        raise UserError(f"{path} is larger than any schedule, {_LARGEST_SIZE >> 20} MiB")
    return content


def parse_schedule(content: bytes, name: str) -> Schedule:
    """Return the schedule in `content`; `name` is what errors call it. Raises UserError with name and line."""
    first, _, rest = content.partition(b"\n")
    _check_header(first.rstrip(b"\r"), name)
    try:
        text = rest.decode("utf-8")
    except UnicodeDecodeError as error:
        line = 2 + rest[: error.start].count(b"\n")
        raise UserError(f"{name}:{line}: this is no text") from error
    return _Reader(name).read(text.split("\n"))


def _check_header(line: bytes, name: str) -> None:
    match = re.fullmatch(rb"vdev schedule ([0-9]{1,9})", line)
    if match is None:
        raise UserError(f"{name} is no schedule of vdev's: its first line is not '{_MAGIC} {VERSION}'")
    if int(match[1]) != VERSION:
        raise UserError(f"{name} is a schedule of version {int(match[1])}; this vdev reads version {VERSION}")


class _Reader:
    """Goes through the lines after the first, and knows where it is."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._line = 1
        self._values: dict[str, tuple[str, int]] = {}
        self._acts: list[tuple[Act, int]] = []

    def read(self, lines: Iterable[str]) -> Schedule:
        for line in lines:
            self._line += 1
            text = line.partition("#")[0].strip()
            if not text:
                continue
            if text.partition(":")[0] in ACTORS:
                self._read_act(text)
            else:
                self._read_value(text)
        return self._schedule()

    def _refusal(self, why: str, line: int | None = None) -> UserError:
        return UserError(f"{self._name}:{self._line if line is None else line}: {why}")

    def _read_act(self, text: str) -> None:
        try:
            self._acts.append((parse_act(text), self._line))
        except ValueError as error:
            raise self._refusal(f"{_shown(text)}: {error}") from error

    def _read_value(self, text: str) -> None:
        name, colon, value = (part.strip() for part in text.partition(":"))
        known = ("strategy", *(dimension.replace("_", "-") for dimension in DIMENSIONS), *_NUMBERS, "lost", "breaks")
        if not colon:
            raise self._refusal(f"{_shown(text)} is neither 'name: value' nor 'actor: act'")
        if name not in known:
            raise self._refusal(f"nobody knows {_shown(name)}; there are the actors {', '.join(ACTORS)}")
        if self._acts:
            raise self._refusal(f"{name} stands after the first act; it belongs before")
        if name in self._values:
            raise self._refusal(f"{name} is given a second time")
        self._values[name] = (value, self._line)

    def _schedule(self) -> Schedule:
        combination, bound = self._combination(), self._bound()
        for act, line in self._acts:
            if act.page is not None and act.page >= bound.pages:
                raise self._refusal(f"'{act}': the pages are 0 to {bound.pages - 1}", line)
            if act.actor == "vcpu 1" and combination.vcpus == "1":
                raise self._refusal(f"'{act}': there is one vCPU, vcpu 0", line)
        if not self._acts:
            raise self._refusal("there are no acts", self._line)
        acts = tuple(act for act, _ in self._acts)
        return Schedule(combination, bound, acts, self._lost(bound), self._breaks())

    def _combination(self) -> Combination:
        if "strategy" not in self._values:
            raise self._refusal("no line names the strategy", 1)
        strategy, line = self._values["strategy"]
        if strategy not in STRATEGIES:
            raise self._refusal(f"nobody knows the strategy {_shown(strategy)}", line)
        dimensions = {}
        for dimension, allowed in DIMENSIONS.items():
            name = dimension.replace("_", "-")
            value, line = self._values.get(name, (allowed[0], 0))
            if value not in allowed:
                raise self._refusal(f"{name} cannot be {_shown(value)}; it is one of {', '.join(allowed)}", line)
            dimensions[dimension] = value
        return Combination(strategy, **dimensions)

    def _bound(self) -> Bound:
        bound = Bound()
        for name in _NUMBERS:
            if name not in self._values:
                continue
            value, line = self._values[name]
            try:
                bound = Bound(**asdict(bound) | {name: _number(value)})
            except (ValueError, UserError) as error:
                raise self._refusal(str(error), line) from error
        return bound

    def _breaks(self) -> str | None:
        if "breaks" not in self._values:
            return None
        value, line = self._values["breaks"]
        if value not in INVARIANTS:
            raise self._refusal(f"nobody knows the invariant {_shown(value)}", line)
        return value

    def _lost(self, bound: Bound) -> tuple[int, ...] | None:
        if "lost" not in self._values:
            return None
        value, line = self._values["lost"]
        if value == _NOTHING:
            return ()
        try:
            pages = tuple(map(_number, value.split()))
        except ValueError as error:
            raise self._refusal(str(error), line) from error
        if not pages or any(page >= bound.pages for page in pages):
            raise self._refusal(f"lost: give pages of 0 to {bound.pages - 1}, or {_NOTHING}", line)
        return pages


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise ValueError(f"{_shown(text)} is no number")
    return int(text)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")
