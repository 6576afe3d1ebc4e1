"""Verdicts and findings as JSON-ready mappings, and back."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from vdev.errors import UserError
from vdev.race.acts import parse_act
from vdev.race.combination import Bound, Combination
from vdev.race.turns import letters_of, turns_of
from vdev.race.verdict import Finding, Hint, Moment, PageView, Verdict

__all__ = ["SCHEMA", "finding_from_json", "finding_to_json", "verdict_from_json", "verdict_to_json"]

SCHEMA = 1
"""Goes up when a key changes its meaning or goes away."""


def verdict_to_json(verdict: Verdict, *, timing: bool = True) -> dict[str, Any]:
    """Return the whole verdict. Without `timing` equal searches give equal mappings."""
    mapping: dict[str, Any] = {
        "schema": SCHEMA,
        "broken": verdict.is_broken,
        "combination": verdict.combination.to_json(),
        "bound": verdict.bound.to_json(),
        "mode": verdict.mode,
        "seed": verdict.seed,
        "complete": verdict.complete,
        "state_count": verdict.state_count,
        "transition_count": verdict.transition_count,
        "schedule_count": verdict.schedule_count,
        "loss": None if verdict.loss is None else finding_to_json(verdict.loss),
        "broken_invariants": {
            name: finding_to_json(found) for name, found in sorted(verdict.broken_invariants.items())
        },
    }
    return mapping | {"seconds": verdict.seconds} if timing else mapping


def verdict_from_json(mapping: Mapping[str, Any]) -> Verdict:
    """Return the verdict that verdict_to_json() wrote. Raises ValueError for a mapping that is none."""
    try:
        if mapping["schema"] != SCHEMA:
            raise ValueError(f"schema {mapping['schema']!r}, not {SCHEMA}")
        combination, bound = Combination(**mapping["combination"]), Bound(**mapping["bound"])
        loss = mapping["loss"]
        return Verdict(
            combination,
            bound,
            mapping["mode"],
            mapping["state_count"],
            mapping["transition_count"],
            mapping.get("seconds", 0.0),
            mapping["complete"],
            None if loss is None else finding_from_json(loss, combination, bound),
            {
                name: finding_from_json(found, combination, bound)
                for name, found in mapping["broken_invariants"].items()
            },
            mapping["schedule_count"],
            mapping["seed"],
        )
    except (KeyError, TypeError, AttributeError, UserError) as error:
        raise ValueError(f"no verdict: {error}") from error


def finding_to_json(finding: Finding) -> dict[str, Any]:
    """Return the finding without combination and bound, which its verdict has.

    Each moment has the letter that the story tells it by, null for what the story tells at its end.
    """
    letters = letters_of(turns_of(finding))
    return {
        "lost": list(finding.lost),
        "breaks": finding.broken,
        "moments": [_moment(moment, letter) for moment, letter in zip(finding.moments, letters, strict=True)],
    }


def _moment(moment: Moment, letter: str | None) -> dict[str, Any]:
    return {"letter": letter, **asdict(moment), "act": str(moment.act)}


def finding_from_json(mapping: Mapping[str, Any], combination: Combination, bound: Bound) -> Finding:
    """Return the finding that finding_to_json() wrote. Raises KeyError, TypeError or ValueError for anything else."""
    moments = tuple(
        Moment(
            parse_act(moment["act"]),
            tuple(PageView(**page) for page in moment["pages"]),
            tuple(Hint(tuple(hint["pages"]), hint["collected_at_sync"], hint["where"]) for hint in moment["hints"]),
            moment["shown_id"],
            moment["hint_state"],
            moment["sync_count"],
            tuple(moment["broken"]),
        )
        for moment in mapping["moments"]
    )
    return Finding(combination, bound, moments, tuple(mapping["lost"]), mapping["breaks"])
