"""A naive twin of the buddy allocator: a set of free pages, and a dict of blocks that are held."""

from dataclasses import dataclass, field

from guest_agent.page_database import MAX_ORDER, Owner


@dataclass
class BuddyModel:
    """RAM of `regions`, each (first page number, page count, first page frame number)."""

    regions: list[tuple[int, int, int]]
    reserved: set[int]
    held: dict[int, tuple[int, Owner]] = field(default_factory=dict)

    def __post_init__(self):
        self.free = {page for low, count, _ in self.regions for page in range(low, low + count)} - self.reserved

    def free_blocks(self) -> dict[int, int]:
        """Head -> order of the largest aligned blocks of free pages: what merging must always come to."""
        blocks = {}
        for low, count, frame in self.regions:
            page = low
            while page < low + count:
                order = self._largest(page, low + count, frame - low) if page in self.free else None
                if order is not None:
                    blocks[page] = order
                page += 1 << order if order is not None else 1
        return blocks

    def _largest(self, page: int, end: int, frame_offset: int) -> int:
        for order in range(MAX_ORDER, -1, -1):
            size = 1 << order
            fits = (page + frame_offset) % size == 0 and page + size <= end
            if fits and all(other in self.free for other in range(page, page + size)):
                return order
        raise AssertionError(f"page {page} is not free")

    def most_blocks(self, order: int) -> int:
        """How many blocks of `order` can be had."""
        return sum(1 << (free - order) for free in self.free_blocks().values() if free >= order)

    def take(self, page: int, order: int, owner: Owner) -> None:
        """The allocator says that it gave this block: was it right to?"""
        blocks = self.free_blocks()
        sufficient = {head: size for head, size in blocks.items() if size >= order}
        around = [
            head for head, size in sufficient.items() if head <= page and page + (1 << order) <= head + (1 << size)
        ]
        assert around, f"block {page} of order {order} was not free"
        assert sufficient[around[0]] == min(sufficient.values()), "a larger block was split than was needed"
        assert (page - around[0]) % (1 << order) == 0
        self.free -= set(range(page, page + (1 << order)))
        self.held[page] = (order, owner)

    def give_back(self, page: int) -> None:
        order, _ = self.held.pop(page)
        self.free |= set(range(page, page + (1 << order)))
