"""What a person can ask of a served balloon: its size, statistics, hints."""

from collections.abc import Callable, Mapping
from typing import Any

import trio

from spec.balloon import PAGE_FRAME_SIZE, BalloonFeature
from spec.device import DeviceStatus
from vdev.devices.balloon import BalloonDevice, HintState
from vdev.events import EventStream, Record
from vdev.memory import PAGE_SIZE, PageRanges
from vdev.run.control import ControlRefused, Operation

__all__ = ["BalloonOperations"]

_LARGEST_TARGET = 0xFFFF_FFFF * PAGE_FRAME_SIZE


class _HintCounter:
    """Counts what hints named since they were last asked for."""

    def __init__(self) -> None:
        self.block_count = 0
        self.page_count = 0

    def take(self, ranges: PageRanges) -> int:
        self.block_count += len(ranges.first)
        self.page_count += ranges.page_count
        return ranges.page_count

    def answer_ended(self) -> None:
        """Whoever asked waits for the device's state."""

    def batch_taken(self) -> bool:
        return True


class BalloonOperations:
    """Operations of `vdev.run.control` on one balloon, whose events go into `events`.

    `patience` is how long, in seconds, one of them waits for the guest.
    """

    def __init__(self, balloon: BalloonDevice, events: EventStream, *, patience: float = 10.0) -> None:
        self._hints = _HintCounter()
        self._balloon = balloon
        self._patience = patience
        self._moved = trio.Event()
        self._asking = trio.Lock()
        events.subscribe(self._note)

    def operations(self) -> dict[str, Operation]:
        """Return name -> operation."""
        return {
            "inflate": self.inflate,
            "statistics": self.statistics,
            "hints-request": self.request_hints,
            "hints-stop": self.stop_hints,
            "hints-done": self.end_hints,
        }

    def figures(self) -> dict[str, Any]:
        """Return what the balloon looks like now; sizes in bytes."""
        balloon = self._balloon
        return {
            "target_size": int(balloon.config["num_pages"]) * PAGE_FRAME_SIZE,
            "actual_size": balloon.actual * PAGE_FRAME_SIZE,
            "given_back_size": balloon.inflation.returned_size,
            "hints": balloon.hinting.state.name,
            "hinted_blocks": self._hints.block_count,
            "hinted_size": self._hints.page_count * PAGE_SIZE,
            "refused_hints": balloon.hinting.refused_count,
            "reported_size": balloon.reporting.reported_count * PAGE_SIZE,
            "statistics": {tag.name.lower(): value for tag, value in balloon.statistics.items()},
        }

    async def inflate(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Ask the guest for a balloon of `size` bytes; with `wait`, return when it has that size."""
        size = request.get("size")
        if type(size) is not int or not 0 <= size <= _LARGEST_TARGET or size % PAGE_FRAME_SIZE:
            raise ControlRefused(f"the size is not a multiple of {PAGE_FRAME_SIZE} bytes from 0 on")
        self._require_guest(None)
        target = size // PAGE_FRAME_SIZE
        self._balloon.set_target(target)
        if request.get("wait"):
            await self._wait(lambda: self._balloon.actual == target, "make its balloon that size")
        return self._figures("target_size", "actual_size")

    async def statistics(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """Ask the guest for new statistics, and return them: tag -> bytes or count."""
        self._require_guest(BalloonFeature.STATS_VQ)
        async with self._asking:
            answer_count = self._balloon.memory_statistics.answer_count
            # A request may be under way already: its answer is new, too.
            self._balloon.request_statistics()
            await self._wait(lambda: self._balloon.memory_statistics.answer_count > answer_count, "give statistics")
        return {tag.name.lower(): value for tag, value in self._balloon.statistics.items()}

    async def request_hints(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """Ask for hints under a new id; return when the guest has no more. It holds the pages until `hints-done`."""
        self._require_guest(BalloonFeature.FREE_PAGE_HINT)
        hinting = self._balloon.hinting
        async with self._asking:
            self._hints = _HintCounter()
            hinting.sink = self._hints
            command_id = hinting.request()
            if command_id is None:
                raise ControlRefused(
                    "the guest relies on its free pages' content (page poison): no hints are asked for"
                )
            await self._wait(
                lambda: hinting.command_id != command_id or hinting.state in (HintState.STOP, HintState.DONE),
                "come to the end of its hints",
            )
        return {
            "command_id": command_id,
            "blocks": self._hints.block_count,
            "pages": self._hints.page_count,
            "hinted_size": self._hints.page_count * PAGE_SIZE,
        }

    async def stop_hints(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """Take no more hints; the guest keeps holding what it gave."""
        self._require_guest(BalloonFeature.FREE_PAGE_HINT)
        self._balloon.hinting.stop()
        return self._figures("hints", "hinted_blocks", "hinted_size")

    async def end_hints(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """Let the guest have its hinted pages back."""
        self._require_guest(BalloonFeature.FREE_PAGE_HINT)
        self._balloon.hinting.done()
        return self._figures("hints", "hinted_blocks", "hinted_size")

    def _figures(self, *names: str) -> dict[str, Any]:
        figures = self.figures()
        return {name: figures[name] for name in names}

    def _require_guest(self, feature: BalloonFeature | None) -> None:
        if not self._balloon.running:
            raise ControlRefused("no guest drives the balloon now")
        if feature is not None and not self._balloon.has_feature(feature):
            raise ControlRefused(f"the guest's driver did not negotiate {feature.name}")

    def _note(self, _: Record) -> None:
        self._moved.set()
        self._moved = trio.Event()

    async def _wait(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until `condition` holds; each event of the balloon is a reason to look again.

        Raises ControlRefused if it takes too long, or the guest goes away meanwhile.
        """
        with trio.move_on_after(self._patience) as waiting:
            while self._balloon.running and not condition():
                await self._moved.wait()
        if waiting.cancelled_caught:
            raise ControlRefused(f"the guest did not {what} within {self._patience:g} s")
        if not self._balloon.running:
            broke = self._balloon.status & DeviceStatus.DEVICE_NEEDS_RESET
            raise ControlRefused(
                f"the guest did not {what}: {'its driver broke the rules' if broke else 'it went away'}"
            )
