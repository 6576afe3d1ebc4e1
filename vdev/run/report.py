"""What came of a migration, and how it goes meanwhile."""

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

__all__ = ["Outcome", "PageCounts", "Progress", "Report", "RoundFigures", "Verified"]


class Outcome(StrEnum):
    """How a migration ended."""

    COMPLETED = "completed"
    MISMATCHED = "mismatched"
    DESTINATION_LOST = "destination-lost"
    GUEST_DIED = "guest-died"
    IN_DOUBT = "in-doubt"
    FAILED = "failed"
    INTERRUPTED = "interrupted"

    @property
    def exit_status(self) -> int:
        """The status the command ends with. (2 is the command line's own, for arguments that make no sense.)"""
        return _EXIT_STATUS[self]


_EXIT_STATUS = {
    Outcome.COMPLETED: 0,
    Outcome.MISMATCHED: 1,
    Outcome.DESTINATION_LOST: 3,
    Outcome.GUEST_DIED: 4,
    Outcome.IN_DOUBT: 5,
    Outcome.FAILED: 6,
    Outcome.INTERRUPTED: 130,
}


@dataclass
class PageCounts:
    """Pages by what became of them. `sent` went with their content, `zero` as ranges; `resent` is the part of both
    that had gone before; `skipped` never went because a hint said they were free.
    """

    total: int = 0
    sent: int = 0
    zero: int = 0
    skipped: int = 0
    resent: int = 0


@dataclass
class RoundFigures:
    """One pass over the pages still to send."""

    pages: int
    bytes: int
    seconds: float


@dataclass
class Verified:
    """The guest's own verdict: pages it relies on and checked, those that were wrong, operations since it resumed."""

    pages: int = 0
    mismatched: int = 0
    resumed_operations: int = 0


@dataclass
class Report:
    """What `vdev migrate --json` prints. `error` is one line, None when all went well."""

    outcome: Outcome
    strategy: str
    ring: str
    dirty_log: str
    pages: PageCounts = field(default_factory=PageCounts)
    wire_bytes: int = 0
    total_seconds: float = 0.0
    downtime_seconds: float = 0.0
    rounds: list[RoundFigures] = field(default_factory=list)
    verified: Verified = field(default_factory=Verified)
    error: str | None = None
    transport: str = "mmio"
    """What carried the balloon to the guest: mmio or vhost-user."""
    answer: str | None = None
    """How the guest says which pages are free, list or bitmap; None when it is not asked."""
    guest_holds: str | None = None
    """How long it keeps them from being used: nothing, until-queued or until-used."""
    verified_at: str = "destination"
    """Where the guest that gave the verdict runs: destination, or source after a failed migration."""
    converged: bool = True
    """False when the guest wrote faster than the link carried and was stopped because it ran out of rounds."""
    hints: dict[str, Any] = field(default_factory=dict)
    """Hints applied and refused, and the first violation if the device broke."""
    memory: dict[str, int] = field(default_factory=dict)
    """Resident bytes of guest RAM at source and destination; bytes given back by inflation and reporting."""

    def to_json(self) -> dict[str, Any]:
        """Return the documented mapping."""
        return {
            "outcome": self.outcome,
            "strategy": self.strategy,
            "answer": self.answer,
            "guest_holds": self.guest_holds,
            "transport": self.transport,
            "ring": self.ring,
            "dirty_log": self.dirty_log,
            "pages": asdict(self.pages),
            "wire_bytes": self.wire_bytes,
            "seconds": {"total": self.total_seconds, "downtime": self.downtime_seconds},
            "rounds": [asdict(figures) for figures in self.rounds],
            "verified": asdict(self.verified),
            "converged": self.converged,
            "verified_at": self.verified_at,
            "error": self.error,
            "hints": self.hints,
            "memory": self.memory,
        }

    @property
    def exit_status(self) -> int:
        """The status `vdev migrate` ends with: 0 only when completed and nothing is mismatched."""
        if self.outcome is Outcome.COMPLETED and self.verified.mismatched:
            return Outcome.MISMATCHED.exit_status
        return self.outcome.exit_status


@dataclass(frozen=True)
class Progress:
    """A moment of a running migration, for a display."""

    phase: str
    round: int
    remaining_count: int
    total_count: int
    sent_count: int
    skipped_count: int
    wire_bytes: int
    bytes_per_second: float
    elapsed: float
