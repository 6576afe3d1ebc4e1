"""What shows that a verdict is true: what was done, what came of it, the bytes, and the events before it."""

from dataclasses import dataclass

from vdev.events import Record

__all__ = ["Evidence", "Shown"]


@dataclass(frozen=True, slots=True)
class Shown:
    """Bytes as they were found. `name` says what they are ("used element 3"); `address` is guest-physical, if any."""

    name: str
    data: bytes
    address: int | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """`done` has one sentence for each thing the check did; `events` are the last ones before the verdict."""

    done: tuple[str, ...] = ()
    expected: str = ""
    observed: str = ""
    shown: tuple[Shown, ...] = ()
    events: tuple[Record, ...] = ()
