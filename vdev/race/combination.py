"""What is put into the lab: a strategy, the dimensions on which its fate depends, and how far to look."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from vdev.errors import UserError

__all__ = ["DIMENSIONS", "Bound", "Combination"]

DIMENSIONS: dict[str, tuple[str, ...]] = {
    "answer": ("list", "bitmap"),
    "holds": ("until-queued", "nothing", "until-used"),
    "dirty_log": ("get-and-clear", "deferred-clear"),
    "collects": ("after-announcing", "before-announcing"),
    "start_buffer": ("fresh", "shared"),
    "vcpus": ("2", "1"),
    "effect": ("skip", "discard"),
    "advance": ("after-sync", "before-sync"),
}
"""Dimension -> its values, what is usual first; docs/race.md says what each means."""


@dataclass(frozen=True)
class Combination:
    """A strategy with a value for each of DIMENSIONS. Raises UserError for a value that is none."""

    strategy: str
    answer: str = "list"
    holds: str = "until-queued"
    dirty_log: str = "get-and-clear"
    collects: str = "after-announcing"
    start_buffer: str = "fresh"
    vcpus: str = "2"
    effect: str = "skip"
    advance: str = "after-sync"

    def __post_init__(self) -> None:
        for dimension, values in DIMENSIONS.items():
            value = getattr(self, dimension)
            if value not in values:
                raise UserError(f"{dimension} cannot be {value!r}; choose one of {', '.join(values)}")

    @property
    def label(self) -> str:
        """The strategy and what is not usual about the rest, as one word: a file name."""
        unusual = [value for name, value in self.dimensions().items() if value != DIMENSIONS[name][0]]
        return "+".join([self.strategy, *(f"{value}-vcpu" if value == "1" else value for value in unusual)])

    def dimensions(self) -> dict[str, str]:
        """Return dimension -> value."""
        return {name: getattr(self, name) for name in DIMENSIONS}

    def to_json(self) -> dict[str, str]:
        """Return a JSON-ready mapping."""
        return asdict(self)

    def but(self, **changes: str) -> "Combination":
        """Return this combination with some values changed."""
        return replace(self, **changes)


@dataclass(frozen=True)
class Bound:
    """How much may happen. Raises UserError for numbers that cannot be.

    `pages` of guest data; `writes` by the workload; `hints` pages collected (answers, for a bitmap); `syncs` merges by
    the migrator, the one at the start and the last with the guest stopped among them; `cancels` times that the user
    may call a migration off.
    """

    pages: int = 1
    writes: int = 2
    hints: int = 2
    syncs: int = 3
    cancels: int = 0

    def __post_init__(self) -> None:
        limits = {"pages": (1, 64), "writes": (0, 64), "hints": (0, 64), "syncs": (2, 16), "cancels": (0, 1)}
        for field in fields(self):
            low, high = limits[field.name]
            if not low <= getattr(self, field.name) <= high:
                raise UserError(f"a bound of {getattr(self, field.name)} {field.name}; give {low} to {high}")

    def __str__(self) -> str:
        parts = [f"{value} {name[:-1] if value == 1 else name}" for name, value in asdict(self).items() if value]
        return ", ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return asdict(self)
