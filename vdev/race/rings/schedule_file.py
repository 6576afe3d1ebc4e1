"""A schedule of a ring race as a small text file that a person can read, mail and change, and that replays exactly.

    vdev ring schedule 1
    format: split
    buffers: 2
    model: tso
    breaks: lost kick

    driver: stores desc[0].addr = 32 (in its store buffer)
    driver: flushes desc[0].addr = 32

The first line names the format and its version. Then one `name: value` a line: the fields of `RingScenario` (what is
left out is usual), the memory model, and the property that breaks, if that is known. Then a step a line. `#` begins a
comment.
"""

import re
from dataclasses import dataclass, fields
from typing import Any

from vdev.errors import UserError
from vdev.race.rings.scenario import MODELS, RingScenario
from vdev.race.rings.verdict import RingFinding

__all__ = ["RingSchedule", "format_ring_schedule", "parse_ring_schedule", "ring_schedule_of"]

VERSION = 1
_MAGIC = "vdev ring schedule"
_SWITCHES = {"yes": True, "no": False}


@dataclass(frozen=True)
class RingSchedule:
    """A scenario, a memory model, and the steps in their order ("driver: loads used.flags: 1").

    `breaks` is the property that they broke when they were saved, None if nobody knows. `lines` are the numbers of the
    steps' lines in the file that they came from, and `name` is what errors call it.
    """

    scenario: RingScenario
    model: str
    steps: tuple[str, ...]
    breaks: str | None = None
    lines: tuple[int, ...] = ()
    name: str = "the schedule"

    def place(self, position: int) -> str:
        """Return where the step at `position` stands, for errors."""
        return f"{self.name}:{self.lines[position]}" if self.lines else f"{self.name}, step {position + 1}"


def ring_schedule_of(finding: RingFinding) -> RingSchedule:
    """Return the schedule of a finding, with what it breaks."""
    return RingSchedule(finding.scenario, finding.model, tuple(map(str, finding.steps)), finding.property)


def format_ring_schedule(schedule: RingSchedule) -> str:
    """Return `schedule` as the text of a file."""
    words = {True: "yes", False: "no"}
    values = {
        name: words[value] if isinstance(value, bool) else value for name, value in schedule.scenario.to_json().items()
    }
    values["model"] = schedule.model
    if schedule.breaks is not None:
        values["breaks"] = schedule.breaks
    head = [f"{name.replace('_', '-')}: {value}" for name, value in values.items()]
    return "".join(f"{line}\n" for line in [f"{_MAGIC} {VERSION}", *head, "", *schedule.steps])


def parse_ring_schedule(content: bytes, name: str) -> RingSchedule:
    """Return the schedule in `content`; `name` is what errors call it. Raises UserError with name and line."""
    try:
        first, *rest = content.decode("utf-8").splitlines() or [""]
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is no ring schedule: it is no text") from error
    match = re.fullmatch(rf"{_MAGIC} ([0-9]{{1,9}})", first)
    if match is None:
        raise UserError(f"{name} is no ring schedule: it does not begin with {_MAGIC!r}")
    if int(match[1]) != VERSION:
        raise UserError(f"{name} is a ring schedule of version {int(match[1])}; this vdev reads version {VERSION}")
    values: dict[str, Any] = {}
    steps: list[tuple[int, str]] = []
    in_head = True
    for number, line in enumerate(rest, 2):
        text = line.split("#", 1)[0].strip()
        if not line.strip():
            in_head = in_head and not values
        elif text and in_head:
            key, value = _value(text, f"{name}:{number}")
            if key in values:
                raise UserError(f"{name}:{number}: {key.replace('_', '-')} is given twice")
            values[key] = value
        elif text:
            steps.append((number, text))
    model, breaks = values.pop("model", MODELS[0]), values.pop("breaks", None)
    try:
        scenario = RingScenario(**values)
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    return RingSchedule(
        scenario, model, tuple(text for _, text in steps), breaks, tuple(number for number, _ in steps), name
    )


def _value(text: str, place: str) -> tuple[str, Any]:
    key, colon, value = (part.strip() for part in text.partition(":"))
    kinds = {field.name: type(field.default) for field in fields(RingScenario)} | {"model": str, "breaks": str}
    name = key.replace("-", "_")
    if not colon or name not in kinds:
        raise UserError(f"{place}: {text!r} is no line of a ring schedule's head")
    if kinds[name] is bool:
        if value not in _SWITCHES:
            raise UserError(f"{place}: {key} is yes or no, not {value!r}")
        return name, _SWITCHES[value]
    if kinds[name] is int:
        if not re.fullmatch(r"[0-9]{1,9}", value):
            raise UserError(f"{place}: {key} is a number, not {value!r}")
        return name, int(value)
    if name == "model" and value not in MODELS:
        raise UserError(f"{place}: model cannot be {value!r}; choose one of {', '.join(MODELS)}")
    return name, value
