"""Two tiny machines and a migration between them in one loop, for the tests of source and destination."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import trio

from host_migrator.destination import Destination
from host_migrator.dirty_log import CooperativeDirtyLog
from host_migrator.errors import MalformedRecord
from host_migrator.link import LoopLink
from host_migrator.query import Fate
from host_migrator.source import Source
from host_migrator.strategies import CommandId
from vdev.errors import VdevError
from vdev.memory import PAGE_SIZE, GuestMemory, PageMarks, PageRanges, PrivateBacking, Region
from vdev.schedule import FreeSchedule

MIB = 1 << 20


def make_memory(size: int = MIB, *, marks: bool = False) -> GuestMemory:
    """Two regions with a gap, so that page numbers and addresses differ."""
    half = size // 2
    memory = GuestMemory([Region(0x10000, PrivateBacking(half)), Region(0x4000_0000, PrivateBacking(size - half))])
    if marks:
        memory.page_marks = PageMarks(memory.page_count)
    return memory


def write_pages(memory: GuestMemory, pages, value: int) -> None:
    """Write one byte into each page, and mark it."""
    for page in pages:
        memory.write(memory.address_of(page) + 7, bytes([value]))


def contents(memory: GuestMemory) -> np.ndarray:
    return np.concatenate([region.backing.data for region in memory.regions])


class Hinting:
    """A device that asks, as a strategy sees it; notes what it was told."""

    def __init__(self, on_request: Callable[["Hinting"], None] = lambda hinting: None) -> None:
        self.sink = None
        self.checks_id = True
        self.polled = False
        self.calls = []
        self.give_back_count = 0
        self._on_request = on_request

    def hint(self, *ranges: tuple[int, int]) -> int:
        """One batch of hints comes; returns how many pages left the set at once."""
        taken = self.sink.take(PageRanges.of(*ranges))
        if self.sink.batch_taken():
            self.give_back_count += 1
        return taken

    def request(self):
        self.calls.append("request")
        self._on_request(self)
        return len(self.calls)

    def stop(self):
        self.calls.append("stop")

    def done(self):
        self.calls.append("done")

    def flush(self):
        self.calls.append("flush")
        return 0

    def give_back(self):
        self.give_back_count += 1

    def set_refresh_interval(self, ms):
        self.calls.append(f"interval {ms}")


class SourceGuest:
    """A machine whose guest writes a page each time it is let run."""

    def __init__(self, memory: GuestMemory) -> None:
        self.memory = memory
        self.running = True
        self.pause_count = 0
        self.resume_count = 0
        self.at_pause: Callable[[], None] = lambda: None

    def guest_config(self):
        return {"workload": "idle"}

    async def pause(self):
        await trio.lowlevel.checkpoint()
        self.at_pause()
        self.running = False
        self.pause_count += 1
        return json.dumps({"program_counter": 42}).encode()

    async def resume(self):
        self.running = True
        self.resume_count += 1

    def save_devices(self):
        assert not self.running
        return [("balloon", b"balloon state"), ("block", b"")]


class TargetGuest:
    """A machine to move into; notes what happened to it."""

    def __init__(self, memory: GuestMemory) -> None:
        self.memory = memory
        self.calls = []
        self.devices = None
        self.vcpu_state = None

    async def restore_devices(self, states):
        self.devices = list(states)
        if any(name == "unheard-of" for name, _ in states):
            raise MalformedRecord("a device nobody has", 0)

    async def load_vcpu(self, state):
        self.vcpu_state = state
        self.calls.append("load_vcpu")

    async def run(self):
        self.calls.append("run")

    async def verify(self):
        self.calls.append("verify")
        return {"pages": self.memory.page_count, "mismatched": 0}

    async def discard(self):
        self.calls.append("discard")


@dataclass
class Outcome:
    """What became of a migration: an error or figures of each end."""

    source_error: BaseException | None = None
    destination_error: BaseException | None = None
    source_figures: object = None
    destination_figures: object = None


@dataclass
class Move:
    """A migration that is ready to go; change what a test is about, then `await go()`."""

    guest: SourceGuest = field(default_factory=lambda: SourceGuest(make_memory(marks=True)))
    target: TargetGuest = field(default_factory=lambda: TargetGuest(make_memory()))
    hinting: Hinting = field(default_factory=Hinting)
    options: dict = field(default_factory=dict)
    schedule: object = field(default_factory=FreeSchedule)
    bandwidth: float | None = None
    fate: Fate | None = None
    head_start: float = 0.0

    def __post_init__(self) -> None:
        self.here, self.there = LoopLink.pair(self.schedule, bandwidth=self.bandwidth, capacity=64 * 1024)
        self.questions = []

    def build(self) -> tuple[Source, Destination]:
        async def make_machine(header):
            return self.target

        self.destination = Destination(self.there, make_machine, self.schedule)

        async def resolve(migration_id):
            self.questions.append(migration_id)
            return self.fate if self.fate is not None else await self.destination.answer(migration_id)

        log = CooperativeDirtyLog(self.guest.memory.page_marks)
        strategy = CommandId(self.hinting, head_start=self.head_start)
        options = {"window_size": 16 * PAGE_SIZE, "payload_size": 8 * PAGE_SIZE, "resolve": resolve, **self.options}
        self.source = Source(self.guest, self.here, log, strategy, self.schedule, **options)
        return self.source, self.destination

    async def go(self) -> Outcome:
        """Run both ends to their end."""
        source, destination = self.build()
        outcome = Outcome()

        async def run_source():
            try:
                outcome.source_figures = await source.run()
            except (VdevError, OSError) as error:
                outcome.source_error = error

        async def run_destination():
            try:
                outcome.destination_figures = await destination.run()
            except (VdevError, OSError) as error:
                outcome.destination_error = error

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_source)
            nursery.start_soon(run_destination)
        return outcome
