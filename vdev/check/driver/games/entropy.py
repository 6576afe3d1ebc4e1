"""Games with the driver of a source of random bytes."""

from collections.abc import Sequence

from vdev.check.driver.game import Game, game
from vdev.check.driver.judged_queue import JudgedQueue, Spent

__all__: list[str] = []


@game("entropy-short", types=["entropy"])
class Short(Game):
    """The device gives one byte for each request, or some, but never all that there is room for."""

    aim = "requests were answered with fewer bytes than they have room for"

    def give_back(self, queue: JudgedQueue, spent: Sequence[Spent]) -> None:
        """Say that fewer bytes were written."""
        answers = []
        for head, written_size in spent:
            self.acted += 1
            few = 1 if self.acted % 2 else self.stage.random.randrange(1, max(2, written_size))
            answers.append((head, min(few, written_size)))
        queue.release(answers)
