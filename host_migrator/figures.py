"""What a migration measured, at each end."""

from dataclasses import dataclass, field
from typing import Any

__all__ = ["DestinationFigures", "RoundFigures", "SourceFigures"]


@dataclass
class RoundFigures:
    """One pass over the pages still to send; `pages` counts those with content and those that were zero."""

    pages: int
    bytes: int
    seconds: float


@dataclass
class SourceFigures:
    """The source's figures; they grow while it runs.

    `sent_count` pages went with their content, `zero_count` as ranges of zeros; `resent_count` is the part of both
    that had gone before. `skipped_count` pages never went, because a hint said that they were free:
    sent + zero - resent + skipped = page_count at the end. `converged` is false when the guest had to be stopped
    because it ran out of rounds. `downtime_seconds` runs from before the guest was asked to stop
    until the destination said that it runs there.
    """

    page_count: int
    sent_count: int = 0
    zero_count: int = 0
    skipped_count: int = 0
    resent_count: int = 0
    hinted_count: int = 0
    wire_bytes: int = 0
    bytes_per_second: float = 0.0
    rounds: list[RoundFigures] = field(default_factory=list)
    sync_count: int = 0
    converged: bool = True
    total_seconds: float = 0.0
    downtime_seconds: float = 0.0
    ready_report: dict[str, Any] = field(default_factory=dict)
    verdict: dict[str, Any] | None = None
    verdict_missing: str | None = None
    """Why no verdict came although the guest runs at the destination."""
    died_there: str | None = None
    """How the guest died at the destination after it had moved, and before it gave its verdict."""


@dataclass
class DestinationFigures:
    """The destination's figures. `link_lost` says why the source could not be told that the guest runs here."""

    page_count: int = 0
    data_count: int = 0
    zero_count: int = 0
    round_count: int = 0
    remaining_count: int = 0
    stream_size: int = 0
    verdict: dict[str, Any] | None = None
    link_lost: str | None = None
