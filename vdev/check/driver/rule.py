"""The rules that a driver is held against. A rule is a class with `@rule` before it; its first line of text says what
it shows.

A rule is fed with observations, through its methods that have `@sees` before them. It ends at the first breach.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn, TypeVar

from spec.statements import catalogue
from vdev.check.driver.observation import Observation
from vdev.check.driver.picture import Picture
from vdev.check.evidence import Shown
from vdev.check.registry import RingFormat
from vdev.check.verdict import Failed, TargetHung
from vdev.devices.kind import Carrier

__all__ = ["Rule", "RuleKind", "driver_rules", "rule", "sees"]


@dataclass(frozen=True, slots=True)
class RuleKind:
    """What is known of a rule before it is applied.

    `covers` are the ids of the statements that it shows kept or broken. It says something only of drivers behind one of
    `carriers`, of devices of one of `types` (None for all), of queues of one of `formats` (none: it has nothing to do
    with them), where all of `features` were agreed (bit numbers). `awaits` says what the driver must do before it
    shows anything, as "made a buffer available".
    """

    name: str
    covers: tuple[str, ...]
    summary: str
    awaits: str
    make: "type[Rule]"
    carriers: frozenset[Carrier]
    types: frozenset[str] | None
    formats: tuple[RingFormat, ...]
    features: tuple[int, ...]


class Rule:
    """One rule, applied to one start of a driver. `picture` is what was known before the observation that comes in."""

    kind: ClassVar[RuleKind]
    handlers: ClassVar[dict[type[Observation], Callable[[Any, Any], None]]]

    def __init__(self, picture: Picture) -> None:
        self.picture = picture
        self.is_exercised = False
        """Whether what the rule is about was seen."""

    def expect(self, is_so: bool, statement: str, *, expected: str, observed: str, shown: Sequence[Shown] = ()) -> None:
        """Hold what was seen against a statement. Raises Failed if it is not so."""
        self.is_exercised = True
        if not is_so:
            raise Failed(statement, expected=expected, observed=observed, shown=tuple(shown))

    def hung(self, why: str) -> NoReturn:
        """Say that the driver did not do what it had to do within the judge's patience. Raises TargetHung."""
        self.is_exercised = True
        raise TargetHung(why)


_SeenBy = TypeVar("_SeenBy", bound=Callable[[Any, Any], None])
_RuleType = TypeVar("_RuleType", bound=type[Rule])


def sees(*kinds: type[Observation]) -> Callable[[_SeenBy], _SeenBy]:
    """Have the method below called for each observation of one of these types."""

    def mark(method: _SeenBy) -> _SeenBy:
        method.__dict__["sees"] = kinds
        return method

    return mark


_rules: dict[str, RuleKind] = {}


def rule(
    name: str,
    *,
    covers: Iterable[str],
    awaits: str,
    carriers: Iterable[Carrier] = tuple(Carrier),
    types: Iterable[str] | None = None,
    formats: tuple[RingFormat, ...] = (),
    features: Iterable[int] = (),
) -> Callable[[_RuleType], _RuleType]:
    """Register the class below as the rule `name`, "subject.what-is-shown"; what the rest says is in `RuleKind`.

    Raises ValueError for a name that is taken, an unknown statement, or a class without text.
    """

    def register(cls: _RuleType) -> _RuleType:
        statements = tuple(covers)
        if name in _rules:
            raise ValueError(f"there are two rules {name}")
        if unknown := [statement for statement in statements if statement not in catalogue()]:
            raise ValueError(f"the rule {name} covers {', '.join(unknown)}, which the catalogue does not have")
        summary = (cls.__doc__ or "").strip().partition("\n\n")[0].replace("\n", " ")
        if not summary or not statements:
            raise ValueError(f"the rule {name} must say what it shows, and of which statements")
        cls.handlers = {
            seen: method
            for base in reversed(cls.__mro__)
            for method in vars(base).values()
            for seen in getattr(method, "sees", ())
        }
        cls.kind = _rules[name] = RuleKind(
            name=name,
            covers=statements,
            summary=" ".join(summary.split()),
            awaits=awaits,
            make=cls,
            carriers=frozenset(carriers),
            types=None if types is None else frozenset(types),
            formats=formats,
            features=tuple(features),
        )
        return cls

    return register


def driver_rules() -> dict[str, RuleKind]:
    """Return all rules that were registered, by name."""
    return dict(_rules)
