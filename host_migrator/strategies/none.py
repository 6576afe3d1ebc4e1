"""The baseline: the guest is not asked."""

from typing import ClassVar

from host_migrator.strategies.interface import HintingDevice, HintStep, HintTaker, Refresh

__all__ = ["NoHints"]


class NoHints:
    """Sends every page. It costs what hints would save."""

    name: ClassVar[str] = "none"
    head_start: ClassVar[float] = 0.0
    locked: ClassVar[bool] = True
    handler_steps: ClassVar[tuple[HintStep, ...]] = ()
    needs_exits: ClassVar[bool] = False
    polled: ClassVar[bool] = False
    refresh: ClassVar[Refresh] = Refresh.NEVER
    waits_for_answer: ClassVar[bool] = False
    answer_outstanding: ClassVar[bool] = False
    advance_due: ClassVar[bool] = False

    def __init__(self, hinting: HintingDevice | None = None) -> None:
        """Take the device like every strategy, and leave it alone."""

    def set_up(self, hints: HintTaker) -> None:
        """No hint is wanted."""

    def accepts(self) -> bool:
        """No hint counts."""
        return False

    def answer_ended(self) -> None:
        """Nobody asked."""

    def give_back(self) -> None:
        """Nothing was taken."""

    def advance(self) -> None:
        """There is no id."""

    def before_sync(self) -> None:
        """No hint could race with the sync."""

    def after_sync(self, running: bool) -> None:
        """Nobody is asked."""

    def complete(self) -> None:
        """The guest holds nothing for us."""

    def clean_up(self) -> None:
        """The guest holds nothing for us."""
