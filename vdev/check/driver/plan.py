"""Which games are played in which start of the driver."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from spec.device import Feature, feature_mask
from vdev.check.driver.game import GameKind, driver_games
from vdev.check.driver.games import load_games
from vdev.check.driver.rule import RuleKind, driver_rules
from vdev.check.driver.rules import load_rules
from vdev.check.registry import RingFormat
from vdev.devices.kind import Carrier
from vdev.errors import UserError

__all__ = ["Plan", "Start", "plan_starts"]

_PACKED = feature_mask(Feature.RING_PACKED)


@dataclass(frozen=True, slots=True)
class Start:
    """One start of the driver: the games, and a mask of what is offered at most. `variant` names the ring format."""

    variant: str
    offered: int
    games: tuple[GameKind, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """All starts, and the rules that are applied in each."""

    starts: tuple[Start, ...]
    rules: tuple[RuleKind, ...]


def plan_starts(
    device_type: str,
    carrier: Carrier,
    *,
    offered: int = -1,
    only: Iterable[str] = (),
) -> Plan:
    """Return what is done with a driver. `offered` is a mask of what it is offered at most.

    `only` are names of rules and games as they stand in a report ("game.late", "game.late[packed]", "status.steps"),
    with `*` for any letters; a rule is then applied in all games, or in the one that its brackets name. Nothing: all.

    Raises UserError for a name that fits nothing.
    """
    load_rules()
    load_games()
    wanted = tuple(only)
    formats = [each for each in RingFormat if each is RingFormat.SPLIT or offered & _PACKED]
    in_common: dict[RingFormat, list[GameKind]] = {each: [] for each in formats}
    alone: list[Start] = []
    fits = _fits(wanted)
    for kind in driver_games().values():
        if carrier not in kind.carriers or (kind.types is not None and device_type not in kind.types):
            continue
        for ring_format in formats if kind.per_format else formats[-1:]:
            mask = offered if ring_format is RingFormat.PACKED else offered & ~_PACKED
            if not fits(f"game.{kind.name}", ring_format.value):
                continue
            if kind.needs_start:
                alone.append(Start(ring_format.value, mask, (kind,)))
            else:
                in_common[ring_format].append(kind)
    rules = tuple(
        kind for kind in driver_rules().values() if not wanted or any(_fits_rule(kind.name, each) for each in wanted)
    )
    together = [
        Start(ring_format.value, offered if ring_format is RingFormat.PACKED else offered & ~_PACKED, tuple(games))
        for ring_format, games in in_common.items()
        if games
    ]
    starts = (*together, *alone)
    if wanted and not starts and not rules:
        raise UserError(f"no rule and no game is called {', '.join(wanted)}; --list names them")
    return Plan(starts, rules)


def _fits_rule(name: str, wanted: str) -> bool:
    return fnmatchcase(name, wanted.partition("[")[0])


def _fits(wanted: tuple[str, ...]) -> Callable[[str, str], bool]:
    """Return what says whether a game, in a format, is to be played."""
    games = [each.partition("[") for each in wanted]

    def fits(name: str, variant: str) -> bool:
        if not wanted:
            return True
        for pattern, _, brackets in games:
            inside = brackets.removesuffix("]")
            if pattern.startswith("game."):
                if fnmatchcase(name, pattern) and (not inside or fnmatchcase(variant, inside)):
                    return True
            elif not inside or fnmatchcase(f"{name.removeprefix('game.')}/{variant}", inside):
                return True
        return False

    return fits
