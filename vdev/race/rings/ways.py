"""The scenarios that are looked at when nobody asks for certain ones: every way in which the two sides use a ring."""

from itertools import product
from typing import Any

from vdev.race.rings.scenario import RingScenario

__all__ = ["default_scenarios"]

_SIDES = ({"driver": "sleeping", "device": "notify"}, {"driver": "armed", "device": "until-empty"})
_SHAPES: tuple[dict[str, Any], ...] = (
    {},
    {"buffers": 3},
    {"batches": True},
    {"segments": 2},
    {"segments": 2, "indirect": True},
    {"in_order": True},
    {"in_order": True, "batches": True},
)


def default_scenarios(ring: str, *, large: bool = False) -> list[RingScenario]:
    """Return the scenarios of the format `ring`, small enough to be searched; or `large`, to be sampled."""
    scenarios: list[RingScenario] = []
    for event_idx, sides, shape in product((True, False), _SIDES, _SHAPES):
        values = shape | ({"size": 8, "buffers": 16} if large else {})
        scenario = RingScenario(format=ring, event_idx=event_idx, **sides, **values)
        if scenario not in scenarios:
            scenarios.append(scenario)
    return scenarios
