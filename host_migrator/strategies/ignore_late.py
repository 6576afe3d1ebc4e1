"""Gilbert's: an answer that comes after the first pass is dropped."""

from typing import ClassVar

from host_migrator.strategies.asking import Asking
from host_migrator.strategies.interface import HintStep, HintTaker

__all__ = ["IgnoreLate", "IgnoreLateUnlocked"]


class IgnoreLate(Asking):
    """Ask once; a hint counts only while no sync came since.

    No id is needed, for there is one answer. It costs all that the guest frees during the migration, and an answer that
    takes longer than the first pass is worth nothing.
    """

    name: ClassVar[str] = "ignore-late"

    _late = False

    def set_up(self, hints: HintTaker) -> None:
        """Take the device's hints."""
        super().set_up(hints)
        self._late = False

    def accepts(self) -> bool:
        """Whether no sync came since the request."""
        return not self._late

    def before_sync(self) -> None:
        """What comes from now on is late."""
        self._late = self._asked


class IgnoreLateUnlocked(IgnoreLate):
    """The same test without a lock: a sync may fall between the test and what is done on its ground.

    It costs nothing that ignore-late does not, and shows what that pays for.
    """

    name: ClassVar[str] = "ignore-late-unlocked"
    locked: ClassVar[bool] = False
    handler_steps: ClassVar[tuple[HintStep, ...]] = (HintStep.CHECK, HintStep.FILTER)
