"""The handler of hints: what is done with a batch that the device has popped, in the steps that the strategy names."""

from host_migrator.migration import Migration
from host_migrator.strategies import HintStep
from vdev.memory import PageRanges

__all__ = ["HintWork"]


class HintWork:
    """Takes the device's hints for `migration`. No I/O; all state is in plain fields.

    With a strategy that locks, a hint is applied as it is taken. Otherwise a batch is kept until it is whole and goes
    through the strategy's steps: all of them before the device has its batch back, or, if `divided`, one with each
    `do_next`, while others act in between. What the device pops meanwhile has its turn after that, in order.
    """

    def __init__(self, migration: Migration, *, divided: bool = False) -> None:
        self.migration = migration
        self.divided = divided and not migration.strategy.locked
        self.taken: list[PageRanges] = []
        """Hints of the batch that the device is looking through."""
        self.batches: list[list[PageRanges]] = []
        """Batches in hand, the oldest first."""
        self.steps: list[HintStep] = []
        """What is still to be done with them; each batch ends with RETURN."""
        self.counts = True
        """Whether CHECK let the oldest one pass."""

    @property
    def next_step(self) -> HintStep | None:
        """What `do_next` would do, None when no batch is in hand."""
        return self.steps[0] if self.steps else None

    # What the device calls

    def take(self, ranges: PageRanges) -> int:
        """Apply hints, or keep them for the steps; returns how many pages left the set still to send at once."""
        strategy = self.migration.strategy
        if strategy.locked:
            return self.migration.apply_hint(ranges) if strategy.accepts() else 0
        self.taken.append(ranges)
        return 0

    def answer_ended(self) -> None:
        """Tell the strategy."""
        self.migration.strategy.answer_ended()

    def batch_taken(self) -> bool:
        """Go through the steps and return true; or, divided, leave them to `do_next`: the device keeps the batch."""
        if not self.taken:
            # Buffers go back in order, so ids do not overtake a batch in hand.
            if not self.steps:
                return True
            steps = []
        else:
            steps = list(self.migration.strategy.handler_steps)
        self.batches.append(self.taken)
        self.taken = []
        if self.divided:
            self.steps += [*steps, HintStep.RETURN]
            return False
        for step in steps:
            self._do(step)
        self._forget_oldest()
        return True

    # What drives a divided handler

    def do_next(self) -> None:
        """Do one step of the oldest batch in hand. Raises IndexError when there is none."""
        step = self.steps.pop(0)
        if step is HintStep.RETURN:
            self._forget_oldest()
            self.migration.strategy.give_back()
        else:
            self._do(step)
            if not self.counts:
                del self.steps[: self.steps.index(HintStep.RETURN)]

    def abandon(self) -> None:
        """Give the batches in hand back unapplied."""
        self.steps.clear()
        while self.batches:
            self._forget_oldest()
            self.migration.strategy.give_back()

    def _do(self, step: HintStep) -> None:
        match step:
            case HintStep.CHECK:
                self.counts = self.migration.strategy.accepts()
            case HintStep.SYNC:
                self.migration.merge()
            case HintStep.FILTER if self.counts:
                for ranges in self.batches[0]:
                    self.migration.apply_hint(ranges)

    def _forget_oldest(self) -> None:
        self.batches.pop(0)
        self.counts = True
