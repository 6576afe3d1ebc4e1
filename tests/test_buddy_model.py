"""The buddy allocator does what the naive twin does, whatever is asked of it in whatever order."""

import numpy as np
import pytest
from guest_setup import ODD_REGIONS, attached_allocator, memory_of, new_allocator
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from models_buddy import BuddyModel

from guest_agent.allocator import buddy
from guest_agent.errors import GuestCorruption
from guest_agent.page_database import Owner
from vdev.memory import PAGE_SIZE

OWNERS = st.sampled_from([owner for owner in Owner if owner > Owner.RESERVED])
SEEDS = st.integers(0, 2**32 - 1)


class AllocatorAgainstModel(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.memory = memory_of(*ODD_REGIONS)
        self.allocator = new_allocator(self.memory)
        self.ram = self.allocator.database.ram
        regions = [
            (self.memory.region_first_page(region), region.size // PAGE_SIZE, region.guest_address // PAGE_SIZE)
            for region in self.memory.regions
        ]
        reserved = self.allocator.blocks_of(Owner.RESERVED)
        self.model = BuddyModel(
            regions,
            {
                page + n
                for page, order in zip(*map(np.ndarray.tolist, reserved), strict=True)
                for n in range(1 << order)
            },
        )

    def some_held(self, seed, count, wanted=lambda order: True):
        pages = [page for page, (order, _) in self.model.held.items() if wanted(order)]
        return np.random.default_rng(seed).permutation(np.array(sorted(pages), np.int64))[:count]

    @rule(order=st.integers(0, 10), owner=OWNERS)
    def allocate(self, order, owner):
        page = self.allocator.allocate(order, owner)
        if page is None:
            assert self.model.most_blocks(order) == 0
        else:
            self.model.take(page, order, owner)

    @rule(limit=st.integers(0, 3000), owner=OWNERS)
    def allocate_pages(self, limit, owner):
        self._took(self.allocator.allocate_pages(limit, owner), 0, limit, owner)

    @rule(order=st.integers(0, 10), limit=st.integers(0, 40), owner=OWNERS)
    def take_free_blocks(self, order, limit, owner):
        self._took(self.allocator.take_free_blocks(order, limit, owner), order, limit, owner)

    @rule(order=st.integers(0, 10), first=st.integers(0, 6000), limit=st.integers(1, 40))
    def find_free_blocks(self, order, first, limit):
        size = 1 << order
        expected = [
            page
            for head, larger in sorted(self.model.free_blocks().items())
            for page in range(head, head + (1 << larger), size)
            if larger >= order and page >= first
        ]
        assert self.allocator.find_free_blocks(order, first, limit).tolist() == expected[:limit]

    def _took(self, pages, order, limit, owner):
        assert len(pages) == min(limit, self.model.most_blocks(order))
        assert len(set(pages.tolist())) == len(pages)
        for page in pages.tolist() if len(pages) <= 40 else ():
            self.model.take(page, order, owner)
        if len(pages) > 40:  # The model's check of each single one would take minutes.
            assert set(pages.tolist()) <= self.model.free
            self.model.free -= set(pages.tolist())
            self.model.held |= dict.fromkeys(pages.tolist(), (0, owner))

    @rule(seed=SEEDS)
    def free_one(self, seed):
        for page in self.some_held(seed, 1).tolist():
            self.allocator.free(page, self.model.held[page][1])
            self.model.give_back(page)

    @rule(seed=SEEDS, count=st.integers(0, 3000))
    def free_single_pages(self, seed, count):
        pages = self.some_held(seed, count, lambda order: order == 0)
        self.allocator.free_pages(pages)
        for page in pages.tolist():
            self.model.give_back(page)

    @rule(seed=SEEDS, count=st.integers(0, 3000))
    def free_blocks(self, seed, count):
        pages = self.some_held(seed, count)
        self.allocator.free_blocks(pages)
        for page in pages.tolist():
            self.model.give_back(page)

    @rule(seed=SEEDS, count=st.integers(0, 20), owner=OWNERS)
    def change_owner(self, seed, count, owner):
        pages = self.some_held(seed, count)
        self.allocator.set_owner(pages, owner)
        for page in pages.tolist():
            self.model.held[page] = (self.model.held[page][0], owner)

    @rule()
    def attach(self):
        digest = self.ram.digest
        self.allocator = attached_allocator(self.memory, digest)
        self.ram = self.allocator.database.ram

    @rule(page=st.integers(-2, sum(count for _, count in ODD_REGIONS) + 1))
    def free_what_nobody_holds(self, page):
        if page not in self.model.held:
            for free in (self.allocator.free, lambda one: self.allocator.free_blocks(np.array([one]))):
                with pytest.raises(GuestCorruption, match=f"page {page}: freed"):
                    free(page)

    @invariant()
    def agrees_with_model(self):
        self.allocator.check()
        blocks = self.model.free_blocks()
        assert dict(zip(*map(np.ndarray.tolist, self.allocator.blocks_of(Owner.FREE)), strict=True)) == blocks
        counts = [sum(order == wanted for order in blocks.values()) for wanted in range(11)]
        assert self.allocator.free_block_counts() == counts
        assert self.allocator.free_page_count == len(self.model.free)

    @invariant()
    def every_owner_has_what_the_model_says(self):
        for owner in Owner:
            if owner > Owner.RESERVED:
                held = {page: order for page, (order, holder) in self.model.held.items() if holder is owner}
                assert dict(zip(*map(np.ndarray.tolist, self.allocator.blocks_of(owner)), strict=True)) == held

    @invariant()
    def digest_is_what_the_tables_say(self):
        assert self.ram.recompute_digest() == self.ram.digest


@pytest.mark.parametrize("few", [0, 16, 10**9], ids=["always in bulk", "as shipped", "always one by one"])
def test_the_allocator_agrees_with_the_naive_model(few, monkeypatch):
    monkeypatch.setattr(buddy, "_FEW", few)
    AllocatorAgainstModel.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
    AllocatorAgainstModel.TestCase("runTest").runTest()
