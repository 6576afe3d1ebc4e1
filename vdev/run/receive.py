"""`vdev receive`: wait for one guest, take it over, run it, and answer for it."""

import socket
from collections.abc import Callable

import trio

from host_migrator.destination import Destination
from host_migrator.errors import LinkClosed, StreamError
from host_migrator.link import SocketLink
from host_migrator.query import receive_query, send_fate
from vdev.errors import VdevError
from vdev.events import EventStream
from vdev.run.address import Listener, listen, parse_address
from vdev.run.arrival import Arrival
from vdev.run.interruption import cancel_on_signal
from vdev.run.outcome import add_verdict
from vdev.run.report import Outcome, PageCounts, Progress, Report
from vdev.schedule import FreeSchedule, Schedule
from vdev.vcpu import GuestDied

__all__ = ["receive"]

_DISPLAY_INTERVAL = 0.1
_QUERY_PATIENCE = 10.0
"""Seconds that a second connection gets to ask its question."""


async def receive(
    address: str, *, events: EventStream, on_progress: Callable[[Progress], None], exit_when_verified: bool
) -> Report:
    """Wait at `address` for one migration and run its guest until interrupted, or until it has checked itself.

    Raises UserError where nobody can listen.
    """
    report = Report(Outcome.INTERRUPTED, "", "split", "")
    async with listen(parse_address(address)) as listener, trio.open_nursery() as nursery:
        nursery.start_soon(cancel_on_signal, nursery.cancel_scope)
        arrival = Arrival(nursery, FreeSchedule(), events)
        receiver = _Receiver(arrival, FreeSchedule(), events, on_progress, report)
        try:
            await arrival.warm_up()
            on_progress(_stage(f"waiting at {listener.address}"))
            await receiver.take_one(listener, nursery)
            if not exit_when_verified and report.outcome is Outcome.COMPLETED:
                on_progress(_stage("the guest has checked itself and runs here"))
                await arrival.host.vcpu.wait_ended()
                report.outcome, report.error = Outcome.GUEST_DIED, "the guest died after it had moved here"
        finally:
            with trio.CancelScope(shield=True):
                await arrival.discard()
        nursery.cancel_scope.cancel()
    if report.outcome is Outcome.INTERRUPTED:
        report.error = report.error or "interrupted before a guest had arrived"
    return report


def _stage(phase: str) -> Progress:
    """Return a moment in which nothing is loaded."""
    return Progress(phase, 0, 0, 0, 0, 0, 0, 0.0, 0.0)


class _Receiver:
    """Takes the first migration that comes; whoever else connects may only ask what became of it."""

    def __init__(
        self,
        arrival: Arrival,
        schedule: Schedule,
        events: EventStream,
        on_progress: Callable[[Progress], None],
        report: Report,
    ) -> None:
        self._arrival = arrival
        self._schedule = schedule
        self._events = events
        self._on_progress = on_progress
        self._report = report

    async def take_one(self, listener: Listener, nursery: trio.Nursery) -> None:
        """Take one migration to its end, good or bad; answer queries meanwhile and afterwards, in `nursery`."""
        destination = self._destination(await listener.accept())
        nursery.start_soon(self._answer_queries, listener, destination)
        try:
            async with trio.open_nursery() as display:
                display.start_soon(self._show, destination)
                error = await self._run(destination)
                display.cancel_scope.cancel()
        finally:
            figures = destination.figures
            self._report.pages = PageCounts(figures.page_count, figures.data_count, figures.zero_count)
            self._report.wire_bytes = figures.stream_size
        if error is not None:
            died = isinstance(error, GuestDied)
            self._report.outcome = Outcome.GUEST_DIED if died else Outcome.DESTINATION_LOST
            self._report.error = str(error)
        elif figures.verdict is not None:
            self._report.outcome = Outcome.MISMATCHED if figures.verdict["mismatched"] else Outcome.COMPLETED
            add_verdict(self._report, figures.verdict, at="destination")

    async def _run(self, destination: Destination) -> VdevError | None:
        try:
            await destination.run()
        except VdevError as error:
            return error
        return None

    def _destination(self, connection: socket.socket) -> Destination:
        return Destination(
            SocketLink(connection),
            self._arrival.make,
            self._schedule,
            events=self._events.emitter("destination/loader"),
        )

    async def _answer_queries(self, listener: Listener, destination: Destination) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                nursery.start_soon(self._answer, SocketLink(await listener.accept()), destination)

    async def _answer(self, link: SocketLink, destination: Destination) -> None:
        try:
            with trio.move_on_after(_QUERY_PATIENCE):
                await send_fate(link, await destination.answer(await receive_query(link)))
        except (LinkClosed, StreamError):
            return  # Whoever asked has gone, or did not ask: nothing is owed.
        finally:
            await link.close()

    async def _show(self, destination: Destination) -> None:
        began = self._schedule.now()
        while True:
            figures = destination.figures
            elapsed = self._schedule.now() - began
            self._on_progress(
                Progress(
                    phase="loading",
                    round=figures.round_count + 1,
                    remaining_count=figures.remaining_count,
                    total_count=figures.page_count,
                    sent_count=figures.data_count + figures.zero_count,
                    skipped_count=0,
                    wire_bytes=figures.stream_size,
                    bytes_per_second=figures.stream_size / elapsed if elapsed else 0.0,
                    elapsed=elapsed,
                )
            )
            await self._schedule.sleep("display", _DISPLAY_INTERVAL)
