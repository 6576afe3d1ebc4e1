"""What the naive model of the lab's protocol looks at: a combination, and all that the actors know."""

from typing import NamedTuple

FREE, HELD, LOOSE, USED = range(4)  # LOOSE: held, but memory pressure may take it back
NEW, WAITING, RUNNING, STOPPED, COMPLETE = range(5)
STOP, REQUESTED, START = range(3)


class Case(NamedTuple):
    """One combination of the dimensions, and the bound of the search."""

    strategy: str
    answer: str = "list"
    holds: str = "until-queued"
    log: str = "get-and-clear"
    collects: str = "after-announcing"
    start_buffer: str = "fresh"
    vcpus: int = 1
    effect: str = "skip"
    advance: str = "after-sync"
    pages: int = 1
    writes: int = 2
    hints: int = 2
    syncs: int = 3


class State(NamedTuple):
    """Everything that any actor's next act can depend on."""

    # the guest's pages
    kinds: tuple[int, ...]
    written: tuple[int, ...]  # the version that the guest wrote last
    source: tuple[int, ...]
    destination: tuple[int, ...]
    writes: int = 0
    hints: int = 0
    # the driver
    interrupt: bool = False
    requested: int = 0  # bitmap: the id of the last request
    current: int = 0  # the id that was looked at last; 0: none, STOP
    announced: int = 0
    answering: bool = False  # between `announce` and `end`
    dry: bool = False  # the last `collect` found nothing
    had_hint: bool = False  # in the last answer, or in this one
    walked: int = 0  # pages that this answer cannot collect again
    hand: int | None = None  # collected, not queued
    # between guest and host
    queue: tuple[tuple[str, int], ...] = ()
    field: int = 0  # the shared start buffer
    kicked: bool = False
    used: tuple[tuple[str, int], ...] = ()
    # the handler
    popped: tuple[tuple[str, int], ...] = ()
    pieces: tuple[str, ...] = ()
    state: int = STOP
    asked: int = 0
    has_buffer: bool = True  # bitmap: the one for the next request
    is_due: bool = False  # bitmap: the request waits for its buffer
    # the migrator
    phase: int = NEW
    syncs: int = 0
    advanced: bool = False
    left: int = 0  # M
    dirty: int = 0  # D
    to_clear: int = 0  # deferred log: what the last sync saw and nobody cleared since
    cursor: int = 0
    taken: int = -1


def first(case: Case) -> State:
    """All pages are free; the migration has not begun."""
    nothing = (0,) * case.pages
    return State(kinds=(FREE,) * case.pages, written=nothing, source=nothing, destination=(-1,) * case.pages)


def put(old: tuple[int, ...], mask: int, value: int) -> tuple[int, ...]:
    """The same tuple with `value` at all pages of the set."""
    return tuple(value if mask >> page & 1 else item for page, item in enumerate(old))
