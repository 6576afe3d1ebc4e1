"""When, and in which order, buffers go back."""

from collections.abc import Sequence

from vdev.check.driver.game import Game, Stage, game
from vdev.check.driver.judged_queue import JudgedQueue, Spent

__all__: list[str] = []


@game("late")
class Late(Game):
    """The device gives buffers back only when nothing else happens."""

    enough = 17

    def give_back(self, queue: JudgedQueue, spent: Sequence[Spent]) -> None:
        """Keep them."""
        queue.hold(spent)

    def turn(self) -> None:
        """Give all of one queue back."""
        for queue in list(self.stage.queues.values()):
            if queue.release_held():
                self.acted += 1
                self.stage.call_driver(queue.number)


class _Hoarding(Game):
    """Keeps buffers until the driver brings no more."""

    enough = 17
    patience = 3
    """So many turns without a new buffer."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._available_before = -1
        self._turns = 0

    def give_back(self, queue: JudgedQueue, spent: Sequence[Spent]) -> None:
        """Keep them."""
        queue.hold(spent)

    def turn(self) -> None:
        """Wait until nothing new comes."""
        if self.stage.picture.available_count != self._available_before:
            self._available_before = self.stage.picture.available_count
            self._turns = 0
            return
        self._turns += 1
        if self._turns >= self.patience:
            self._turns = 0
            for queue in list(self.stage.queues.values()):
                if queue.held:
                    self.acted += 1
                    self.let_go(queue)

    def let_go(self, queue: JudgedQueue) -> None:
        """Give back what is held."""


@game("all-at-once")
class AllAtOnce(_Hoarding):
    """The device keeps all buffers until no more come, and then gives them back with one move."""

    def let_go(self, queue: JudgedQueue) -> None:
        """With one move, and one call."""
        queue.release_held()
        self.stage.call_driver(queue.number)


@game("out-of-order")
class OutOfOrder(_Hoarding):
    """The device gives buffers back in an order of its own, one by one and with a call for each."""

    def let_go(self, queue: JudgedQueue) -> None:
        """In any order; with IN_ORDER in the only one that there is."""
        spent, queue.held = queue.held, []
        if not queue.in_order:
            self.stage.random.shuffle(spent)
        for each in spent:
            queue.release([each])
            self.stage.call_driver(queue.number)


@game("one-kept")
class OneKept(Game):
    """The device keeps the first buffer of each queue until the end, and gives all others back."""

    enough = 17

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._kept: set[int] = set()
        self._rest_count = 0

    def give_back(self, queue: JudgedQueue, spent: Sequence[Spent]) -> None:
        """Keep the first; with IN_ORDER that keeps all behind it, too."""
        if queue.number in self._kept and not queue.in_order:
            queue.release(spent)
            return
        self._kept.add(queue.number)
        self.acted += 1
        queue.hold(spent[:1] if not queue.in_order else spent)
        if not queue.in_order:
            queue.release(spent[1:])

    def turn(self) -> None:
        """A driver that waits for just this buffer gets it."""
        self._rest_count += 1
        if self._rest_count % 8 == 0:
            self._kept.clear()
            for queue in list(self.stage.queues.values()):
                if queue.release_held():
                    self.stage.call_driver(queue.number)


@game("never", needs_start=True)
class Never(Game):
    """The device gives nothing back, until the driver is removed."""

    aim = "buffers were made available"
    enough = 1

    @property
    def progress(self) -> int:
        """What came in."""
        return self.stage.picture.available_count

    def give_back(self, queue: JudgedQueue, spent: Sequence[Spent]) -> None:
        """Keep them."""
        self.acted += 1
        queue.hold(spent)

    def end(self) -> None:
        """Keep them even now: the driver has to live with a reset."""
