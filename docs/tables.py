"""Write the tables of the code into the documents: `python docs/tables.py`, or `make docs`.

A document marks a table's place with two comments, `table: NAME` and `end`.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path

from host_migrator.migration import STEPS, Step
from host_migrator.rounds import PHASES
from spec.vhost_user import FRONT_END_REQUESTS
from vdev.devices.balloon import HINT_TRANSITIONS
from vdev.events import EVENT_TYPES
from vdev.negotiation import STATUS_STEPS
from vdev.vhost_user.phases import RULES, Phase

__all__ = ["DOCUMENTS", "with_tables"]

DOCUMENTS = tuple(sorted(Path(__file__).parent.glob("*.md")))


def _rows(*rows: Iterable[object]) -> str:
    return "".join(f"| {' | '.join(map(str, row))} |\n" for row in rows)


def _events() -> str:
    rows = []
    for name, kind in EVENT_TYPES.items():
        names = ", ".join(f"`{field.name}`" for field in fields(kind))
        rows.append((f"`{name}`", names, " ".join((kind.__doc__ or "").split())))
    return _rows(("event", "fields", "what happened"), ("---",) * 3, *rows)


def _status() -> str:
    rows = [(f"`{step.bit.name}`", _bits(step.after)) for step in STATUS_STEPS]
    return _rows(("the driver sets", "once these are set"), ("---",) * 2, *rows)


def _bits(status: object) -> str:
    names = (getattr(status, "name", None) or "").split("|")
    return ", ".join(f"`{name}`" for name in names if name != "RESET") or "nothing"


def _hints() -> str:
    rows = [(f"`{state.name}`", what.value, f"`{after.name}`") for (state, what), after in HINT_TRANSITIONS.items()]
    return _rows(("in state", "on", "goes to"), ("---",) * 3, *rows)


def _phases() -> str:
    rows = [
        (f"`{phase}`", ", ".join(f"`{later}`" for later in PHASES if later in after)) for phase, after in PHASES.items()
    ]
    return _rows(("phase", "what may follow"), ("---",) * 2, *rows)


def _steps() -> str:
    rows = [(f"`{stage}`", ", ".join(f"`{act}`" for act in Step if act in legal)) for stage, legal in STEPS.items()]
    return _rows(("stage", "legal acts"), ("---",) * 2, *rows)


def _vhost_user() -> str:
    rows = []
    for request, rule in RULES.items():
        phases = "always" if len(rule.phases) == len(Phase) else " or ".join(p.value for p in Phase if p in rule.phases)
        ring = "; its ring is stopped" if rule.ring_stopped else ""
        needs = FRONT_END_REQUESTS[request].needs
        rows.append((f"`{request.name}`", f"`{needs.name}`" if needs else "", phases + ring, rule.refusal.value))
    return _rows(
        ("message", "protocol feature", "legal", "where it is not, or asks for what cannot be"), ("---",) * 4, *rows
    )


TABLES: dict[str, Callable[[], str]] = {
    "events": _events,
    "status": _status,
    "hints": _hints,
    "phases": _phases,
    "steps": _steps,
    "vhost_user": _vhost_user,
}


def with_tables(document: str) -> str:
    """Return `document` with every marked table as the code has it now."""
    return re.sub(
        r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)",
        lambda match: f"{match[1]}\n{TABLES[match[2]]()}\n{match[3]}",
        document,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    for path in DOCUMENTS:
        path.write_text(with_tables(path.read_text()))
