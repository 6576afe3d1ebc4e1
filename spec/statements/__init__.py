"""Every normative statement that vdev judges by, in this project's own words, with an id that stays.

The statements are data, one TOML file for each chapter beside this file. `catalogue()` reads them all.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

__all__ = ["LEVELS", "SIDES", "Catalogue", "Statement", "catalogue"]

SIDES = ("device", "driver", "back-end", "front-end", "text", "legacy")
"""Who must obey: a side of virtio, an end of vhost-user, both sides (text), or whoever offers the legacy interface."""

LEVELS = ("MUST", "MUST NOT", "SHOULD", "SHOULD NOT", "MAY", "MAY NOT")


@dataclass(frozen=True, slots=True)
class Statement:
    """One normative statement.

    `source` is the file and line of the text's own source where it stands, several with a space between; `when` the
    feature or condition under which it holds, empty for always. Exactly one of the following is true: a check covers
    it; `unchecked` says why none is possible from outside; `missing` says why one that is possible is not there.
    """

    id: str
    section: str
    source: str
    side: str
    level: str
    text: str
    when: str = ""
    unchecked: str = ""
    missing: str = ""

    @property
    def is_absolute(self) -> bool:
        """Whether it is a MUST or MUST NOT."""
        return self.level.startswith("MUST")


Catalogue = Mapping[str, Statement]


@cache
def catalogue() -> Catalogue:
    """Return all statements by id, in the order of their chapters. Raises ValueError for an id that stands twice."""
    found: dict[str, Statement] = {}
    for name in _CHAPTERS:
        for entry in tomllib.loads((files(__name__) / f"{name}.toml").read_text(encoding="utf-8"))["statement"]:
            statement = Statement(**entry)
            if statement.id in found:
                raise ValueError(f"the statement {statement.id} stands twice")
            found[statement.id] = statement
    return found


_CHAPTERS = (
    "basic",
    "split_ring",
    "packed_ring",
    "rings_described",
    "mmio",
    "session_described",
    "entropy",
    "balloon",
    "block",
    "types_described",
    "drivers_described",
    "vhost_user",
    "errata",
)
