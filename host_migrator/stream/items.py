"""What a stream says, record by record, RAM apart: values that go in to `build_record` and come out of a parser."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

__all__ = [
    "Answer",
    "Commit",
    "Complete",
    "DeviceState",
    "Failed",
    "Item",
    "Preamble",
    "Query",
    "RamLoaded",
    "Ready",
    "Resumed",
    "RoundEnd",
    "SetUp",
    "VcpuState",
    "Verdict",
]


@dataclass(frozen=True, slots=True)
class Item:
    """Base of all items."""


@dataclass(frozen=True, slots=True)
class Preamble(Item):
    """The first bytes of a connection: which migration it is about."""

    migration_id: UUID


@dataclass(frozen=True, slots=True)
class SetUp(Item):
    """Guest RAM as (guest-physical address, size in bytes) pairs, and what starts the guest there (JSON-ready)."""

    regions: tuple[tuple[int, int], ...]
    config: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RamLoaded(Item):
    """A record of pages was loaded: (first page, pages, "data" or "zero") runs. Only made for those who listen."""

    runs: tuple[tuple[int, int, str], ...]


@dataclass(frozen=True, slots=True)
class RoundEnd(Item):
    """Pass `number` (1 is the bulk stage) is over; `remaining_count` pages became dirty meanwhile."""

    number: int
    remaining_count: int


@dataclass(frozen=True, slots=True)
class DeviceState(Item):
    """One device's state, opaque to the stream."""

    name: str
    state: bytes


@dataclass(frozen=True, slots=True)
class VcpuState(Item):
    """The vCPU's state, opaque to the stream."""

    state: bytes


@dataclass(frozen=True, slots=True)
class Complete(Item):
    """The stream is whole; it carried this many pages with content, pages as zero, and devices."""

    data_count: int
    zero_count: int
    device_count: int


@dataclass(frozen=True, slots=True)
class Commit(Item):
    """The source lets go: the destination may run the guest."""


@dataclass(frozen=True, slots=True)
class Query(Item):
    """The source asks, on a connection of its own, what became of a migration."""


@dataclass(frozen=True, slots=True)
class Ready(Item):
    """The destination has loaded and checked everything; the guest stands there, halted. `report` is JSON-ready."""

    report: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Resumed(Item):
    """The guest runs at the destination."""


@dataclass(frozen=True, slots=True)
class Verdict(Item):
    """What the guest found at the destination when it checked all that it relies on (JSON-ready)."""

    verdict: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Failed(Item):
    """The destination gave up and runs no guest."""

    reason: str


@dataclass(frozen=True, slots=True)
class Answer(Item):
    """The answer to a query: "running" or "gone"; after "gone" that guest is never run."""

    fate: str
