"""A guest, its balloon and a migration, all real, which act one at a time in the order that they are told."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from guest_agent.small_guest import GuestShape, SmallGuest
from host_migrator.dirty_log import CooperativeDirtyLog, DeferredClearLog, DirtyLog
from host_migrator.migration import Stage, Step
from host_migrator.strategies import make_strategy
from spec.balloon import COMMAND_ID_SIZE, BalloonFeature, HintAnswer
from spec.device import feature_mask
from spec.mmio import Register
from vdev.bus import MmioBus
from vdev.devices.balloon import BalloonDevice
from vdev.errors import UserError
from vdev.memory import PAGE_SIZE, GuestMemory, PrivateBacking, Region
from vdev.mmio import MmioRegisters
from vdev.race.combination import Bound, Combination
from vdev.race.footprint import Footprints
from vdev.race.handler import Handler
from vdev.race.invariants import (
    DONE_ONCE,
    INVARIANTS,
    PROGRESS,
    SOURCE_UNTOUCHED,
    DataMarks,
    Watch,
)
from vdev.race.key import key_of
from vdev.race.ring_view import ring_view
from vdev.race.state import MachineState, State
from vdev.race.verdict import Act, Moment, PageView
from vdev.race.watched import WatchedLog, WatchedMigration, WatchedWork

__all__ = ["World"]

DRIVER = "vcpu 0"
HANDLER = "handler"
MIGRATOR = "migrator"


class _Exits:
    """Register accesses of the guest. A kick of the free page queue is left to the handler."""

    def __init__(self, bus: MmioBus) -> None:
        self._bus = bus
        self.kick: Callable[[int], bool] = lambda number: False

    def read(self, address: int, size: int) -> int:
        """Read a register."""
        return self._bus.read(address, size)

    def write(self, address: int, size: int, value: int) -> None:
        """Write a register."""
        is_notify = address == self._bus.addresses[0] + Register.QUEUE_NOTIFY
        if not (is_notify and self.kick(value)):
            self._bus.write(address, size, value)


@dataclass
class _Now:
    """What is nobody else's to remember: versions at the destination, and what the vCPUs and the user did."""

    destination: list[int]
    vcpus_run: bool = True
    was_cancelled: bool = False
    write_count: int = 0
    is_interrupted: bool = False


