"""The pages that are hinted, and how the guest holds them: which are taken, kept, and free to take back when."""

import numpy as np

from guest_agent.drivers.balloon.area import BalloonArea
from guest_agent.drivers.balloon.behaviour import HintBehaviour, HintHolding
from guest_agent.drivers.pages import PageAllocator, Pages
from guest_agent.page_database import Blocks, Owner
from spec.balloon import BalloonFeature
from spec.device import feature_mask
from vdev.memory import PAGE_SIZE

__all__ = ["HINT_OWNERS", "HeldHints"]

HINT_OWNERS = (Owner.HINT_COLLECTED, Owner.HINTED, Owner.HINT_USED)
"""Every owner that a page has on its way through a hint."""

_POISONED = feature_mask(BalloonFeature.PAGE_POISON)
_RECLAIMABLE = {HintHolding.UNTIL_QUEUED: Owner.HINTED, HintHolding.UNTIL_USED: Owner.HINT_USED}


class HeldHints:
    """Who holds what is known to the page database; this object remembers nothing."""

    def __init__(self, area: BalloonArea, allocator: PageAllocator, behaviour: HintBehaviour) -> None:
        self._area = area
        self._memory = area.memory
        self._allocator = allocator
        self._behaviour = behaviour
        self._holds = behaviour.holds is not HintHolding.NOTHING

    def begin(self) -> None:
        """A new answer begins: what is only looked at may be seen again."""
        self._area["hint_cursor"] = 0

    def collect(self, limit: int) -> Pages:
        """Return the heads of free blocks for a list, at most `limit`, none that this answer has seen."""
        order = self._behaviour.order
        if self._holds:
            return self._allocator.take_free_blocks(order, limit, Owner.HINT_COLLECTED)
        heads = self._allocator.find_free_blocks(order, self._area["hint_cursor"], limit)
        if len(heads):
            self._area["hint_cursor"] = int(heads[-1]) + (1 << order)
        return heads

    def collect_all(self) -> Blocks:
        """Return all free blocks for a bitmap; of those that are held only such as a list would have."""
        if not self._holds:
            return self._allocator.blocks_of(Owner.FREE)
        order = self._behaviour.order
        heads = self._allocator.take_free_blocks(order, self._memory.page_count >> order, Owner.HINT_COLLECTED)
        return Blocks(heads, np.full(len(heads), order, np.int64))

    def queued(self, heads: Pages) -> None:
        """These are shown to the device now."""
        if self._holds:
            self._allocator.set_owner(heads, Owner.HINTED)

    def all_queued(self) -> None:
        """All that is collected is shown to the device now."""
        if self._holds:
            self.queued(self._allocator.blocks_of(Owner.HINT_COLLECTED).pages)

    def used(self, heads: Pages) -> None:
        """The device gave the hints of these back."""
        if self._behaviour.holds is HintHolding.UNTIL_USED:
            self._allocator.set_owner(heads, Owner.HINT_USED)

    def all_used(self) -> None:
        """The device has no hint any more."""
        if self._behaviour.holds is HintHolding.UNTIL_USED:
            self.used(self._allocator.blocks_of(Owner.HINTED).pages)

    def release(self) -> None:
        """Free every block."""
        if self._holds:
            self._allocator.free_blocks(self._allocator.blocks_of(*HINT_OWNERS).pages)

    def is_any_to_hint(self) -> bool:
        """Say whether an answer that begins now would find anything, what is held left aside."""
        return len(self._allocator.find_free_blocks(self._behaviour.order, 0, 1)) > 0

    def is_any_held(self) -> bool:
        """Say whether pages are held."""
        return self._holds and len(self._allocator.blocks_of(*HINT_OWNERS).pages) > 0

    @property
    def reclaimable(self) -> Pages:
        """Heads of the blocks that memory pressure may take back now, ascending."""
        owner = _RECLAIMABLE.get(self._behaviour.holds)
        return np.empty(0, np.int64) if owner is None else self._allocator.blocks_of(owner).pages

    def take_back(self, heads: Pages) -> int:
        """Give `reclaimable` blocks back to the allocator before DONE; return how many pages those are."""
        size = PAGE_SIZE << self._behaviour.order
        if not self._area["features"] & _POISONED:
            # A page released before DONE must be initialized; with poison the allocator does it.
            for address in self._memory.addresses_of(heads).tolist():
                self._memory.bytes_view(address, size)[:] = 0
                self._memory.mark_written(address, size)
        self._allocator.free_blocks(heads)
        return len(heads) << self._behaviour.order
