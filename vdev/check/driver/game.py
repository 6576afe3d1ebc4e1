"""The games: ways in which the judging device behaves that a driver must be able to live with. A game is a class with
`@game` before it; its first line of text says what the device does.

A driver that lives through a game shows itself to keep the statements that the game covers.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import ClassVar, TypeVar

from spec.statements import catalogue
from vdev.check.driver.judged_queue import JudgedQueue, Spent
from vdev.check.driver.observation import Observation
from vdev.check.driver.picture import Picture
from vdev.check.verdict import Failed, Inconclusive, Judgement, TargetHung
from vdev.device import Device
from vdev.devices.kind import Carrier

__all__ = ["LIVES_ON", "Game", "GameKind", "Stage", "driver_games", "game"]


LIVES_ON = "driver.described.lives-on"
"""The statement of games that have no other."""


@dataclass(frozen=True, slots=True)
class GameKind:
    """What is known of a game before it is played.

    `covers` are the ids of the statements that it shows kept, LIVES_ON if there is no other. It is played behind
    `carriers`, with devices of `types` (None for all), where all of `features` were agreed (bit numbers).
    A game that `needs_start` decides something at the driver's start, and has a start of its own. With
    `per_format` it is played once for each ring format.
    """

    name: str
    covers: tuple[str, ...]
    summary: str
    make: "type[Game]"
    carriers: frozenset[Carrier]
    types: frozenset[str] | None
    features: tuple[int, ...]
    needs_start: bool
    per_format: bool


@dataclass
class Stage:
    """What a game may do: the device, its queues by number, what is known of the driver, and chance."""

    device: Device
    queues: dict[int, JudgedQueue]
    picture: Picture
    random: Random
    variant: str
    """The ring format of this start."""

    def call_driver(self, number: int) -> None:
        """Interrupt for what was given back of a queue, if the driver wants that."""
        if number in self.device.queues:
            self.device.call_driver(number)

    def interrupt(self, number: int) -> None:
        """Interrupt for a queue whether or not anything was used, and whatever the driver wants."""
        self.device.call(number)


class Game:
    """One game with one driver. The methods are called by the sitting; all have a default that does nothing special.

    `progress` is what has come of it so far, a number that grows; the game is over when it is `enough`. `aim` says in
    words what is counted, as "buffers were made available".
    """

    kind: ClassVar[GameKind]
    aim: ClassVar[str] = "buffers were given back"
    enough: ClassVar[int] = 8
    lets_go: ClassVar[bool] = False
    """Whether the driver may give the device up in this game."""
    stirs: ClassVar[bool] = True
    """Whether a driver that only answers is asked for things meanwhile, as `vdev.check.driver.stir` has it."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.acted = 0
        """How often the device did what this game is about."""
        self.refused = ""
        """Why the driver does not use the device, empty while it does."""
        self.passed_over = False
        """Whether the driver found that there is no device."""
        self.finding: Judgement | None = None
        """What the game has found, which ends it."""
        self._used_before = stage.picture.used_count

    @property
    def statement(self) -> str:
        """The statement that a driver breaks who does not live through this: the first that is about this format."""
        other = "packed." if self.stage.variant == "split" else "split."
        return next(each for each in (*self.kind.covers, LIVES_ON) if not each.startswith(other))

    @classmethod
    def offers(cls, offered: int) -> int:
        """Return which of the features that the device has are offered to the driver."""
        return offered

    @classmethod
    def answers(cls, offset: int, value: int, read_count: int) -> int:
        """Return what the driver gets when it reads a register with `value` for the `read_count`th time."""
        return value

    def refuses_features(self) -> bool:
        """Say whether the device refuses the features with which the driver now sets FEATURES_OK."""
        return False

    def fail(self, statement: str, *, expected: str, observed: str) -> None:
        """Have the game end with a breach of one of its statements; the first one counts."""
        if self.finding is None:
            self.finding = Failed(statement, expected=expected, observed=observed)

    @property
    def progress(self) -> int:
        """How far the game is."""
        return self.stage.picture.used_count - self._used_before

    @property
    def is_over(self) -> bool:
        """Whether everything that this game wants to see has been seen."""
        return self.progress >= self.enough

    def begin(self) -> None:
        """Begin: the driver has started, or another game was over."""

    def see(self, seen: Observation) -> None:
        """Look at what the driver does, before the rules do."""

    def before_config_read(self, offset: int) -> None:
        """The driver is about to read configuration space."""

    def give_back(self, queue: JudgedQueue, spent: Sequence[Spent]) -> None:
        """The device is done with these."""
        queue.release(spent)

    def wants_kicks(self, queue: JudgedQueue) -> bool:
        """Say whether the device asks for notifications now that it has looked at the queue."""
        return True

    def turn(self) -> None:
        """Nothing else happens just now: act."""

    def end(self) -> None:
        """Give everything back that is held, for the next game."""
        for queue in self.stage.queues.values():
            if queue.held:
                queue.release_held()
                self.stage.call_driver(queue.number)

    def overdue(self, patience: float) -> Judgement:
        """Return what is to be said when nothing was seen for `patience` seconds."""
        count, wanted = self.progress, self.enough
        violation = self.stage.device.violation
        if violation is not None:
            return Inconclusive(f"the device needed a reset: {violation.message}")
        if self.refused and (self.acted or count):
            return Failed(
                self.statement,
                expected="the driver to go on: the device did nothing that it must not do",
                observed=f"the driver gave up: {self.refused}",
            )
        if self.refused:
            return Inconclusive(f"the driver does not use the device: {self.refused}")
        if self.acted and count:
            return TargetHung(
                f"the driver went on until the device had done this {self.acted} times, and then did nothing for "
                f"{patience:g} s: {count} of {wanted} {self.aim}"
            )
        return Inconclusive(
            f"the driver did too little: {count} of {wanted} {self.aim} when nothing came for {patience:g} s"
        )


_GameType = TypeVar("_GameType", bound=type[Game])
_games: dict[str, GameKind] = {}


def game(
    name: str,
    *,
    covers: Iterable[str] = (),
    carriers: Iterable[Carrier] = tuple(Carrier),
    types: Iterable[str] | None = None,
    features: Iterable[int] = (),
    needs_start: bool = False,
    per_format: bool = True,
) -> Callable[[_GameType], _GameType]:
    """Register the class below as the game `name`; what the rest says is in `GameKind`.

    Raises ValueError for a name that is taken, an unknown statement, or a class without text.
    """

    def register(cls: _GameType) -> _GameType:
        statements = tuple(covers) or (LIVES_ON,)
        if name in _games:
            raise ValueError(f"there are two games {name}")
        if unknown := [statement for statement in statements if statement not in catalogue()]:
            raise ValueError(f"the game {name} covers {', '.join(unknown)}, which the catalogue does not have")
        summary = " ".join((cls.__doc__ or "").strip().partition("\n\n")[0].split())
        if not summary:
            raise ValueError(f"the game {name} must say what the device does")
        cls.kind = _games[name] = GameKind(
            name=name,
            covers=statements,
            summary=summary,
            make=cls,
            carriers=frozenset(carriers),
            types=None if types is None else frozenset(types),
            features=tuple(features),
            needs_start=needs_start,
            per_format=per_format,
        )
        return cls

    return register


def driver_games() -> dict[str, GameKind]:
    """Return all games that were registered, by name, in the order in which they are played."""
    return dict(_games)
