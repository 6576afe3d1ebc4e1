"""When the driver answers again under an id that it has answered (HintRefresh)."""

import math

from guest_agent.drivers.balloon.area import BalloonArea
from guest_agent.drivers.balloon.behaviour import HintBehaviour, HintRefresh
from guest_agent.drivers.balloon.held_hints import HeldHints
from spec.balloon import CommandId

__all__ = ["NO_REQUEST", "HintRefresher"]

NO_REQUEST = (CommandId.STOP, CommandId.DONE)
"""Values of free_page_hint_cmd_id that ask for nothing."""

_REST_MS = 5
"""Between two answers to a device that consumes at once; without it the driver would do nothing else."""


class HintRefresher:
    """Time comes in with `tick`. With single steps it plays no part: an interval is over when an answer is of use."""

    def __init__(self, area: BalloonArea, held: HeldHints, behaviour: HintBehaviour) -> None:
        self._area = area
        self._held = held
        self._refresh = behaviour.refresh
        self._is_timeless = behaviour.single_steps

    @property
    def reads_interval(self) -> bool:
        """Whether the device's configuration is to be read with the field for the interval."""
        return self._refresh is HintRefresh.INTERVAL

    def see_interval(self, milliseconds: int) -> None:
        """Take note of free_page_hint_interval."""
        if not self._area["refresh_interval"] and milliseconds:
            self._area["refresh_at"] = 0
        self._area["refresh_interval"] = milliseconds

    def tick(self, now: float) -> float:
        """Look whether the interval is over, at `now` in seconds; return in how many it will be."""
        area = self._area
        interval = self._interval
        if not interval or area["current_id"] in NO_REQUEST:
            return math.inf
        now_ms = int(now * 1000)
        # Never further away than one interval: the clock is another one after a migration.
        at = min(area["refresh_at"] or math.inf, now_ms + interval)
        if now_ms >= at:
            area["refresh_due"] = 1
            at = now_ms + interval
        area["refresh_at"] = int(at)
        return (at - now_ms) / 1000

    @property
    def _interval(self) -> int:
        match self._refresh:
            case HintRefresh.INTERVAL:
                return int(self._area["refresh_interval"])
            case HintRefresh.CONSUMED:
                return _REST_MS
        return 0

    @property
    def is_due(self) -> bool:
        """Whether it is time for another answer."""
        is_time = self._is_timeless or bool(self._area["refresh_due"])
        match self._refresh:
            case HintRefresh.INTERVAL if self._area["refresh_interval"]:
                return is_time and (not self._is_timeless or self._is_useful())
            case HintRefresh.CONSUMED:
                return is_time and self.is_consumed and self._is_useful()
        return False

    @property
    def awaits_use(self) -> bool:
        """Whether another answer follows when the device has given back what it has."""
        asked = self._area["current_id"] not in NO_REQUEST
        return self._refresh is HintRefresh.CONSUMED and asked and not self.is_consumed

    @property
    def is_consumed(self) -> bool:
        """Whether the device has given back every buffer with a hint or an id."""
        return not self._area["hints_out"] and not self._area.ids_out

    def _is_useful(self) -> bool:
        # An answer without a hint is not worth repeating for its own sake: two idle ends would do nothing else.
        if self._area["answer_size"] or self._held.is_any_to_hint():
            return True
        return self.is_consumed and self._held.is_any_held()
