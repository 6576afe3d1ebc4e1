"""The guest's check of all that it relies on: after a move, this is what says whether a page was lost."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from guest_agent.allocator import BuddyAllocator
from guest_agent.checked_pages import CheckedPages, pages_in
from guest_agent.errors import GuestCorruption
from guest_agent.page_database import Blocks, Owner
from guest_agent.ram_layout import BootPage
from guest_agent.workload import Objects

__all__ = ["Verdict", "verify"]

_NAMED = 8


@dataclass(frozen=True)
class Verdict:
    """What a guest found.

    `pages` data pages were checked; `mismatched` counts those that are not as they were written, and each part of the
    guest's tables that is not as it was left. `first_bad` has the first few in words. `digest_ok` says whether
    all tables together are what the vCPU left. Of the workload's `operation_count` operations since boot,
    `resumed_operations` were done since the guest was last restored.
    """

    pages: int
    mismatched: int
    first_bad: tuple[str, ...]
    resumed_operations: int
    operation_count: int
    digest_ok: bool

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return {**asdict(self), "first_bad": list(self.first_bad)}


def verify(
    boot: BootPage,
    allocator: BuddyAllocator,
    objects: Objects,
    pages: CheckedPages,
    *,
    resumed_operations: int,
    operation_count: int,
) -> Verdict:
    """Check the boot page, the allocator, the object table, every data page, and the digest of all tables.

    Raises nothing for what is broken: that is the verdict. Free pages, and those that a device holds, are not looked
    at, their poison apart.
    """
    bad = [message for check in (boot.check, allocator.check, objects.check) if (message := _complaint(check))]
    page_count, mismatched = 0, len(bad)
    for owner in (Owner.WORKLOAD, Owner.PAGE_CACHE):
        heads, orders = allocator.blocks_of(owner)
        owned = pages_in(Blocks(heads, orders))
        owned = owned[owned < boot.ram.memory.page_count]
        page_count += len(owned)
        for wrong in pages.wrong_pages(owned, owner):
            mismatched += 1
            if len(bad) < _NAMED:
                bad.append(f"page {wrong.page}: {wrong.what}")
    digest_ok = boot.ram.recompute_digest() == boot.ram.digest
    if not digest_ok:
        bad.append("the tables in guest RAM are not what the vCPU left")
        mismatched = max(mismatched, 1)
    return Verdict(page_count, mismatched, tuple(bad), resumed_operations, operation_count, digest_ok)


def _complaint(check: Callable[[], None]) -> str | None:
    try:
        check()
    except GuestCorruption as corruption:
        return str(corruption)
    return None
