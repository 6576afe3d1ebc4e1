"""Guest RAM of odd shapes, and the guest's tables on it."""

import numpy as np

from guest_agent.allocator import BuddyAllocator
from guest_agent.marked_ram import MarkedRam
from guest_agent.page_database import PageDatabase
from guest_agent.ram_layout import BootPage
from vdev.memory import PAGE_SIZE, GuestMemory, PageMarks, PrivateBacking, Region

ODD_REGIONS = ((0, 301), (0x40_0000, 77), (5003 * PAGE_SIZE, 2201), (0x1_0000_0000, 1))
"""(guest-physical address, pages): none a multiple of 4 MiB, one not aligned to it, one of a single page."""


def memory_of(*regions: tuple[int, int], marks: bool = False) -> GuestMemory:
    memory = GuestMemory([Region(address, PrivateBacking(count * PAGE_SIZE)) for address, count in regions])
    if marks:
        memory.page_marks = PageMarks(memory.page_count)
    return memory


def copy_of(memory: GuestMemory, *, marks: bool = False) -> GuestMemory:
    """Other RAM of the same shape and content."""
    copy = memory_of(*((region.guest_address, region.size // PAGE_SIZE) for region in memory.regions), marks=marks)
    for theirs, ours in zip(memory.regions, copy.regions, strict=True):
        ours.backing.data[:] = theirs.backing.data
    return copy


def pages_of(memory: GuestMemory):
    """Every page, as a (page_count, 4096) copy."""
    return np.concatenate([live for live, _, _ in memory.page_spans(0, memory.page_count)])


def new_allocator(memory: GuestMemory, poison_value: int | None = None, **options) -> BuddyAllocator:
    boot = BootPage.create(MarkedRam(memory), poison_value)
    return BuddyAllocator.create(boot, PageDatabase(boot.ram, boot["database_address"]), **options)


def attached_allocator(memory: GuestMemory, digest: int) -> BuddyAllocator:
    boot = BootPage.attach(MarkedRam(memory))
    allocator = BuddyAllocator.attach(boot, PageDatabase(boot.ram, boot["database_address"]))
    boot.ram.digest = digest
    return allocator
