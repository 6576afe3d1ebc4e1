"""A migration between processes: a host with its guest here, a destination beside it or where the user says."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from uuid import UUID

import trio

from host_migrator.dirty_log import CooperativeDirtyLog, DirtyLog, KernelDirtyLog, kernel_log_missing
from host_migrator.errors import DirtyLogLost, LinkClosed, MigrationFailed, StreamError
from host_migrator.link import Link, SocketLink
from host_migrator.query import Fate, ask_fate
from host_migrator.rounds import Limits, Phase
from host_migrator.source import Source
from vdev.errors import UserError, VdevError
from vdev.events import EventStream
from vdev.run.address import Address, connect, parse_address
from vdev.run.host import ProcessHost, open_host
from vdev.run.interruption import cancel_on_signal
from vdev.run.local_destination import LocalDestination, start_destination
from vdev.run.options import MigrateOptions
from vdev.run.outcome import (
    add_figures,
    add_verdict,
    inflate,
    make_strategy,
    new_report,
    outcome_of,
    progress_of,
    take_verdict,
)
from vdev.run.proof import prove
from vdev.run.report import Outcome, Progress, Report
from vdev.run.shape import MachineShape, guest_config
from vdev.schedule import FreeSchedule, Schedule
from vdev.vcpu import GuestFault

__all__ = ["migrate"]

Resolve = Callable[[UUID], Awaitable[Fate]]

_DISPLAY_INTERVAL = 0.1
_DEATH_GRACE = 2.0
_HEAD_RUN = 0.3
"""Seconds that the guest works before it is moved."""
_QUERY_INTERVAL = 0.5


async def migrate(options: MigrateOptions, *, events: EventStream, on_progress: Callable[[Progress], None]) -> Report:
    """Start a guest, move it while it works, and report.

    Interrupted by SIGINT or SIGTERM, it ends guest and destination and says so in the report. Raises UserError when
    the guest cannot be started, or the destination not be reached, as asked.
    """
    kernel_log = _choose_kernel_log(options.dirty_log)
    report = new_report(options, "kernel" if kernel_log else "cooperative")
    refusal: UserError | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancel_on_signal, nursery.cancel_scope)
        shape, schedule = MachineShape.of_options(options), FreeSchedule()
        async with AsyncExitStack() as stack:
            # The destination's process starts while the guest boots.
            local = await stack.enter_async_context(start_destination(events)) if options.to is None else None
            host = await stack.enter_async_context(
                open_host(shape, schedule, events, name="source", trace=events.listening, kernel_log=kernel_log)
            )
            # Errors are kept out of the nurseries that hold guest and destination: those would wrap them.
            try:
                await _boot(host, options, shape, schedule)
                await _Migration(host, options, schedule, events, on_progress, report).run(local)
            except UserError as error:
                refusal = error
            except VdevError as error:
                report.outcome, report.error = outcome_of(error), str(error)
        nursery.cancel_scope.cancel()
    if refusal is not None:
        raise refusal
    if report.outcome is Outcome.INTERRUPTED:
        report.error = "interrupted; the guest was ended"
    return report


def _choose_kernel_log(dirty_log: str) -> bool:
    if dirty_log == "cooperative":
        return False
    missing = kernel_log_missing()
    if missing is not None and dirty_log == "kernel":
        raise UserError(f"this system has no kernel dirty log ({missing}); use --dirty-log cooperative")
    return missing is None


async def _boot(host: ProcessHost, options: MigrateOptions, shape: MachineShape, schedule: Schedule) -> None:
    try:
        await host.machine.boot(guest_config(options, shape, host.machine))
    except GuestFault as fault:
        raise UserError(str(fault)) from fault
    await host.machine.resume()
    host.balloon.request_statistics()
    await schedule.sleep("host", _HEAD_RUN)
    await inflate(host.balloon, options.inflate_size, schedule)


class _Migration:
    """One migration of a booted, running guest; fills `report`."""

    def __init__(
        self,
        host: ProcessHost,
        options: MigrateOptions,
        schedule: Schedule,
        events: EventStream,
        on_progress: Callable[[Progress], None],
        report: Report,
    ) -> None:
        self._host = host
        self._options = options
        self._schedule = schedule
        self._events = events
        self._on_progress = on_progress
        self._report = report

    async def run(self, local: LocalDestination | None) -> None:
        """Move the guest, to `local` if there is one; if that fails and the guest lives, let it prove itself here."""
        if local is not None:
            await local.wait_up()
            error = await self._run_source(SocketLink(local.connection), local.resolve)
        else:
            address = parse_address(self._options.to or "")
            try:
                connection = await connect(address)
            except OSError as refused:
                raise UserError(f"cannot connect to {address}: {refused.strerror or refused}") from refused
            error = await self._run_source(SocketLink(connection), partial(_ask_until_known, address))
        if error is None:
            return
        if isinstance(error, MigrationFailed | DirtyLogLost):
            verdict = await prove(self._host.machine, self._schedule, stayed=True)
            add_verdict(self._report, verdict, at="source")
        raise error

    async def _run_source(self, link: Link, resolve: Resolve) -> VdevError | None:
        """Return what went wrong, None if the guest moved and gave its verdict."""
        source = Source(
            self._host.machine,
            link,
            self._dirty_log(),
            make_strategy(self._options.strategy, self._host.balloon),
            self._schedule,
            limits=Limits(self._options.max_bandwidth, self._options.downtime_limit),
            resolve=resolve,
            events=self._events.emitter("migrator"),
            look_for_hints=self._host.balloon.poll_hints,
            divided=self._options.has_ioeventfd,
        )
        error: VdevError | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._show, source)
                nursery.start_soon(source.serve_hints)
                nursery.start_soon(self._cancel_when_guest_ends, nursery.cancel_scope)
                try:
                    await source.run()
                except VdevError as caught:
                    error = caught
                nursery.cancel_scope.cancel()
        finally:
            add_figures(self._report, source.figures, self._host.balloon)
            self._report.memory["host_beyond_ram_bytes"] = _memory_beyond_guest_ram()
        if isinstance(error, DirtyLogLost):
            # Most likely because its process died, which takes a moment to show.
            with trio.move_on_after(_DEATH_GRACE):
                await self._host.vcpu.wait_ended()
        if source.phase is not Phase.COMPLETED:
            self._host.vcpu.raise_if_gone()
        if error is None:
            take_verdict(self._report, source.figures)
        return error

    def _dirty_log(self) -> DirtyLog:
        host = self._host
        if self._report.dirty_log == "cooperative":
            return CooperativeDirtyLog(host.marks)
        if host.vcpu.write_protect_refused is not None:
            raise UserError(f"the guest has no kernel dirty log ({host.vcpu.write_protect_refused})")
        return KernelDirtyLog(host.vcpu.process.pid, host.vcpu.region_addresses, host.memory, host.marks)

    async def _show(self, source: Source) -> None:
        began = self._schedule.now()
        while True:
            elapsed = self._schedule.now() - began
            self._on_progress(progress_of(source.phase, source.figures, source.remaining_count, elapsed))
            await self._schedule.sleep("display", _DISPLAY_INTERVAL)

    async def _cancel_when_guest_ends(self, scope: trio.CancelScope) -> None:
        await self._host.vcpu.wait_ended()
        scope.cancel()


async def _ask_until_known(address: Address, migration_id: UUID) -> Fate:
    """Ask the receiver at `address`, again and again while the network fails; the caller limits the time.

    Nobody listening means that the receiver is gone, and with it its guest, which does not outlive it.
    """
    while True:
        try:
            link = SocketLink(await connect(address))
        except (ConnectionRefusedError, FileNotFoundError):
            return Fate.GONE
        except OSError:
            await trio.sleep(_QUERY_INTERVAL)
            continue
        try:
            return await ask_fate(link, migration_id)
        except (LinkClosed, StreamError):
            await trio.sleep(_QUERY_INTERVAL)
        finally:
            await link.close()


def _memory_beyond_guest_ram() -> int:
    """Return the bytes this process has in memory besides what it shares with the guest (anonymous and file pages)."""
    with open("/proc/self/status") as status:
        sizes = dict(line.split(":", 1) for line in status)
    return sum(int(sizes[kind].split()[0]) * 1024 for kind in ("RssAnon", "RssFile"))
