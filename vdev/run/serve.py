"""Serve one device over vhost-user until interrupted, with a control socket beside it."""

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from spec.device import feature_mask, feature_names
from spec.vhost_user import LOG_ALL, PROTOCOL_FEATURES, ProtocolFeature
from vdev.device import Device
from vdev.devices.balloon import BalloonDevice
from vdev.devices.kind import Carrier
from vdev.events import EventStream
from vdev.memory import GuestMemory
from vdev.run.balloon_operations import BalloonOperations
from vdev.run.control import Operation, serve_control
from vdev.run.interruption import cancel_on_signal
from vdev.run.withheld_features import withhold_features
from vdev.vhost_user.server import BackEnd, listen
from vdev.vhost_user.statistics import BackEndStatistics

__all__ = ["ServeOptions", "Snapshot", "serve", "snapshot_to_json"]

_SHOW_INTERVAL = 0.1
_PROTOCOL_BITS = feature_mask(LOG_ALL, PROTOCOL_FEATURES)
"""What is between front end and back end, and no driver's."""


@dataclass(frozen=True)
class ServeOptions:
    """Where to serve: `socket_path` for front ends, `control_path` for `vdev control`; `once` ends with the first
    front end. `without` names features that are not offered.
    """

    socket_path: str
    control_path: str
    once: bool = False
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Snapshot:
    """What there is to see of a served device at one moment. `figures` are the device type's own."""

    device: str
    device_id: int
    socket_path: str
    elapsed: float
    """Seconds since it began."""
    statistics: BackEndStatistics
    features: tuple[str, ...]
    """What was negotiated, by name."""
    offered_features: tuple[str, ...]
    protocol_features: tuple[str, ...]
    queue_names: tuple[str, ...] = ()
    """What each of the device's queues is for, by number, "" where the device does not say."""
    figures: Mapping[str, Any] = field(default_factory=dict)


async def serve(
    make: Callable[..., Device],
    device_options: Mapping[str, Any],
    options: ServeOptions,
    *,
    show: Callable[[Snapshot], None],
) -> None:
    """Serve the device that `make` makes (see `vdev.devices.kind.DeviceKind.make`) until SIGINT or SIGTERM.

    Raises UserError where the device cannot be made, or be without a feature, or a socket not be listened at.
    """
    events = EventStream(time.monotonic)
    device = make(GuestMemory.absent(), device_options, carrier=Carrier.VHOST_USER, events=events.emitter("device"))
    try:
        withhold_features(device, options.without)
        with _listening(options.socket_path) as listener, _listening(options.control_path) as control:
            await _Serving(device, events, options, show).run(listener, control)
    finally:
        device.close()


@contextmanager
def _listening(path: str) -> Iterator[socket.socket]:
    """Listen at `path`, and leave no socket there afterwards."""
    with listen(Path(path)) as listener:
        try:
            yield listener
        finally:
            if os.path.exists(path):
                os.unlink(path)


class _Serving:
    def __init__(
        self, device: Device, events: EventStream, options: ServeOptions, show: Callable[[Snapshot], None]
    ) -> None:
        self._device = device
        self._options = options
        self._show = show
        self._back_end = BackEnd(device)
        self._began = trio.current_time()
        # Listening to a device costs it time: only a balloon's operations wait for what happens to it.
        self._balloon = BalloonOperations(device, events) if isinstance(device, BalloonDevice) else None

    async def run(self, listener: socket.socket, control: socket.socket) -> None:
        """Serve both sockets, and show how it goes, until a signal comes."""
        operations: dict[str, Operation] = {"status": self._status}
        if self._balloon is not None:
            operations |= self._balloon.operations()
        control.setblocking(False)
        asked = trio.SocketListener(trio.socket.from_stdlib_socket(control))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_on_signal, nursery.cancel_scope)
            nursery.start_soon(serve_control, [asked], operations)
            nursery.start_soon(self._keep_showing)
            await (self._serve_one(listener) if self._options.once else self._back_end.serve(listener))
            nursery.cancel_scope.cancel()
        self._show(self._snapshot())

    async def _serve_one(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        connection, _ = await trio.socket.from_stdlib_socket(listener).accept()
        await self._back_end.serve_connection(socket.socket(fileno=connection.detach()))

    async def _keep_showing(self) -> None:
        while True:
            self._show(self._snapshot())
            await trio.sleep(_SHOW_INTERVAL)

    def _snapshot(self) -> Snapshot:
        statistics = self._back_end.statistics
        return Snapshot(
            device=self._device.name,
            device_id=self._device.device_id,
            socket_path=self._options.socket_path,
            elapsed=trio.current_time() - self._began,
            statistics=statistics,
            features=self._names(statistics.features),
            offered_features=self._names(self._device.offered_features),
            protocol_features=tuple(bit.name for bit in ProtocolFeature if statistics.protocol_features >> bit & 1),
            queue_names=tuple(map(self._device.queue_name, range(len(self._device.queue_sizes)))),
            figures=self._balloon.figures() if self._balloon is not None else {},
        )

    def _names(self, features: int) -> tuple[str, ...]:
        return tuple(feature_names(features & ~_PROTOCOL_BITS, self._device.type_features))

    async def _status(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the panel shows, JSON-ready."""
        return snapshot_to_json(self._snapshot())


def snapshot_to_json(snapshot: Snapshot) -> dict[str, Any]:
    """Return the snapshot as a JSON-ready mapping."""
    statistics = snapshot.statistics
    return {
        "device": snapshot.device,
        "device_id": snapshot.device_id,
        "socket": snapshot.socket_path,
        "seconds": snapshot.elapsed,
        "connected": statistics.is_connected,
        "front_ends": statistics.front_end_count,
        "phase": statistics.phase,
        "features": list(snapshot.features),
        "offered_features": list(snapshot.offered_features),
        "protocol_features": list(snapshot.protocol_features),
        "requests": statistics.request_count,
        "errors": {
            "front_end": statistics.front_end_violation_count,
            "driver": statistics.driver_violation_count,
            "last": statistics.last_violation,
        },
        "queues": [
            {
                "number": queue.number,
                "name": snapshot.queue_names[queue.number] if queue.number < len(snapshot.queue_names) else "",
                "size": queue.size,
                "state": queue.state,
                "served": queue.is_served,
                "kicks": queue.kick_count,
                "calls": queue.call_count,
                "chains": queue.chain_count,
                "last_error": queue.last_error,
            }
            for queue in statistics.queues
        ],
        **({"figures": dict(snapshot.figures)} if snapshot.figures else {}),
    }
