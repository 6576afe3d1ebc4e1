"""What landed in QEMU and Linux: each sync begins a new command id, and only hints under the newest id count."""

from enum import StrEnum
from typing import ClassVar

from host_migrator.strategies.asking import Asking
from host_migrator.strategies.interface import HintingDevice

__all__ = ["Advance", "CommandId"]


class Advance(StrEnum):
    """When a new command id begins."""

    AFTER_SYNC = "after-sync"
    BEFORE_SYNC = "before-sync"


class CommandId(Asking):
    """Stop, sync, ask again under a new id; when the guest is stopped, done.

    The device drops a hint whose id is not the one it asked under last, so no hint that the guest collected before a
    sync is applied after it. It costs a configuration interrupt and a new answer for each sync, and what the guest had
    collected but not yet posted.

    With `advance` BEFORE_SYNC the id moves on some time before the sync instead: an order that looks as good.
    """

    name: ClassVar[str] = "command-id"
    checks_id: ClassVar[bool] = True
    asks_again: ClassVar[bool] = True

    def __init__(
        self, hinting: HintingDevice, *, head_start: float = 0.1, advance: Advance = Advance.AFTER_SYNC
    ) -> None:
        super().__init__(hinting, head_start=head_start)
        self._advance = Advance(advance)
        self._advanced = False

    @property
    def advance_due(self) -> bool:
        """Whether the id is still to move on before the next sync."""
        return self._advance is Advance.BEFORE_SYNC and not self._advanced

    def advance(self) -> None:
        """Ask under a new id, ahead of the sync."""
        self._advanced = True
        self._ask()

    def before_sync(self) -> None:
        """No hint is taken until the guest has echoed a new id."""
        if not self._advanced:
            self._hinting.stop()

    def after_sync(self, running: bool) -> None:
        """Ask again, unless that was done ahead; release what the guest holds when nothing more can be skipped."""
        if not (running and self._advanced):
            super().after_sync(running)
        self._advanced = False
