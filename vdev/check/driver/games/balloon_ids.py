"""The game of command ids with the driver of a balloon ("Free Page Hinting")."""

from typing import TypeGuard

from spec.balloon import COMMAND_ID_SIZE, CONFIG, BalloonFeature, BalloonQueue, CommandId
from spec.layout import dtype_of
from vdev.check.driver.balloon_rule import readable_bytes
from vdev.check.driver.game import game
from vdev.check.driver.games.balloon import BalloonGame
from vdev.check.driver.observation import ChainMadeAvailable, Observation
from vdev.errors import GuestAddressError

__all__: list[str] = []

_STOP, _DONE = int(CommandId.STOP), int(CommandId.DONE)
_FIELDS = dtype_of(CONFIG).fields
assert _FIELDS is not None
_PLACE = _FIELDS["free_page_hint_cmd_id"][1]


class _HintGame(BalloonGame):
    def is_hint(self, seen: Observation) -> bool:
        """Say whether the driver names free pages."""
        return self._is_of_queue(seen) and all(each.is_writable for each in seen.chain.segments)

    def id_sent(self, seen: Observation) -> int | None:
        """Return the command id that the driver sends, None if it is something else."""
        if not self._is_of_queue(seen) or self.is_hint(seen):
            return None
        memory = self.stage.device.memory
        try:
            data = readable_bytes(memory, seen.chain)
        except GuestAddressError:
            return None  # rules have seen it
        return int.from_bytes(data, "little") if len(data) == COMMAND_ID_SIZE else None

    def _is_of_queue(self, seen: Observation) -> TypeGuard[ChainMadeAvailable]:
        return isinstance(seen, ChainMadeAvailable) and seen.number == self.number_of(BalloonQueue.FREE_PAGE)


@game("balloon-ids", types=["balloon"], features=[BalloonFeature.FREE_PAGE_HINT])
class Ids(_HintGame):
    """The device gives out new command ids, STOP and DONE at every moment: when the driver rests, in the middle of its
    hints, before it begins, and between two reads of the field. The last id stands until the driver is at its end.
    """

    _TURNS = 40
    aim = "command ids were given out, and hints under the last one came to an end"
    enough = 24
    stirs = False

    def begin(self) -> None:
        """Begin with an id that the device's own hinting does not use."""
        self._id = 0x1000
        self._shown = _STOP
        self._final: int | None = None
        self._echoed: int | None = None
        self._is_ended = False
        self._due = False
        self._pause = 0

    @property
    def progress(self) -> int:
        """Ids that were given out, and at last whether the last was answered to its end."""
        return self.acted + self._is_ended

    def see(self, seen: Observation) -> None:
        """Follow what the driver sends."""
        super().see(seen)
        if self.is_hint(seen):
            self._due = True  # in the middle of its hints
        elif (sent := self.id_sent(seen)) is not None:
            self._is_ended |= sent == _STOP and self._echoed is not None and self._echoed == self._final
            self._echoed = sent

    def before_config_read(self, offset: int) -> None:
        """Change the field behind the driver's back, and tell it."""
        if self._pause or self._final is not None or not self.balloon.running:
            return
        if offset <= _PLACE and self.stage.random.random() < 0.3:
            self._act()

    def turn(self) -> None:
        """Change it at a quiet moment, or as soon as hints come."""
        if not self.balloon.running or self._final is not None:
            return
        if self._pause:
            self._pause -= 1
        elif self.acted == self.enough - 1:
            self._final = self._new_id()
            self._show(self._final)
        elif self._due or self.stage.random.random() < 0.5:
            self._due = False
            self._act()

    def _act(self) -> None:
        if self.acted < self.enough - 1:
            self.acted += 1
            value = self.stage.random.choice((_STOP, _DONE, *(self._new_id() for _ in range(3))))
            # Sometimes it stays so: a driver that does not stop hints all it has.
            self._pause = self._TURNS if value in (_STOP, _DONE) and self.stage.random.random() < 0.5 else 0
            self._show(value)

    def _new_id(self) -> int:
        self._id += 1
        return self._id

    def _show(self, value: int) -> None:
        if value != self._shown:
            self._shown = value
            self.balloon.change_config(free_page_hint_cmd_id=value)

    def end(self) -> None:
        """Let the driver have its pages back."""
        super().end()
        self._show(_DONE)


@game("balloon-hints-again", types=["balloon"], features=[BalloonFeature.FREE_PAGE_HINT])
class HintsAgain(_HintGame):
    """The device asks for hints, lets the driver have the pages back with DONE, and asks again."""

    aim = "times the driver came to the end of its hints"
    enough = 4
    stirs = False

    def begin(self) -> None:
        """Begin with an id of its own."""
        self._id = 0x2000
        self._is_open = False
        self._step = 0

    @property
    def progress(self) -> int:
        """How often hints came to their end."""
        return self.acted

    def see(self, seen: Observation) -> None:
        """Follow what the driver sends."""
        super().see(seen)
        sent = self.id_sent(seen)
        if sent is not None:
            self.acted += sent == _STOP and self._is_open
            self._is_open = sent == self._id

    def turn(self) -> None:
        """Ask when the last answer has ended; DONE comes between two."""
        if not self.balloon.running:
            return
        if self._step == 2 * self.acted:
            self._step += 1
            self._id += 1
            self.balloon.change_config(free_page_hint_cmd_id=self._id)
        elif self._step < 2 * self.acted:
            self._step += 1
            self.balloon.change_config(free_page_hint_cmd_id=_DONE)

    def end(self) -> None:
        """Let the driver have its pages back."""
        super().end()
        self.balloon.change_config(free_page_hint_cmd_id=_DONE)
