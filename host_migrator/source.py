"""The source: sends guest RAM while the guest runs, stops it, hands it over, or lets it go on as if nothing was."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from uuid import UUID, uuid4

import numpy as np
import numpy.typing as npt
import trio

from host_migrator.dirty_log import DirtyLog
from host_migrator.errors import DestinationLost, DestinationRefused, LinkClosed, MigrationInDoubt, StreamError
from host_migrator.figures import RoundFigures, SourceFigures
from host_migrator.hint_service import HintService
from host_migrator.link import Link
from host_migrator.machine import SourceMachine
from host_migrator.migration import Migration, Stage, Step
from host_migrator.page_set import PageSet
from host_migrator.query import Fate
from host_migrator.rounds import PHASES, Decision, Limits, Phase, RateMeter, decide
from host_migrator.strategies import Strategy
from host_migrator.stream import (
    BACKWARD,
    Buffer,
    Commit,
    Complete,
    DeviceState,
    Failed,
    Item,
    RamEncoder,
    Ready,
    Resumed,
    RoundEnd,
    SetUp,
    StreamParser,
    VcpuState,
    Verdict,
    build_preamble,
    build_record,
)
from spec.stream import PAYLOAD_SIZE
from vdev.events import SILENT, DirtyLogSynced, Emitter, PhaseChanged, RunSent
from vdev.memory import PAGE_SIZE, PageRanges
from vdev.schedule import Schedule

__all__ = ["Source"]

_PACE = 0.05
_HEAD_START_LOOKS = 10
_ANSWER_SECONDS = 1.0
_ANSWER_LOOKS = 200
_VERDICT_PATIENCES = 10
"""The guest is moved; to check all of itself may take it longer than any other answer."""


async def _nobody_knows(migration_id: UUID) -> Fate:
    return Fate.UNKNOWN


def _no_device() -> bool:
    return False


class Source:
    """One migration, from `run` to its end. `figures`, `phase` and `remaining_count` can be looked at meanwhile.

    `resolve` is asked when the link breaks between COMMIT and RESUMED. `window_size` bytes are sent between two looks
    at the world. `patience` is how many seconds the stopped guest waits for one window to leave or one answer to come.

    `look_for_hints` has the device look at its queue of hints. `divided` says that a kick does not stop the vCPU, so
    that a strategy without a lock handles hints piece by piece; `serve_hints` does that, and a timer's looks.
    `sync_limit` and `discards` are those of `migration`, the state of it all; with a limit of syncs nothing else
    decides when to stop the guest. A turn is asked for before each of the migration's steps.
    """

    def __init__(
        self,
        machine: SourceMachine,
        link: Link,
        dirty_log: DirtyLog,
        strategy: Strategy,
        schedule: Schedule,
        *,
        limits: Limits | None = None,
        migration_id: UUID | None = None,
        resolve: Callable[[UUID], Awaitable[Fate]] = _nobody_knows,
        events: Emitter = SILENT,
        window_size: int = 8 << 20,
        payload_size: int = PAYLOAD_SIZE,
        patience: float = 30.0,
        actor: str = "migrator",
        look_for_hints: Callable[[], bool] = _no_device,
        divided: bool = False,
        sync_limit: int | None = None,
        discards: bool = False,
    ) -> None:
        self._machine = machine
        self._link = link
        self._strategy = strategy
        self.figures = SourceFigures(machine.memory.page_count)
        self.migration = Migration(
            machine.memory, dirty_log, strategy, sync_limit=sync_limit, discards=discards, tally=self.figures
        )
        self.hints = HintService(self.migration, schedule, look=look_for_hints, divided=divided)
        self._schedule = schedule
        self._limits = limits or Limits()
        self.migration_id = migration_id or uuid4()
        self._resolve = resolve
        self._events = events
        self._patience = patience
        self._actor = actor
        self._answers = StreamParser(BACKWARD, preamble=False)
        self._ever_sent = PageSet(machine.memory.page_count)
        self._encoder = RamEncoder(machine.memory, payload_size)
        self._window_count = max(window_size // PAGE_SIZE, 1)
        if self._limits.bandwidth is not None:
            self._window_count = max(min(self._window_count, int(self._limits.bandwidth * _PACE) // PAGE_SIZE), 1)
        self._rate = RateMeter()
        self._paused = False
        self._in_doubt = False
        self._began = 0.0
        self._stopped_at = 0.0
        self.phase = Phase.NEW

    @property
    def remaining_count(self) -> int:
        """Pages still to send."""
        return self.migration.to_send.count

    async def run(self) -> SourceFigures:
        """Migrate; return when the guest runs at the destination and has checked itself.

        Raises DestinationLost, DestinationRefused (the guest goes on here), MigrationInDoubt (it stays stopped here),
        or what the machine or the dirty log raises (it goes on here). The same holds when cancelled, unless the
        destination was told to run the guest: then the answer is awaited first.
        """
        self._began = self._schedule.now()
        self._move(Phase.SET_UP)
        try:
            await self._migrate()
        except (LinkClosed, StreamError) as error:
            raise await self._reason(error) from error
        finally:
            with trio.CancelScope(shield=True):
                await self._clean_up()
        return self.figures

    async def serve_hints(self) -> None:
        """Do what handlers of hints leave to do after a kick; returns when the migration is over, or is cancelled.

        Needed only for a strategy that is divided or polled. A migration without it loses hints, and no page.
        """
        await self.hints.serve()

    async def _migrate(self) -> None:
        await self._set_up()
        self._move(Phase.BULK)
        await self._send_pass(paced=True)
        decision = Decision.STOP
        while self.migration.next_step is not Step.STOP:
            if self.migration.next_step is Step.ADVANCE:
                self.migration.advance()
                await self._schedule.turn(self._actor)
            self._synced(self.migration.sync())
            rate = self.figures.bytes_per_second = self._rate.bytes_per_second
            if self.migration.sync_limit is None:
                decision = decide(self._limits, self.remaining_count, rate, len(self.figures.rounds))
                if decision is not Decision.ANOTHER_ROUND:
                    break
            if self.phase is Phase.BULK:
                self._move(Phase.ROUNDS)
            await self._send_items(RoundEnd(len(self.figures.rounds), self.remaining_count))
            await self._send_pass(paced=True)
        self.figures.converged = decision is Decision.STOP
        await self._stop_and_copy()
        await self._hand_over()
        await self._wait_verdict()

    async def _set_up(self) -> None:
        await self._schedule.turn(self._actor)
        self._synced(self.migration.start(self.hints))
        regions = tuple((region.guest_address, region.size) for region in self._machine.memory.regions)
        set_up = build_record(SetUp(regions, self._machine.guest_config()))
        await self._send([[build_preamble(self.migration_id)], set_up])
        if self.migration.stage is Stage.WAITING:
            await self._wait_answer()
            await self._schedule.turn(self._actor)
            self._synced(self.migration.go_on())
        else:
            await self._wait_hints()

    # Both waits are bounded, so that no guest can hold the migration up by saying nothing.

    async def _wait_answer(self) -> None:
        for _ in range(_ANSWER_LOOKS):
            if not self._strategy.answer_outstanding:
                return
            await self._schedule.sleep(self._actor, _ANSWER_SECONDS / _ANSWER_LOOKS)

    async def _wait_hints(self) -> None:
        look = self._strategy.head_start / _HEAD_START_LOOKS
        for _ in range(_HEAD_START_LOOKS if look else 0):
            before = self.figures.hinted_count
            await self._schedule.sleep(self._actor, look)
            if before and self.figures.hinted_count == before:
                return

    def _synced(self, dirty_count: int) -> None:
        """Take note of a sync."""
        self.figures.sync_count = self.migration.sync_count
        if self._events.listening:
            self._events.emit(DirtyLogSynced(self.figures.sync_count, dirty_count, self.remaining_count))

    async def _send_pass(self, *, paced: bool) -> None:
        """Send what is in the set, from the lowest page on; what is added behind the cursor waits for the next pass.

        Returns in a turn of its own, for whatever comes next.
        """
        began, sent_before, pages_before = self._schedule.now(), self.figures.wire_bytes, self._page_total()
        await self._schedule.turn(self._actor)
        while self.migration.next_step is Step.TAKE:
            pages = self.migration.take(self._window_count)
            await self._schedule.turn(self._actor)
            window_began = self._schedule.now()
            sent = await self._send_window(pages)
            self.migration.sent()
            if paced and self._limits.bandwidth is not None:
                due = began + (self.figures.wire_bytes - sent_before) / self._limits.bandwidth
                await self._schedule.sleep(self._actor, due - self._schedule.now())
            # Windows of mostly zero pages say how fast RAM is read, not what the link carries.
            if sent >= len(pages) * PAGE_SIZE // 2:
                self._rate.add(sent, self._schedule.now() - window_began)
            await self._schedule.turn(self._actor)
        seconds = self._schedule.now() - began
        size = self.figures.wire_bytes - sent_before
        self._rate.end_pass(size, seconds)
        self.figures.rounds.append(RoundFigures(self._page_total() - pages_before, size, seconds))

    def _page_total(self) -> int:
        return self.figures.sent_count + self.figures.zero_count

    async def _send_window(self, pages: npt.NDArray[np.int64]) -> int:
        self._encoder.keep_runs = self._events.listening
        size = await self._send(self._encoder.records(pages))
        figures = self.figures
        figures.sent_count, figures.zero_count = self._encoder.data_count, self._encoder.zero_count
        figures.resent_count += len(pages) - self._ever_sent.add_ranges(PageRanges.of_pages(pages))
        if self._events.listening:
            for page, page_count, kind in self._encoder.runs:
                self._events.emit(RunSent(page, page_count, kind))
        return size

    async def _stop_and_copy(self) -> None:
        self._move(Phase.STOP_AND_COPY)
        await self._schedule.turn(self._actor)
        self._stopped_at = self._schedule.now()
        vcpu_state = await self._machine.pause()
        self._paused = True
        self._synced(self.migration.stop())
        await self._send_pass(paced=False)
        devices = self._machine.save_devices()
        await self._send_items(
            *(DeviceState(name, state) for name, state in devices),
            VcpuState(vcpu_state),
            Complete(self._encoder.data_count, self._encoder.zero_count, len(devices)),
        )
        self.figures.skipped_count = self.figures.page_count - self._ever_sent.count

    async def _hand_over(self) -> None:
        self._move(Phase.HAND_OVER)
        item = await self._receive_answer()
        if not isinstance(item, Ready):
            raise DestinationLost(f"the destination answered {type(item).__name__} instead of Ready")
        self.figures.ready_report = item.report
        await self._schedule.turn(self._actor)
        # From the first byte of COMMIT on the destination may run the guest, so a cancellation waits for the answer.
        with trio.CancelScope(shield=True):
            await self._commit()
        self.figures.downtime_seconds = self._schedule.now() - self._stopped_at
        self.figures.total_seconds = self._schedule.now() - self._began
        self._move(Phase.COMPLETED)
        self.migration.complete()

    async def _commit(self) -> None:
        try:
            await self._send_items(Commit())
            item = await self._receive_answer()
            if isinstance(item, Resumed):
                return
            why = f"the destination answered {type(item).__name__} instead of Resumed"
        except (LinkClosed, StreamError, DestinationLost) as error:
            why = str(error)
        fate = Fate.UNKNOWN
        with trio.move_on_after(self._patience):
            fate = await self._resolve(self.migration_id)
        if fate is Fate.GONE:
            raise DestinationLost(f"{why}; it does not run the guest")
        if fate is Fate.UNKNOWN:
            self._in_doubt = True
            raise MigrationInDoubt(f"{why}; whether the guest runs there is not known, so it stays stopped here")
        self.figures.verdict_missing = why

    async def _wait_verdict(self) -> None:
        if self.figures.verdict_missing is not None:
            return
        self.figures.verdict_missing = "the destination did not say in time"
        try:
            with trio.move_on_after(self._patience * _VERDICT_PATIENCES):
                self._take_verdict(await self._link.receive(self._answers))
        except (LinkClosed, StreamError) as error:
            self.figures.verdict_missing = str(error)

    def _take_verdict(self, item: Item) -> None:
        match item:
            case Verdict(verdict):
                self.figures.verdict, self.figures.verdict_missing = verdict, None
            case Failed(reason):
                self.figures.died_there, self.figures.verdict_missing = reason, reason

    # The link

    async def _send_items(self, *items: Item) -> None:
        await self._send([build_record(item) for item in items])

    async def _send(self, records: Iterable[Sequence[Buffer]]) -> int:
        if self._link.pending():
            # Nothing is expected while we send, so this is why the destination gave up, or the end of the link.
            item = await self._receive_answer()
            raise DestinationLost(f"the destination answered {type(item).__name__} too early")
        with trio.move_on_after(self._patience if self._paused else float("inf")) as waiting:
            size = await self._link.send(records)
        if waiting.cancelled_caught:
            raise DestinationLost(f"the link took nothing for {self._patience:g} s")
        self.figures.wire_bytes += size
        return size

    async def _receive_answer(self) -> Item:
        with trio.move_on_after(self._patience) as waiting:
            item = await self._link.receive(self._answers)
        if waiting.cancelled_caught:
            raise DestinationLost(f"the destination said nothing for {self._patience:g} s")
        if isinstance(item, Failed):
            raise DestinationRefused(item.reason)
        return item

    async def _reason(self, error: LinkClosed | StreamError) -> DestinationLost | DestinationRefused:
        """Return what to raise: the destination's own words, if they came before the link broke."""
        if isinstance(error, LinkClosed):
            with trio.move_on_after(1.0):
                try:
                    item = await self._link.receive(self._answers)
                except (LinkClosed, StreamError):
                    item = None
                if isinstance(item, Failed):
                    return DestinationRefused(item.reason)
        return DestinationLost(f"lost the destination in phase {self.phase}: {error}")

    # The end

    def _move(self, phase: Phase) -> None:
        if phase not in PHASES[self.phase]:
            raise ValueError(f"a migration cannot go from {self.phase} to {phase}")
        before, self.phase = self.phase, phase
        if self._events.listening:
            self._events.emit(PhaseChanged(before, phase))

    async def _clean_up(self) -> None:
        # The guest's memory is given back before the guest goes on, so that the first thing it sees is DONE.
        self.migration.clean_up()
        await self._link.close()
        if self.phase is not Phase.COMPLETED:
            self.figures.total_seconds = self._schedule.now() - self._began
            self._move(Phase.FAILED)
            if self._paused and not self._in_doubt:
                await self._machine.resume()
        self.hints.finish(goes_on=self.phase is Phase.FAILED and not self._in_doubt)
