"""Having a balloon's host act while it is judged: the size it wants, statistics, hints.

Actions and their arguments are named as on the control socket of `vdev serve`: "inflate" (`pages`),
"statistics-request", "hints-request", "hints-stop", "hints-done". None of them waits for the driver: it is the driver
who asked. "figures" tells what the host knows: `target_pages`, `actual_pages`, `hints` (the state's name),
`hinted_pages`, `refused_hints`, `reported_pages`, `statistics` (tag's name -> value).
"""

import json
import socket
from collections.abc import Mapping
from typing import Any

from spec.balloon import PAGE_FRAME_SIZE
from vdev.check.target import HostAction
from vdev.check.verdict import Inconclusive
from vdev.device import Device
from vdev.devices.balloon import BalloonDevice
from vdev.errors import UserError
from vdev.memory.pages import PAGE_SIZE, PageRanges
from vdev.run.control import ControlRefused, ask

__all__ = ["host_at_socket", "host_of_device"]

_PATIENCE = 5.0


class _PageCounter:
    """The one who takes the hints, and only counts them."""

    def __init__(self) -> None:
        self.page_count = 0

    def take(self, ranges: PageRanges) -> int:
        self.page_count += ranges.page_count
        return ranges.page_count

    def answer_ended(self) -> None:
        """Nobody waits for it."""

    def batch_taken(self) -> bool:
        return True


def host_of_device(device: Device) -> HostAction | None:
    """Return what acts as the host of a device of this process, None unless it is a balloon.

    Call it where the device lives: nothing here waits, or changes threads.
    """
    return _DeviceHost(device) if isinstance(device, BalloonDevice) else None


class _DeviceHost:
    def __init__(self, balloon: BalloonDevice) -> None:
        self._balloon = balloon

    def __call__(self, action: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        balloon = self._balloon
        match action:
            case "inflate":
                balloon.set_target(arguments["pages"])
            case "statistics-request":
                balloon.request_statistics()
            case "hints-request":
                balloon.hinting.sink = _PageCounter()
                balloon.hinting.request()
            case "hints-stop":
                balloon.hinting.stop()
            case "hints-done":
                balloon.hinting.done()
            case "figures":
                return self._figures()
            case _:
                raise Inconclusive(f"the host of a balloon cannot do {action}")
        return {}

    def _figures(self) -> Mapping[str, Any]:
        balloon = self._balloon
        sink = balloon.hinting.sink
        return {
            "target_pages": int(balloon.config["num_pages"]),
            "actual_pages": balloon.actual,
            "hints": balloon.hinting.state.name,
            "hinted_pages": sink.page_count if isinstance(sink, _PageCounter) else 0,
            "refused_hints": balloon.hinting.refused_count,
            "reported_pages": balloon.reporting.reported_count,
            "statistics": {tag.name.lower(): value for tag, value in balloon.statistics.items()},
        }


def host_at_socket(path: str) -> HostAction:
    """Return what has the device act that `vdev serve` serves, whose control socket is at `path`."""
    return _SocketHost(path)


class _SocketHost:
    def __init__(self, path: str) -> None:
        self._path = path

    def __call__(self, action: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            match action:
                case "inflate":
                    self._ask({"do": "inflate", "size": arguments["pages"] * PAGE_FRAME_SIZE, "wait": False})
                case "statistics-request":
                    self._leave({"do": "statistics"})
                case "hints-request":
                    self._leave({"do": "hints-request"})
                case "hints-stop" | "hints-done":
                    self._ask({"do": action})
                case "figures":
                    return self._figures()
                case _:
                    raise Inconclusive(f"the host of a balloon cannot do {action}")
        except (OSError, UserError, ControlRefused) as error:
            raise Inconclusive(f"the host did not do {action}: {error}") from error
        return {}

    def _figures(self) -> Mapping[str, Any]:
        told = self._ask({"do": "status"})["figures"]
        return {
            "target_pages": told["target_size"] // PAGE_FRAME_SIZE,
            "actual_pages": told["actual_size"] // PAGE_FRAME_SIZE,
            "hints": told["hints"],
            "hinted_pages": told["hinted_size"] // PAGE_SIZE,
            "refused_hints": told["refused_hints"],
            "reported_pages": told["reported_size"] // PAGE_SIZE,
            "statistics": told["statistics"],
        }

    def _ask(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        return ask(self._path, request, patience=_PATIENCE)

    def _leave(self, request: Mapping[str, Any]) -> None:
        """Ask for what is only answered when the driver has done its part, and wait for no answer."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_PATIENCE)
            connection.connect(self._path)
            connection.sendall(json.dumps(dict(request)).encode() + b"\n")
