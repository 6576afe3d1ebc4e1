"""What the ring lab found: the steps that end badly, and the judgement on a scenario."""

from dataclasses import dataclass
from typing import Any

from vdev.race.rings.scenario import RingScenario
from vdev.race.steps import letter

__all__ = ["RingFinding", "RingStep", "RingVerdict"]


@dataclass(frozen=True)
class RingStep:
    """One step: who acts, and what it does ("loads used.flags: 1")."""

    actor: str
    text: str

    def __str__(self) -> str:
        return f"{self.actor}: {self.text}"


@dataclass(frozen=True)
class RingFinding:
    """Steps that break a property: its name, and a sentence that says what is wrong at the end."""

    scenario: RingScenario
    model: str
    steps: tuple[RingStep, ...]
    property: str
    message: str

    def lettered(self) -> list[str]:
        """Return the steps as people write them in mail, and what is wrong then."""
        lines = [f"{letter(number)}) {step.actor} {step.text}" for number, step in enumerate(self.steps)]
        return [*lines, f"=> {self.property}: {self.message}"]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return {
            "property": self.property,
            "message": self.message,
            "model": self.model,
            "steps": [{"actor": step.actor, "text": step.text} for step in self.steps],
        }


@dataclass(frozen=True)
class RingVerdict:
    """The judgement on one scenario under one memory model.

    `complete` says that every state was seen, or something found; it is false after a limit and in the random modes.
    `execution_count` is how often one side's code was run. `mode` is exhaustive, random or pct; `schedule_count` counts
    the runs of the latter two.
    """

    scenario: RingScenario
    model: str
    mode: str
    state_count: int
    transition_count: int
    execution_count: int
    seconds: float
    complete: bool
    finding: RingFinding | None = None
    schedule_count: int = 0
    seed: int | None = None

    @property
    def is_broken(self) -> bool:
        """Whether a property was broken."""
        return self.finding is not None

    @property
    def bound(self) -> str:
        """How far the search went, in words; to be printed with every judgement."""
        memory = "x86-TSO, store buffers of any length" if self.model == "tso" else "sequentially consistent"
        if self.mode == "exhaustive":
            how_far = "every interleaving" if self.complete else f"only the first {self.state_count} states"
        else:
            how_far = f"{self.schedule_count} {self.mode} schedules from seed {self.seed}"
        return f"{self.scenario}; {memory}; {how_far}"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping, without the seconds: equal searches give equal texts."""
        return {
            "scenario": self.scenario.to_json(),
            "model": self.model,
            "mode": self.mode,
            "states": self.state_count,
            "transitions": self.transition_count,
            "executions": self.execution_count,
            "complete": self.complete,
            "bound": self.bound,
            "schedules": self.schedule_count,
            "seed": self.seed,
            "finding": self.finding.to_json() if self.finding else None,
        }
