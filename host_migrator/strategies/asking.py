"""What all strategies that ask the guest have in common."""

from typing import ClassVar

from host_migrator.strategies.interface import HintingDevice, HintStep, HintTaker, Refresh

__all__ = ["Asking"]


class Asking:
    """Asks after the first sync, and is done when the guest is stopped or the migration is over, whatever comes first.

    A subclass says in its class attributes how hints are handled and when the guest is asked again. DONE reaches the
    guest exactly once for each migration, however that ends.

    `head_start` is the most seconds the bulk stage waits for the first hints. They come in an order of their own while
    pages are sent from the lowest address on, so whatever is sent before its hint comes is wasted; waiting costs
    at most this long once, and ends when hints dry up.
    """

    name: ClassVar[str]
    locked: ClassVar[bool] = True
    handler_steps: ClassVar[tuple[HintStep, ...]] = (HintStep.FILTER,)
    needs_exits: ClassVar[bool] = False
    polled: ClassVar[bool] = False
    refresh: ClassVar[Refresh] = Refresh.NEVER
    waits_for_answer: ClassVar[bool] = False
    checks_id: ClassVar[bool] = False
    """Whether only hints count that follow the id asked for last."""
    asks_again: ClassVar[bool] = False
    """Whether the guest is asked again after each sync but the last."""

    def __init__(self, hinting: HintingDevice, *, head_start: float = 0.1) -> None:
        self._hinting = hinting
        self._head_start = head_start
        self._active = False
        self._asked = False
        self._answer_expected = False

    @property
    def head_start(self) -> float:
        """The most seconds to wait for the first hints; none when the guest cannot be asked."""
        return self._head_start if self._answer_expected else 0.0

    @property
    def answer_outstanding(self) -> bool:
        """Nobody waits for a whole answer."""
        return False

    @property
    def advance_due(self) -> bool:
        """No id moves on ahead of a sync."""
        return False

    def set_up(self, hints: HintTaker) -> None:
        """Take the device's hints."""
        self._hinting.sink = hints
        self._hinting.checks_id = self.checks_id
        self._hinting.polled = self.polled
        self._active = True
        self._asked = self._answer_expected = False

    def accepts(self) -> bool:
        """Every hint counts that the device lets through."""
        return True

    def answer_ended(self) -> None:
        """Nobody waits for it."""

    def give_back(self) -> None:
        """Have the device give its oldest batch back."""
        self._hinting.give_back()

    def advance(self) -> None:
        """No id moves on ahead of a sync."""

    def before_sync(self) -> None:
        """Hints may come across a sync."""

    def after_sync(self, running: bool) -> None:
        """Ask, if it is time to, or release what the guest holds when nothing more can be skipped."""
        if not running:
            self._finish()
        elif self.asks_again or not self._asked:
            self._ask()

    def complete(self) -> None:
        """All was said when the guest was stopped."""

    def clean_up(self) -> None:
        """Release what the guest holds, unless that was done."""
        self._finish()

    def _ask(self) -> None:
        self._asked = True
        self._answer_expected = self._hinting.request() is not None

    def _finish(self) -> None:
        if self._active:
            self._active = False
            self._hinting.sink = None
            self._hinting.polled = False
            self._hinting.done()
