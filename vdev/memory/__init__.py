"""Guest RAM as the host and the guest see it: regions, checked access, page numbers, marks, memory ordering."""

from vdev.memory.backing import Backing, FileBacking, MemfdBacking, PrivateBacking
from vdev.memory.guest_memory import GuestMemory, Region
from vdev.memory.page_marks import PageMarks
from vdev.memory.pages import PAGE_SIZE, PageRanges

__all__ = [
    "PAGE_SIZE",
    "Backing",
    "FileBacking",
    "GuestMemory",
    "MemfdBacking",
    "PageMarks",
    "PageRanges",
    "PrivateBacking",
    "Region",
]
