"""The destination: loads a guest, has it stand ready, and runs it only when the source lets go."""

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import TypeVar
from uuid import UUID

import trio

from host_migrator.errors import LinkClosed, MalformedRecord, MigrationRevoked, UnexpectedRecord
from host_migrator.figures import DestinationFigures
from host_migrator.link import Link
from host_migrator.machine import DestinationMachine, StreamHeader
from host_migrator.populate import PopulateAhead
from host_migrator.query import Fate
from host_migrator.stream import (
    FORWARD,
    Commit,
    Complete,
    DeviceState,
    Failed,
    Item,
    Preamble,
    RamLoaded,
    RamLoader,
    Ready,
    Resumed,
    RoundEnd,
    SetUp,
    StreamParser,
    VcpuState,
    Verdict,
    build_record,
)
from vdev.errors import VdevError
from vdev.events import SILENT, Emitter, RunLoaded
from vdev.schedule import Schedule

__all__ = ["Destination"]


ItemT = TypeVar("ItemT", bound=Item)


class Destination:
    """One migration's destination. `figures` can be looked at while it runs.

    `populate_size` bytes of guest RAM are faulted in ahead of the stream, where the link works in threads.
    """

    def __init__(
        self,
        link: Link,
        make_machine: Callable[[StreamHeader], Awaitable[DestinationMachine]],
        schedule: Schedule,
        *,
        events: Emitter = SILENT,
        populate_size: int = 32 << 20,
        patience: float = 30.0,
        actor: str = "destination",
    ) -> None:
        self._link = link
        self._make_machine = make_machine
        self._schedule = schedule
        self._events = events
        self._populate_size = populate_size
        self._patience = patience
        self._actor = actor
        self._parser = StreamParser(FORWARD, preamble=True)
        self._machine: DestinationMachine | None = None
        self._devices: list[tuple[str, bytes]] = []
        self._vcpu_state = b""
        self._migration_id: UUID | None = None
        self._committed = False
        self._fate = Fate.UNKNOWN
        self._decided = trio.Event()
        self._revocable = trio.CancelScope()
        self._revoked = False
        self.figures = DestinationFigures()

    async def run(self) -> DestinationFigures:
        """Take the migration; return when the guest has run here and checked itself.

        Raises a StreamError for a stream that is not as it should be, MigrationRevoked, LinkClosed, or what the machine
        raises. Then the guest never ran here, the source was told so as far as the link allows, and the machine is
        discarded.
        """
        try:
            machine = await self._take()
        except (VdevError, OSError) as error:
            self._decide(Fate.GONE)
            await self._tell(error)
            raise
        finally:
            if self._fate is not Fate.RUNNING:
                self._decide(Fate.GONE)
                with trio.CancelScope(shield=True):
                    if self._machine is not None:
                        await self._machine.discard()
                    await self._link.close()
        try:
            await self._report(machine)
        finally:
            await self._link.close()
        return self.figures

    async def answer(self, migration_id: UUID) -> Fate:
        """Say whether the guest of that migration runs here, and if not, see to it that it never will."""
        if migration_id != self._migration_id:
            return Fate.GONE
        if not self._committed and not self._decided.is_set():
            self._revoked = True
            self._revocable.cancel()
            return Fate.GONE
        await self._decided.wait()
        return self._fate

    async def _take(self) -> DestinationMachine:
        machine: DestinationMachine | None = None
        with self._revocable:
            machine = await self._load()
            await self._link.send([build_record(Ready({"page_count": machine.memory.page_count}))])
            await self._expect(Commit)
        if self._revoked or machine is None:
            raise MigrationRevoked("the source asked what became of this migration, and was told that it is gone")
        await self._schedule.turn(self._actor)
        if self._revoked:
            raise MigrationRevoked("the source asked what became of this migration, and was told that it is gone")
        self._committed = True
        with trio.CancelScope(shield=True):
            await machine.run()
            self._decide(Fate.RUNNING)
        return machine

    async def _load(self) -> DestinationMachine:
        header = await self._receive_header()
        machine = self._machine = await self._make_machine(header)
        memory = machine.memory
        regions = tuple((region.guest_address, region.size) for region in memory.regions)
        if regions != tuple(sorted(header.regions)):
            raise MalformedRecord(
                f"guest RAM {header.regions} is not what the machine has, {regions}", self._parser.offset
            )
        self.figures.page_count = memory.page_count
        with ExitStack() as stack:
            advanced = None
            if self._link.uses_threads and self._populate_size:
                advanced = stack.enter_context(PopulateAhead(memory, self._populate_size)).advanced
            loader = RamLoader(memory, keep_runs=self._events.listening, advanced=advanced)
            self._parser.load_into(loader)
            while not isinstance(item := await self._receive(), Complete):
                self._handle(item)
        self.figures.data_count, self.figures.zero_count = loader.data_count, loader.zero_count
        await machine.restore_devices(self._devices)
        await machine.load_vcpu(self._vcpu_state)
        return machine

    async def _receive_header(self) -> StreamHeader:
        preamble = await self._expect(Preamble)
        self._migration_id = preamble.migration_id
        set_up = await self._expect(SetUp)
        return StreamHeader(preamble.migration_id, set_up.regions, set_up.config)

    def _handle(self, item: Item) -> None:
        match item:
            case RamLoaded(runs):
                for page, page_count, kind in runs:
                    self._events.emit(RunLoaded(page, page_count, kind))
            case RoundEnd(number, remaining_count):
                self.figures.round_count = number
                self.figures.remaining_count = remaining_count
            case DeviceState(name, state):
                self._devices.append((name, state))
            case VcpuState(state):
                self._vcpu_state = state

    async def _report(self, machine: DestinationMachine) -> None:
        """Tell the source; the guest runs here whether it can be told or not."""
        await self._send_if_possible(Resumed())
        try:
            verdict = self.figures.verdict = await machine.verify()
        except VdevError as error:
            await self._send_if_possible(Failed(str(error)))
            raise
        await self._send_if_possible(Verdict(verdict))

    async def _send_if_possible(self, item: Item) -> None:
        try:
            await self._link.send([build_record(item)])
        except LinkClosed as error:
            self.figures.link_lost = str(error)

    async def _tell(self, error: VdevError | OSError) -> None:
        """Tell the source why, and wait until it has read it: closing at once could throw the words away."""
        with trio.move_on_after(self._patience):
            try:
                await self._link.send([build_record(Failed(str(error)))])
                await self._link.finish()
            except LinkClosed:
                return  # Then it sees the link's end.

    def _decide(self, fate: Fate) -> None:
        if not self._decided.is_set():
            self._fate = fate
            self._decided.set()

    async def _receive(self) -> Item:
        item: Item = await self._link.receive(self._parser)
        self.figures.stream_size = self._parser.offset
        return item

    async def _expect(self, kind: type[ItemT]) -> ItemT:
        item = await self._receive()
        if not isinstance(item, kind):
            raise UnexpectedRecord(f"{type(item).__name__} instead of {kind.__name__}", self._parser.offset)
        return item
