"""What acts touch, as sets of bits: two acts that touch nothing in common can change places.

Each act has what it reads and what it writes. What it reads is also what makes it possible, and how it is judged. The
sets are for the moment: an act that takes the last write of the bound is in the way of other writes, one before is not.
Where it is not worth while to be exact, an act touches more than it must.
"""

from typing import TYPE_CHECKING

from host_migrator.strategies import Refresh
from host_migrator.strategies.asking import Asking
from vdev.race.verdict import Act

if TYPE_CHECKING:
    from vdev.race.world import World

__all__ = ["Footprints"]

_ALL = -1
_EXIT, _QUEUE, _DRIVER, _HANDLER, _CONFIG, _PASS, _SYNCS, _WRITES, _HINTS, _RUN = (1 << bit for bit in range(10))
"""Exit under way; ring and kicks; the driver; the handler; id, state and interrupts; the migrator's own; count of
syncs; writes and hints left; whether vCPUs run."""
_PAGE_BITS = 10

_DRIVER_ACTS = frozenset({"look", "reap", "announce", "collect", "queue", "end"})
_NOTHING = (0, 0)


class Footprints:
    """Says which acts of `world` are independent, as it stands."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._page_count = world.bound.pages
        combination = world.combination
        everything = (1 << self._page_count) - 1
        to_send, dirty, content, arrived, use = (
            everything << (_PAGE_BITS + self._page_count * kind) for kind in range(5)
        )
        self._to_send, self._dirty, self._content, self._arrived, self._use = to_send, dirty, content, arrived, use
        self._one_vcpu = combination.vcpus == "1"
        self._is_deferred = combination.dirty_log == "deferred-clear"
        self._discards = combination.effect == "discard"
        self._refreshes = world.strategy.refresh is not Refresh.NEVER
        self._sync_tells = isinstance(world.strategy, Asking) and world.strategy.asks_again

    def independent(self, one: Act, other: Act) -> bool:
        """Say whether the acts, both possible now, lead to the same in either order, and neither stops the other."""
        reads, writes = self.of(one)
        other_reads, other_writes = self.of(other)
        return not (writes & (other_reads | other_writes) or other_writes & reads)

    def _bits(self, kind: int, pages: list[int]) -> int:
        """Return the bits of some pages in the set `kind` of all pages' bits."""
        low = kind & -kind
        return sum(low << page for page in set(pages))

    def of(self, act: Act) -> tuple[int, int]:
        """Return what `act`, possible now, reads and what it writes, as sets of bits."""
        if act.name == "write" and act.page is not None:
            return self._of_write(act.page)
        if act.name == "free" and act.page is not None:
            use = self._bits(self._use, [act.page])
            return use | _RUN | _HINTS | self._vcpu, use
        if act.name in _DRIVER_ACTS:
            return self._of_driver(act.name)
        if act.actor == "handler":
            return self._of_handler(act.name)
        return self._of_migrator(act)

    @property
    def _vcpu(self) -> int:
        return (_DRIVER | _EXIT) if self._one_vcpu else 0

    def _of_write(self, page: int) -> tuple[int, int]:
        world = self._world
        use = self._bits(self._use, [page])
        stored = self._bits(self._content, [page]) | self._bits(self._dirty, [page])
        if world.guest.use(page) != "used":
            stored |= use
        is_last = world.now.write_count + 1 >= world.bound.writes
        return use | _WRITES | _RUN | self._vcpu, stored | (_WRITES if is_last else 0)

    def _of_driver(self, name: str) -> tuple[int, int]:
        # Whether a refreshed answer is worth while hangs on what is free.
        reads = _RUN | _DRIVER | _EXIT | (self._use if self._refreshes else 0)
        writes = _DRIVER
        match name:
            case "look":
                return reads | _CONFIG, writes | self._use | _CONFIG
            case "reap":
                return reads | _QUEUE, writes | _QUEUE | self._use
            case "collect":
                return reads | self._use | _SYNCS, writes | self._use | _HINTS
        writes |= _QUEUE | self._use
        return reads, writes | (_EXIT if self._world.strategy.needs_exits else 0)

    def _of_handler(self, name: str) -> tuple[int, int]:
        reads = _HANDLER | _RUN | _SYNCS
        match name:
            case "check":
                return reads, _HANDLER
            case "sync":
                return reads, _HANDLER | self._to_send | self._dirty | _SYNCS
            case "return":
                return reads, _HANDLER | _QUEUE | _DRIVER | _EXIT
            case "filter":
                return self._applied(reads, _HANDLER)
            case "pop":
                return reads | _CONFIG, _HANDLER | _QUEUE | _DRIVER | _EXIT | _CONFIG
        return self._applied(reads | _CONFIG, _HANDLER | _QUEUE | _DRIVER | _CONFIG)

    def _applied(self, reads: int, writes: int) -> tuple[int, int]:
        pages = [page for hint in self._world.watch.hints if hint.where != "collected" for page in hint.pages]
        content = self._bits(self._content, pages)
        dirty = self._dirty if self._is_deferred else self._bits(self._dirty, pages)
        writes |= self._bits(self._to_send, pages) | (dirty if self._is_deferred else 0)
        writes |= content if self._discards else 0
        # Whether the source is as it should be hangs on which pages are in use.
        return reads | content | dirty | (self._bits(self._use, pages) if self._discards else 0), writes

    def _of_migrator(self, act: Act) -> tuple[int, int]:
        pages = [] if act.page is None else [act.page]
        match act.name:
            case "take":
                taken = self._bits(self._to_send, pages) | (self._dirty if self._is_deferred else 0)
                return _PASS | _RUN | taken, _PASS | taken
            case "send":
                return _PASS | _RUN | self._bits(self._content, pages), _PASS | self._bits(self._arrived, pages)
            case "sync":
                tells = _CONFIG | _DRIVER | _QUEUE | _HANDLER if self._sync_tells else 0
                writes = _PASS | _SYNCS | self._to_send | self._dirty | tells
                return writes | _RUN, writes
            case "advance":
                writes = _PASS | _CONFIG | _DRIVER
                return writes | _RUN | self._to_send, writes
        return _ALL, _ALL
