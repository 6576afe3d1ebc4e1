"""How guest RAM is told to a back end."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from guest_agent.vhost_user.addresses import user_address
from spec.vhost_user import MAX_TABLE_REGION_COUNT, FrontEndRequest
from vdev.memory import Region

__all__ = ["MemoryMessage", "memory_messages"]


class MemoryMessage(NamedTuple):
    """A request to send, with the fields of its payload and its file descriptors."""

    request: FrontEndRequest
    fields: dict[str, Any]
    fds: list[int]


def memory_messages(regions: Sequence[tuple[Region, int]], *, by_slots: bool) -> list[MemoryMessage]:
    """Return what tells a back end of `regions` with their memfds: one table, if it has enough places for them.

    Otherwise region by region, if that is negotiated (`by_slots`); an empty list says that it cannot be told.
    """
    described = [
        {
            "guest_address": region.guest_address,
            "size": region.size,
            "user_address": user_address(region.guest_address),
            "mmap_offset": 0,
        }
        for region, _ in regions
    ]
    fds = [fd for _, fd in regions]
    if len(fds) <= MAX_TABLE_REGION_COUNT:
        table = {"region_count": len(described), "regions": described}
        return [MemoryMessage(FrontEndRequest.SET_MEM_TABLE, table, fds)]
    if not by_slots:
        return []
    return [
        MemoryMessage(FrontEndRequest.ADD_MEM_REG, {"region": region}, [fd])
        for region, fd in zip(described, fds, strict=True)
    ]
