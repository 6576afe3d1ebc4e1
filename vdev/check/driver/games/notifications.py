"""Calls that nobody asked for, and kicks that nobody wants."""

from collections.abc import Sequence

from spec.device import Feature, feature_mask
from vdev.check.driver.game import Game, Stage, game
from vdev.check.driver.judged_queue import JudgedQueue, Spent

__all__: list[str] = []

_SUPPRESSION = "split.driver.available-notification-suppression"


@game("spurious-calls", covers=["split.driver.used-notification-suppression.5"])
class SpuriousCalls(Game):
    """The device interrupts whenever nothing happens, with nothing used, and keeps buffers meanwhile."""

    enough = 9

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._turns = 0

    def give_back(self, queue: JudgedQueue, spent: Sequence[Spent]) -> None:
        """Keep them while there are calls for nothing."""
        queue.hold(spent)

    def turn(self) -> None:
        """Call for nothing several times, then for something."""
        self._turns += 1
        for queue in list(self.stage.queues.values()):
            if self._turns % 4 == 0 and queue.release_held():
                self.stage.call_driver(queue.number)
            elif queue.held:
                self.acted += 1
                self.stage.interrupt(queue.number)


@game("no-kicks", needs_start=True)
class NoKicks(Game):
    """Without EVENT_IDX the device says that it needs no notifications, and looks at its queues by itself."""

    @classmethod
    def offers(cls, offered: int) -> int:
        """Flags decide."""
        return offered & ~feature_mask(Feature.EVENT_IDX)

    def wants_kicks(self, queue: JudgedQueue) -> bool:
        """None, from the first look on."""
        self.acted += 1
        return False


@game("kicks-by-flags", needs_start=True, covers=[f"{_SUPPRESSION}.2"])
class KicksByFlags(Game):
    """Without EVENT_IDX the device wants notifications, and stores in avail_event what would forbid them."""

    enough = 24

    @classmethod
    def offers(cls, offered: int) -> int:
        """Flags decide."""
        return offered & ~feature_mask(Feature.EVENT_IDX)

    def turn(self) -> None:
        """Store it again: the ring has moved."""
        for queue in self.stage.queues.values():
            self.acted += 1
            queue.watch.spoil_suppression()


@game("kicks-by-event", covers=[f"{_SUPPRESSION}.5"], features=[Feature.EVENT_IDX])
class KicksByEvent(Game):
    """With EVENT_IDX the device wants notifications, and sets the flag that forbids them without EVENT_IDX."""

    enough = 24

    def turn(self) -> None:
        """Store it again."""
        for queue in self.stage.queues.values():
            self.acted += 1
            queue.watch.spoil_suppression()

    def end(self) -> None:
        """Take it back."""
        super().end()
        for queue in self.stage.queues.values():
            queue.watch.restore_suppression()


@game("kick-later", features=[Feature.EVENT_IDX])
class KickLater(Game):
    """With EVENT_IDX the device wants to be notified at the third entry from where it has looked."""

    ahead = 3

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._rest_count = 0
        self._seen = -1

    def wants_kicks(self, queue: JudgedQueue) -> bool:
        """Not at the next one."""
        if self._is_asked:
            return False
        self._is_asked = True
        self.acted += 1
        queue.ask_for_kick_at(self.ahead)
        return False

    _is_asked = False

    def give_back(self, queue: JudgedQueue, spent: Sequence[Spent]) -> None:
        """At once: the driver goes on."""
        queue.release(spent)
        self._is_asked = False
