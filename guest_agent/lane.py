"""A small guest whose first vCPU acts as a lane says: the guest's part of a schedule that is made to happen again."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from guest_agent.exits import Exits
from guest_agent.small_guest import GuestShape, SmallGuest
from vdev.errors import VdevError
from vdev.events import SILENT, Emitter
from vdev.memory import GuestMemory

__all__ = ["Lane", "LaneAct", "LaneGuest", "LaneMisfit", "is_lane_state"]

LaneAct = tuple[str, int | None]
"""The name of an act, and its page if it has one."""

_STATE_MAGIC = b"small guest\n"


@dataclass
class Lane:
    """The acts of one vCPU in their order, and how many of them were made."""

    acts: Sequence[LaneAct]
    position: int = 0

    @property
    def next(self) -> LaneAct | None:
        """The next act, None when all were made."""
        return self.acts[self.position] if self.position < len(self.acts) else None


class LaneMisfit(VdevError):
    """The guest cannot do now what its lane says. The message names the act, and what it could do."""


def is_lane_state(state: bytes) -> bool:
    """Say whether these bytes are what `LaneGuest.save` gave."""
    return state.startswith(_STATE_MAGIC)


class LaneGuest:
    """What a vCPU runs: `guest`, an act of `lane` a step. Without a lane it does what its driver wants.

    A second vCPU's acts are made with `act`.
    """

    def __init__(self, guest: SmallGuest, lane: Lane | None) -> None:
        self.guest = guest
        self._lane = lane
        self._act_count = 0

    @classmethod
    def boot(
        cls,
        memory: GuestMemory,
        exits: Exits,
        config: Mapping[str, Any],
        lane: Lane,
        events: Emitter = SILENT,
    ) -> "LaneGuest":
        """Boot with `config`: "base", where the balloon's registers are, and "shape", the fields of a GuestShape."""
        return cls(SmallGuest.boot(memory, exits, config["base"], GuestShape(**config["shape"]), events), lane)

    @classmethod
    def restore(cls, memory: GuestMemory, exits: Exits, state: bytes, events: Emitter = SILENT) -> "LaneGuest":
        """Go on where `save` was called, without a lane."""
        return cls(SmallGuest.restore(memory, exits, state.removeprefix(_STATE_MAGIC), events), None)

    @property
    def has_more(self) -> bool:
        """Whether the lane has acts that were not made."""
        return self._lane is not None and self._lane.next is not None

    def step(self, now: float) -> float:
        """Do one act; return 0, or infinity when there is nothing to do."""
        self._act_count += 1
        act = self._free_act() if self._lane is None else self._lane.next
        if act is None:
            return math.inf
        self.act(*act)
        if self._lane is not None:
            self._lane.position += 1
        return 0.0

    def _free_act(self) -> LaneAct | None:
        name = self.guest.next_act
        return None if name is None else (name, None)

    def act(self, name: str, page: int | None) -> None:
        """Do this act. Raises LaneMisfit if it is not possible now."""
        possible = self.guest.acts()
        if (name, page) not in possible:
            words = ", ".join(_in_words(*each) for each in possible)
            raise LaneMisfit(f"the guest cannot {_in_words(name, page)} now; it can {words or 'do nothing'}")
        self.guest.do(name, page)

    def handle_interrupt(self) -> None:
        """Look why the host interrupted."""
        self.guest.handle_interrupt()

    def save(self) -> bytes:
        """Return the vCPU state."""
        return _STATE_MAGIC + self.guest.save()

    def verify_json(self) -> dict[str, Any]:
        """Check every page that the guest relies on; return the verdict.

        It has the names of `guest_agent.verdict.Verdict`, and `stale`: page, version found and version wanted of each.
        """
        guest = self.guest
        stale = [[page, guest.version(page), guest.wanted[page]] for page in guest.verify()]
        return {
            "pages": sum(guest.use(page) == "used" for page in range(guest.shape.pages)),
            "mismatched": len(stale),
            "first_bad": [f"page {page}: version {found} instead of {wanted}" for page, found, wanted in stale],
            "resumed_operations": self._act_count if self._lane is None else 0,
            "operation_count": self._act_count,
            "digest_ok": True,
            "stale": stale,
        }


def _in_words(name: str, page: int | None) -> str:
    return name if page is None else f"{name} {page}"
