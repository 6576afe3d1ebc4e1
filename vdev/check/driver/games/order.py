"""When, and in which order, buffers go back."""

from collections.abc import Sequence

from vdev.check.driver.game import Game, game
from vdev.check.driver.judged_queue import JudgedQueue, Spent

__all__: list[str] = []


@game("late")
class Late(Game):
    """The device gives buffers back only when nothing else happens."""

    def give_back(self, queue: JudgedQueue, spent: Sequence[Spent]) -> None:
        """Keep them."""
        queue.hold(spent)

    def turn(self) -> None:
        """Give all of one queue back."""
        for queue in self.stage.queues.values():
            if queue.release_held():
                self.acted += 1
                self.stage.call_driver(queue.number)
