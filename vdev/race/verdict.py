"""What the lab found: a schedule of acts, what was to be seen at each of them, and the judgement."""

from dataclasses import dataclass, field

from vdev.race.combination import Bound, Combination

__all__ = ["Act", "Finding", "Hint", "Moment", "PageView", "Verdict"]


@dataclass(frozen=True, order=True)
class Act:
    """One step: who acts, and the name of the act ("take", "write", ...), with its page if it has one."""

    actor: str
    name: str
    page: int | None = None

    def __str__(self) -> str:
        return f"{self.actor}: {self.name}" if self.page is None else f"{self.actor}: {self.name} {self.page}"


@dataclass(frozen=True)
class PageView:
    """One page at one moment. `source` and `destination` are versions, 0 for never written.

    `use` is free, held, or used (the guest relies on it). `wanted` is the version that the guest wrote last.
    """

    to_send: bool
    dirty: bool
    source: int
    destination: int
    wanted: int
    use: str


@dataclass(frozen=True)
class Hint:
    """A hint that was collected and not yet given back: its pages, and where it is (collected, queued, popped).

    `collected_at_sync` is how many syncs there had been when the guest collected it.
    """

    pages: tuple[int, ...]
    collected_at_sync: int
    where: str


@dataclass(frozen=True)
class Moment:
    """What is to be seen after an act: every page, the outstanding hints, the id that is shown, the device's state.

    `broken` names the invariants that this act broke.
    """

    act: Act
    pages: tuple[PageView, ...]
    hints: tuple[Hint, ...]
    shown_id: int
    hint_state: str
    sync_count: int
    broken: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """A schedule that ends badly: `lost` pages at the end, or the invariant `broken` by its last act."""

    combination: Combination
    bound: Bound
    moments: tuple[Moment, ...]
    lost: tuple[int, ...] = ()
    broken: str | None = None

    @property
    def acts(self) -> tuple[Act, ...]:
        """The schedule."""
        return tuple(moment.act for moment in self.moments)


@dataclass(frozen=True)
class Verdict:
    """The judgement on one combination within one bound.

    `loss` is a shortest schedule that loses a page, None when there is none. `broken_invariants` has, by name, a
    shortest schedule that breaks it. `complete` says that every state within the bound was seen, or a loss found; it is
    false after a limit and in the random modes. `mode` is exhaustive, random or pct; `schedule_count` counts the runs
    of the latter two.
    """

    combination: Combination
    bound: Bound
    mode: str
    state_count: int
    transition_count: int
    seconds: float
    complete: bool
    loss: Finding | None = None
    broken_invariants: dict[str, Finding] = field(default_factory=dict)
    schedule_count: int = 0
    seed: int | None = None

    @property
    def is_broken(self) -> bool:
        """Whether a page can be lost."""
        return self.loss is not None
