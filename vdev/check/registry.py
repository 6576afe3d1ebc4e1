"""The checks that there are. A check is a function with `@check` before it; its first line of text says what it shows.

A check of a device is called with a `vdev.check.bench.bench.Bench` and works with the device through it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from spec.statements import catalogue
from vdev.devices.kind import Carrier

if TYPE_CHECKING:
    from vdev.check.bench.bench import Bench

__all__ = ["ANY_FORMAT", "BOTH", "Check", "RingFormat", "check", "device_checks"]


class RingFormat(Enum):
    """The two forms that a virtqueue has."""

    SPLIT = "split"
    PACKED = "packed"


BOTH = (RingFormat.SPLIT, RingFormat.PACKED)
"""Formats of a check that is done once for each."""

ANY_FORMAT = ()
"""Formats of a check that has nothing to do with them: it is done once, with whichever the device offers."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a device.

    `covers` are the ids of the statements that it shows kept or broken. It is done for each of `formats`, if the
    device has one of `types` (None for all), behind one of `carriers`, and offers all of `features` and
    `protocol_features` (bit numbers). A `hostile` one sends what a device may refuse, and is followed by a look whether
    the device is alive and touched nothing else. One that `writes` overwrites data that is the user's.
    """

    name: str
    covers: tuple[str, ...]
    summary: str
    run: "Callable[[Bench], None]"
    formats: tuple[RingFormat, ...]
    carriers: frozenset[Carrier]
    types: frozenset[str] | None
    features: tuple[int, ...]
    protocol_features: tuple[int, ...]
    hostile: bool
    writes: bool


_checks: dict[str, Check] = {}


def check(
    name: str,
    *,
    covers: Iterable[str],
    formats: tuple[RingFormat, ...] = ANY_FORMAT,
    carriers: Iterable[Carrier] = tuple(Carrier),
    types: Iterable[str] | None = None,
    features: Iterable[int] = (),
    protocol_features: Iterable[int] = (),
    hostile: bool = False,
    writes: bool = False,
) -> "Callable[[Callable[[Bench], None]], Callable[[Bench], None]]":
    """Register the function below as the check `name`, "subject.what-is-shown"; what the rest says is in `Check`.

    Raises ValueError for a name that is taken, an unknown statement, or a function without text.
    """

    def register(function: "Callable[[Bench], None]") -> "Callable[[Bench], None]":
        statements = tuple(covers)
        if name in _checks:
            raise ValueError(f"there are two checks {name}")
        if unknown := [statement for statement in statements if statement not in catalogue()]:
            raise ValueError(f"the check {name} covers {', '.join(unknown)}, which the catalogue does not have")
        summary = (function.__doc__ or "").strip().partition("\n")[0]
        if not summary or not statements:
            raise ValueError(f"the check {name} must say what it shows, and of which statements")
        _checks[name] = Check(
            name=name,
            covers=statements,
            summary=summary,
            run=function,
            formats=formats,
            carriers=frozenset(carriers),
            types=None if types is None else frozenset(types),
            features=tuple(features),
            protocol_features=tuple(protocol_features),
            hostile=hostile,
            writes=writes,
        )
        return function

    return register


def device_checks() -> dict[str, Check]:
    """Return all checks of devices that were registered, by name."""
    return dict(_checks)
