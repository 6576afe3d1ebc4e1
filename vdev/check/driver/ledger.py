"""What came of all starts of a driver: which rules were broken, which were kept, and how the games ended."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from spec.device import feature_mask, feature_names
from vdev.check.driver.game import GameKind
from vdev.check.driver.rule import Rule, RuleKind
from vdev.check.evidence import Evidence
from vdev.check.registry import RingFormat
from vdev.check.result import CaseResult
from vdev.check.verdict import Failed, Inconclusive, Judgement, NotApplicable, Verdict
from vdev.devices.kind import Carrier

__all__ = ["Conditions", "Ledger"]


@dataclass
class Conditions:
    """Under which conditions the driver was seen: ring formats, and the masks of features that were agreed."""

    formats: set[RingFormat] = field(default_factory=set)
    agreements: set[int] = field(default_factory=set)


class Ledger:
    """The results of one run about one driver, behind one carrier, of one type of device.

    A rule that was broken has a result for each way in which that was found, with the first game in which it was; one
    that never was has a single result.
    `repeat` turns a case's name into the command that does just it again.
    """

    def __init__(self, device_type: str, carrier: Carrier, repeat: Callable[[str], str]) -> None:
        self.device_type = device_type
        self.carrier = carrier
        self.seen = Conditions()
        self.on_game: Callable[[CaseResult], None] = lambda _: None
        """Told of each game's result as it comes."""
        self._repeat = repeat
        self._games: list[CaseResult] = []
        self._breaches: dict[str, list[CaseResult]] = {}
        self._exercised: Counter[str] = Counter()

    def note_breach(self, kind: RuleKind, variant: str, judgement: Judgement, evidence: Evidence) -> None:
        """Take note of what ended a rule early. What was found in the same words before is not noted again."""
        known = self._breaches.setdefault(kind.name, [])
        if all(case.why != str(judgement) for case in known):
            known.append(self._result(kind, variant, judgement, evidence, 0.0))

    def note_rule(self, rule: Rule) -> None:
        """Take note, at the end of a start, of a rule that was not broken."""
        self._exercised[rule.kind.name] += rule.is_exercised

    def note_game(
        self, kind: GameKind, variant: str, judgement: Judgement | None, evidence: Evidence, seconds: float
    ) -> None:
        """Take note of how a game ended; None if the driver lived through it."""
        self._games.append(self._result(kind, variant, judgement, evidence, seconds))
        self.on_game(self._games[-1])

    def note_unplayed(self, kind: GameKind, variant: str, why: str) -> None:
        """Take note of a game that is not played, and why its condition is not met."""
        self.note_game(kind, variant, NotApplicable(why), Evidence(), 0.0)

    def _result(
        self, kind: RuleKind | GameKind, variant: str, judgement: Judgement | None, evidence: Evidence, seconds: float
    ) -> CaseResult:
        name = kind.name if isinstance(kind, RuleKind) else f"game.{kind.name}"
        return CaseResult(
            check=name,
            variant=variant,
            summary=kind.summary,
            covers=_of_format(kind.covers, variant.rpartition("/")[2]),
            verdict=judgement.verdict if judgement is not None else Verdict.PASS,
            statement=judgement.statement if isinstance(judgement, Failed) else None,
            why=str(judgement) if judgement is not None else "",
            evidence=evidence,
            seconds=seconds,
            repeat=self._repeat(f"{name}[{variant}]" if variant else name),
        )

    def cases(self, rules: Iterable[RuleKind]) -> tuple[CaseResult, ...]:
        """Return all results: of these rules, then of the games."""
        found: list[CaseResult] = []
        for kind in rules:
            if kind.name in self._breaches:
                found.extend(self._breaches[kind.name])
            else:
                found.append(self._result(kind, "", self._unbroken(kind), Evidence(), 0.0))
        return (*found, *self._games)

    def _unbroken(self, kind: RuleKind) -> Judgement | None:
        if self._exercised[kind.name]:
            return None
        if self.carrier not in kind.carriers:
            return NotApplicable(f"it is not seen over {self.carrier.value}")
        if kind.types is not None and self.device_type not in kind.types:
            return NotApplicable(f"the device is of type {self.device_type}")
        wanted = feature_mask(*kind.features)
        if wanted and not any(wanted & ~agreed == 0 for agreed in self.seen.agreements):
            return NotApplicable(f"{', '.join(feature_names(wanted))} was not agreed")
        if kind.formats and not self.seen.formats.intersection(kind.formats):
            return NotApplicable(f"no queue was {' or '.join(each.value for each in kind.formats)}")
        return Inconclusive(f"the driver never {kind.awaits}")


def _of_format(covers: tuple[str, ...], ring_format: str) -> tuple[str, ...]:
    """Return those statements that say something about rings of a format, or about none."""
    others = [f"{each.value}." for each in RingFormat if each.value != ring_format]
    if len(others) == len(RingFormat):
        return covers
    return tuple(each for each in covers if not each.startswith(tuple(others)))
