"""What there is to see of a back end while it runs."""

from dataclasses import dataclass

__all__ = ["BackEndStatistics", "QueueStatistics"]


@dataclass(frozen=True)
class QueueStatistics:
    """One queue: its size in descriptors, its state in words, what went through it since the front end came."""

    number: int
    size: int
    state: str
    is_served: bool
    kick_count: int
    call_count: int
    chain_count: int
    last_error: str | None


@dataclass(frozen=True)
class BackEndStatistics:
    """A back end at one moment.

    `features` and `protocol_features` are masks of what was agreed, 0 while nobody is connected. Violations are
    counted since the back end was made, by whose they are.
    """

    is_connected: bool
    front_end_count: int
    phase: str
    features: int
    protocol_features: int
    queues: tuple[QueueStatistics, ...]
    request_count: int
    front_end_violation_count: int
    driver_violation_count: int
    last_violation: str | None
