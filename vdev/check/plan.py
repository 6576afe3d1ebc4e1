"""Which cases are done, and why others are not: the checks by the ring formats, as far as the target goes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from spec.balloon import BalloonFeature
from spec.block import BlockFeature
from spec.device import Feature, feature_mask, feature_names
from spec.statements import catalogue
from spec.vhost_user import ProtocolFeature
from vdev.check.registry import Check, RingFormat
from vdev.check.selection import is_named, refuse_unknown
from vdev.check.target_probe import Offer
from vdev.devices.kind import Carrier

__all__ = ["Case", "TYPE_FEATURES", "Wanted", "plan"]

TYPE_FEATURES: Mapping[str, tuple[IntEnum, ...]] = {"balloon": tuple(BalloonFeature), "block": tuple(BlockFeature)}
"""Feature bits of the device types that have some of their own, for those who name them."""


@dataclass(frozen=True, slots=True)
class Case:
    """A check in one variant. `not_applicable` says why it cannot be done, empty if it can."""

    check: Check
    variant: str
    format: RingFormat
    not_applicable: str = ""

    @property
    def name(self) -> str:
        """What a person types after --only."""
        return f"{self.check.name}[{self.variant}]" if self.variant else self.check.name

    @property
    def covers(self) -> tuple[str, ...]:
        """Its check's statements without those of the other ring format."""
        if not self.variant:
            return self.check.covers
        other = RingFormat.PACKED if self.format is RingFormat.SPLIT else RingFormat.SPLIT
        return tuple(statement for statement in self.check.covers if not statement.startswith(f"{other.value}."))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of all that there is: patterns (`vdev.check.selection`) to do and to leave out, and the ring formats.

    `may_write` allows what overwrites the user's data.
    """

    only: Sequence[str] = ()
    skip: Sequence[str] = ()
    formats: Sequence[RingFormat] = tuple(RingFormat)
    may_write: bool = False


def plan(
    checks: Iterable[Check], type_name: str, *, carrier: Carrier, offer: Offer, wanted: Wanted | None = None
) -> list[Case]:
    """Return the cases in the order in which they are done: the catalogue's, hostile input last.

    Raises UserError for a pattern that names nothing.
    """
    wanted = wanted or Wanted()
    cases = [
        Case(check, variant, ring_format, _obstacle(check, ring_format, type_name, carrier, offer, wanted.may_write))
        for check in checks
        for variant, ring_format in _variants(check)
        if ring_format in wanted.formats or not variant
    ]
    names = list({name: None for case in cases for name in (case.check.name, case.name, *case.covers)})
    refuse_unknown("--only", wanted.only, names)
    refuse_unknown("--skip", wanted.skip, names)
    rank = {statement: number for number, statement in enumerate(catalogue())}

    def place(case: Case) -> tuple[bool, int]:
        return case.check.hostile, min((rank[statement] for statement in case.covers), default=len(rank))

    return sorted((case for case in cases if _is_chosen(case, wanted)), key=place)


def _is_chosen(case: Case, wanted: Wanted) -> bool:
    def named(patterns: Sequence[str]) -> bool:
        return is_named(patterns, check=case.check.name, case=case.name, covers=case.covers)

    return (not wanted.only or named(wanted.only)) and not named(wanted.skip)


def _variants(check: Check) -> list[tuple[str, RingFormat]]:
    if not check.formats:
        return [("", RingFormat.SPLIT)]
    return [(ring_format.value, ring_format) for ring_format in check.formats]


def _obstacle(
    check: Check, ring_format: RingFormat, type_name: str, carrier: Carrier, offer: Offer, may_write: bool
) -> str:
    """Return why the case cannot be done, one line, or nothing."""
    if check.types is not None and type_name not in check.types:
        return f"for {_listed(sorted(check.types))} devices, and the type is {type_name}"
    if carrier not in check.carriers:
        return f"behind {_listed(sorted(each.value for each in check.carriers))} only"
    needed = list(check.features)
    if ring_format is RingFormat.PACKED and check.formats:
        needed.append(Feature.RING_PACKED)
    if absent := [bit for bit in needed if not offer.has(bit)]:
        names = feature_names(feature_mask(*absent), TYPE_FEATURES.get(type_name, ()))
        return f"the target does not offer {_listed(names)}"
    if carrier is Carrier.VHOST_USER:
        offered = offer.protocol_features or 0
        if absent := [bit for bit in check.protocol_features if not offered >> bit & 1]:
            names = [ProtocolFeature(bit).name for bit in absent]
            return f"the target does not offer the protocol feature {_listed(names)}"
    if check.writes and not may_write:
        return "it overwrites data; allow it with --may-write"
    return ""


def _listed(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
