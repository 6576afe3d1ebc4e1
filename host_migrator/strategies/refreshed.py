"""The guest answers again by itself: after an interval, or when its last answer was consumed."""

from typing import ClassVar

from host_migrator.strategies.asking import Asking
from host_migrator.strategies.interface import HintingDevice, Refresh

__all__ = ["HostTimer", "Interval", "Resubmit"]


class Interval(Asking):
    """Tsirkin's: a configuration field says how often the guest refreshes its answer by itself; 0 after the migration.

    No request is needed for each round. It costs the guest a look through its free lists each `interval_ms`, also when
    nobody needs it, and nothing ties an answer to a sync.
    """

    name: ClassVar[str] = "interval"
    refresh: ClassVar[Refresh] = Refresh.INTERVAL

    def __init__(self, hinting: HintingDevice, *, head_start: float = 0.1, interval_ms: int = 100) -> None:
        super().__init__(hinting, head_start=head_start)
        self._interval_ms = interval_ms

    def _ask(self) -> None:
        self._hinting.set_refresh_interval(self._interval_ms)
        super()._ask()

    def _finish(self) -> None:
        if self._active:
            self._hinting.set_refresh_interval(0)
        super()._finish()


class Resubmit(Asking):
    """A standing answer: the guest posts a new one when the old one was consumed.

    The host paces the guest by consuming. It costs the guest a new look through its free lists for each answer
    consumed, and nothing ties an answer to a sync.
    """

    name: ClassVar[str] = "resubmit"
    refresh: ClassVar[Refresh] = Refresh.CONSUMED


class HostTimer(Resubmit):
    """As resubmit, but the host looks at the queue from a timer, and at no kick.

    So the host sets the pace even of a guest that never rests. It costs a wake-up of the host for each period, and
    hints lie in the queue for longer: the longer, the more syncs fall between collection and use.
    """

    name: ClassVar[str] = "host-timer"
    polled: ClassVar[bool] = True
