"""Serve a device: wait for a queue's doorbell, let the device work, over and over."""

import trio

from vdev.device import Device
from vdev.events import SILENT, Emitter, KickHandled
from vdev.notify import Doorbell
from vdev.schedule import Schedule

__all__ = ["Gate", "serve_queue"]


class Gate:
    """Open while the machine runs. While it is closed no queue is served: devices write nothing to RAM."""

    def __init__(self) -> None:
        self._opened = trio.Event()

    @property
    def is_open(self) -> bool:
        """Whether the machine runs."""
        return self._opened.is_set()

    def open(self) -> None:
        """Let those that wait go on."""
        self._opened.set()

    def close(self) -> None:
        """Make those that come wait."""
        if self._opened.is_set():
            self._opened = trio.Event()

    async def wait_open(self) -> None:
        """Wait until the gate is open."""
        await self._opened.wait()


async def serve_queue(
    device: Device,
    number: int,
    doorbell: Doorbell,
    gate: Gate,
    schedule: Schedule,
    *,
    events: Emitter = SILENT,
) -> None:
    """Handle queue `number` of `device` at each ring of `doorbell`, in turns, while `gate` is open; until cancelled."""
    actor = f"{device.name}/queue {number}"
    handled_count = 0
    while True:
        ring_count = await doorbell.wait_rung()
        await _wait_turn(actor, gate, schedule)
        if events.listening:
            events.emit(KickHandled(number, handled_count + 1, handled_count + ring_count))
        handled_count += ring_count
        # A ring says nothing of its moment: it may be older than the queue's reset, and is then for nobody.
        while number in device.queues and device.queue_notify(number):
            await _wait_turn(actor, gate, schedule)


async def _wait_turn(actor: str, gate: Gate, schedule: Schedule) -> None:
    while True:
        await gate.wait_open()
        await schedule.turn(actor)
        if gate.is_open:
            return
