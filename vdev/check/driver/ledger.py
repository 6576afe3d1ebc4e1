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

    A rule that was broken has a result for each game in which that was found; one that never was has a single result.
    `repeat` turns a case's name into the command that does just it again.
    """

    def __init__(self, device_type: str, carrier: Carrier, repeat: Callable[[str], str]) -> None:
        self.device_type = device_type
        self.carrier = carrier
        self.seen = Conditions()
        self._repeat = repeat
        self._games: list[CaseResult] = []
        self._breaches: dict[str, list[CaseResult]] = {}
        self._exercised: Counter[str] = Counter()

    def note_breach(self, kind: RuleKind, variant: str, judgement: Judgement, evidence: Evidence) -> None:
        """Take note of what ended a rule early."""
        self._breaches.setdefault(kind.name, []).append(self._result(kind, variant, judgement, evidence, 0.0))

    def note_rule(self, rule: Rule) -> None:
        """Take note, at the end of a start, of a rule that was not broken."""
        self._exercised[rule.kind.name] += rule.is_exercised

    def note_game(
        self, kind: GameKind, variant: str, judgement: Judgement | None, evidence: Evidence, seconds: float
    ) -> None:
        """Take note of how a game ended; None if the driver lived through it."""
        self._games.append(self._result(kind, variant, judgement, evidence, seconds))

    def is_noted(self, kind: GameKind) -> bool:
        """Say whether a game has a result."""
        return any(case.check == f"game.{kind.name}" for case in self._games)

    def _result(
        self, kind: RuleKind | GameKind, variant: str, judgement: Judgement | None, evidence: Evidence, seconds: float
    ) -> CaseResult:
        name = kind.name if isinstance(kind, RuleKind) else f"game.{kind.name}"
        return CaseResult(
            check=name,
            variant=variant,
            summary=kind.summary,
            covers=kind.covers,
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
