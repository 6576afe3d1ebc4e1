"""Liang Li's RFC patches: the bulk stage waits for the whole answer."""

from typing import ClassVar

from host_migrator.strategies.ignore_late import IgnoreLate
from host_migrator.strategies.interface import HintTaker

__all__ = ["BlockBulk"]


class BlockBulk(IgnoreLate):
    """Start the dirty log, ask, wait until the whole answer is here, filter, sync, and then begin to send.

    Simple, and nothing is sent that was free. It costs the wait: a link that carries nothing while the guest looks
    through its memory, and for as long as the guest likes. So the migrator's wait has a limit, and what comes later
    does not count.
    """

    name: ClassVar[str] = "block-bulk"
    waits_for_answer: ClassVar[bool] = True

    _answer_whole = False

    @property
    def answer_outstanding(self) -> bool:
        """Whether the guest was asked and has not said that its answer is whole."""
        return self._answer_expected and not self._answer_whole

    def set_up(self, hints: HintTaker) -> None:
        """Take the device's hints."""
        super().set_up(hints)
        self._answer_whole = False

    def answer_ended(self) -> None:
        """The wait may end."""
        self._answer_whole = True