class World:
    """The machine for one combination, with as much to happen as the bound says (docs/race.md).

    `packed` gives the rings the other format. Raises UserError for a combination that makes no sense.
    """

    def __init__(self, combination: Combination, bound: Bound, *, packed: bool = False) -> None:
        self.combination = combination
        self.bound = bound
        data = PrivateBacking(bound.pages * PAGE_SIZE)
        self.marks = DataMarks(bound.pages)
        self.watch = Watch(self.marks)
        answer = HintAnswer(combination.answer)
        shape = shape_of(combination, bound, packed=packed)
        rest = PrivateBacking(shape.memory_size - data.size)
        self.memory = GuestMemory([Region(0, data), Region(data.size, rest)], self.marks)
        self.device = BalloonDevice(
            self.memory,
            features=feature_mask(BalloonFeature.FREE_PAGE_HINT),
            hint_answer=answer,
            refresh_interval_field=True,
        )
        try:
            self.strategy = make_strategy(combination.strategy, self.device.hinting, advance=combination.advance)
        except ValueError as error:
            raise UserError(str(error)) from None
        self.shape = replace(shape, refresh=str(self.strategy.refresh))
        deferred = DeferredClearLog(self.marks) if combination.dirty_log == "deferred-clear" else None
        log: DirtyLog = deferred or CooperativeDirtyLog(self.marks)
        self.seen = deferred.seen if deferred is not None else np.empty(0, np.uint8)
        # Only data pages are migrated here: the driver's own pages are moved when the guest stands still.
        self.migration = WatchedMigration(
            GuestMemory([Region(0, data)]),
            WatchedLog(log, self.watch),
            self.strategy,
            sync_limit=bound.syncs,
            discards=combination.effect == "discard",
        )
        self.migration.watch = self.watch
        self.work = WatchedWork(self.migration, divided=not self.strategy.locked)
        self.work.hinting, self.work.is_bitmap = self.device.hinting, answer is HintAnswer.BITMAP
        self.handler = Handler(self.device, self.work, self.strategy)
        self.now = _Now([0] * bound.pages)
        self._workload = DRIVER if combination.vcpus == "1" else "vcpu 1"
        self._boot()
        self._footprints = Footprints(self)
        self._is_captured = False

    def _boot(self) -> None:
        bus = MmioBus([MmioRegisters(self.device)])
        exits = _Exits(bus)
        self.guest = SmallGuest.boot(self.memory, exits, bus.addresses[0], self.shape)
        queue = self.handler.queue
        # A buffer for requests is the device's before anything begins.
        self.device.queue_notify(queue.number)

        def kick(number: int) -> bool:
            if number == queue.number:
                self.handler.kick()
            return number == queue.number

        exits.kick = kick
        self.device.interrupt = self._interrupt
        self.device.announce_config = self._announce_config
        self.ring = ring_view(
            self.memory, self.guest.hint_queue, self.guest.hint_queue_address, packed=self.shape.packed
        )
        self.marks.marks[:] = 0
        spans = [self.memory.byte_view(*span) for span in (*self.guest.changing_spans(), self.ring.span)]
        spans.append(self.marks.marks.data)
        self.record = self.memory.byte_view(*self.guest.record_span)
        roots = (self.now, self.guest, self.device, self.handler, self.migration, self.watch)
        self._state = MachineState(roots, spans, ignored=self._unchanging())

    def _unchanging(self) -> tuple[object, ...]:
        """Return what need not be copied: all that the driver knows is in guest RAM, and only hints are asked for."""
        device = self.device
        others = (queue for queue in device.queues.values() if queue is not self.handler.queue)
        parts = (device.inflation, device.memory_statistics, device.reporting, *others)
        return (self, self.memory, self.migration.memory, self.guest.driver, *parts)

    # What the device does to the guest

    def _interrupt(self) -> None:
        self.now.is_interrupted = True
        self.watch.told(self.device)

    def _announce_config(self) -> None:
        self.watch.told_config(self.device)
        self._interrupt()

    # Acts

    @property
    def is_over(self) -> bool:
        """Whether the guest would run at the destination."""
        return self.migration.stage is Stage.COMPLETED

    def enabled(self) -> list[Act]:
        """Return the acts that are possible now: those of vCPUs, of the handler, of the migrator."""
        if self.is_over:
            return []
        acts = self._vcpu_acts() if self.now.vcpus_run else []
        if (name := self.handler.next_act(is_served=self.now.vcpus_run)) is not None:
            acts.append(Act(HANDLER, name))
        return acts + self._migrator_acts()

    def _vcpu_acts(self) -> list[Act]:
        guest, in_exit = self.guest, self.handler.in_exit
        driver = None if in_exit else guest.next_act
        acts = [Act(DRIVER, driver)] if driver is not None else []
        if self.now.was_cancelled or (self._workload == DRIVER and (in_exit or self._is_between_collect_and_queue())):
            return acts
        pages = range(self.bound.pages)
        if self.now.write_count < self.bound.writes:
            acts += [Act(self._workload, "write", page) for page in pages if guest.can_write(page)]
        if guest.can_hint:
            acts += [Act(self._workload, "free", page) for page in pages if guest.can_free(page)]
        return acts

    def _is_between_collect_and_queue(self) -> bool:
        return any(hint.where == "collected" for hint in self.watch.hints)

    def _migrator_acts(self) -> list[Act]:
        migration = self.migration
        step = migration.next_step
        acts = []
        if step is Step.TAKE:
            acts.append(Act(MIGRATOR, "take", migration.next_page()))
        elif step is Step.SEND:
            acts.append(Act(MIGRATOR, "send", int(migration.in_flight[0])))
        elif step is not Step.NOTHING and not (step is Step.STOP and self.handler.in_exit):
            acts.append(Act(MIGRATOR, str(step)))
        if self.bound.cancels and migration.stage in (Stage.WAITING, Stage.RUNNING, Stage.STOPPED):
            acts.append(Act(MIGRATOR, "cancel"))
        return acts

    def do(self, act: Act) -> None:
        """Do one of the acts that are enabled."""
        self._is_captured = False
        self.watch.broken.clear()
        if act.actor == HANDLER:
            self._do_handler(act.name)
        elif act.actor == MIGRATOR:
            self._do_migrator(act.name)
        elif act.name == "write" and act.page is not None:
            self.guest.do("write", act.page)
            self.now.write_count += 1
            self.watch.written(act.page)
        else:
            self._do_driver(act)
        self._settle()

    def _do_driver(self, act: Act) -> None:
        self.guest.do(act.name, act.page)
        if act.name == "collect":
            pages = self.guest.driver.collected_hints.tolist()
            self.watch.collected([tuple(pages)] if self.work.is_bitmap else [(page,) for page in pages])
        elif act.name == "queue":
            self.watch.moved("collected", "queued")
        elif act.name in ("announce", "end"):
            self.watch.ids += (self._unread_ids()[-1],)
        elif act.name == "look" and not self.guest.has_collected:
            self.watch.dropped()

    def _do_handler(self, name: str) -> None:
        if name in ("handle", "pop"):
            self.watch.read_ids(self._unread_ids())
            self.watch.popped(self.device.hinting.refused_count)
        self.handler.do(name)
        if name == "check":
            self.watch.checked_at = self.watch.sync_count
        elif name == "filter":
            self.watch.checked_at = None
        if self.work.next_step is None:
            self.watch.returned()

    def _unread_ids(self) -> list[int]:
        """Return what the id buffers that are available say now."""
        buffers = self.ring.available(self.handler.queue)
        ids = [one for one in buffers if not one.writable and one.size == COMMAND_ID_SIZE]
        return [int.from_bytes(self.memory.read(one.address, one.size), "little") for one in ids]

    def _do_migrator(self, name: str) -> None:
        migration = self.migration
        match name:
            case "start":
                migration.start(self.work)
                self.watch.began(migration)
            case "go on":
                migration.go_on()
            case "advance":
                migration.advance()
            case "take":
                migration.take(1)
            case "send":
                page = int(migration.in_flight[0])
                self.now.destination[page] = self.guest.version(page)
                migration.sent()
            case "sync":
                self._sync()
            case "stop":
                self.now.vcpus_run = False
                migration.stop()
            case "complete":
                migration.complete()
                self.watch.ended()
            case _:
                self._cancel()

    def _sync(self) -> None:
        was_unread, ids = self.handler.queue.has_available(), self._unread_ids()
        self.migration.sync()
        if was_unread and not self.handler.queue.has_available():
            self.watch.read_ids(ids)
            self.watch.moved("queued", "popped")
            self.watch.returned()
        self.handler.settle()

    def _cancel(self) -> None:
        self.now.was_cancelled = True
        self.migration.clean_up()
        self.watch.ended()
        self.now.vcpus_run = True
        self.work.abandon()
        # As a machine does that goes on: whatever is in the queue is looked at.
        self.handler.was_kicked = True
        self.watch.returned()
        self.handler.settle()

    def _settle(self) -> None:
        if self.now.is_interrupted and self.now.vcpus_run:
            self.now.is_interrupted = False
            self.guest.handle_interrupt()
        self.watch.look_at(self.migration, self.device)
        if self.guest.verify():
            self.watch.broken.add(SOURCE_UNTOUCHED)
        if self.now.was_cancelled:
            self._look_at_rest()
        elif not self.is_over and not self._can_go_on():
            self.watch.broken.add(PROGRESS)

    def _can_go_on(self) -> bool:
        step = self.migration.next_step
        if step is Step.STOP and self.handler.in_exit:
            return self.handler.next_act(is_served=True) is not None
        return step is not Step.NOTHING

    def _look_at_rest(self) -> None:
        if self.guest.next_act is not None or self.handler.next_act(is_served=True) is not None:
            return
        if any(self.guest.use(page) == "held" for page in range(self.bound.pages)):
            self.watch.broken.add(DONE_ONCE)

    # Judgement

    @property
    def broken(self) -> tuple[str, ...]:
        """The invariants that the last act broke."""
        return tuple(name for name in INVARIANTS if name in self.watch.broken) if self.watch.broken else ()

    @property
    def lost(self) -> tuple[int, ...]:
        """After `complete`: the pages that the guest relies on and that the destination has in another version."""
        if not self.is_over:
            return ()
        guest = self.guest
        pages = range(self.bound.pages)
        return tuple(
            page for page in pages if guest.use(page) == "used" and self.now.destination[page] != guest.wanted[page]
        )

    def moment(self, act: Act) -> Moment:
        """Return what is to be seen after `act`, the last one done."""
        guest, hinting = self.guest, self.device.hinting
        pages = tuple(
            PageView(
                to_send=page in self.migration.to_send,
                dirty=bool(self.marks.marks[page]),
                source=guest.version(page),
                destination=self.now.destination[page],
                wanted=guest.wanted[page],
                use=guest.use(page),
            )
            for page in range(self.bound.pages)
        )
        shown_id = int(self.device.config["free_page_hint_cmd_id"])
        state = hinting.state.name
        return Moment(act, pages, self.watch.shown_hints(), shown_id, state, self.watch.sync_count, self.broken)

    # Copies

    def capture(self) -> State:
        """Return a copy of all there is."""
        self._is_captured = True
        return self._state.capture()

    def put_back(self, state: State) -> None:
        """Be as when the copy was taken."""
        self._state.put_back(state, captured=self._is_captured)
        self._is_captured = True

    def independent(self, one: Act, other: Act) -> bool:
        """Say whether two acts that are possible now can change places."""
        return self._footprints.independent(one, other)

    def exact_key(self) -> bytes:
        """Return a digest of everything, also of what cannot matter any more; slow."""
        return self._state.digest()

    def key(self) -> bytes:
        """Return a digest that is equal where the same can happen from now on, and would be judged the same."""
        return key_of(self)


def shape_of(combination: Combination, bound: Bound, *, packed: bool = False) -> GuestShape:
    """Return the guest that a combination and a bound ask for, as far as the strategy has no say in it."""
    return GuestShape(
        pages=bound.pages,
        hints=bound.hints,
        packed=packed,
        answer=combination.answer,
        holds=combination.holds,
        collects=combination.collects,
        start_buffer=combination.start_buffer,
    )
