"""The front end's addresses: a back end is told RAM and rings in a numbering of the front end's own.

Ring addresses on the wire are *user addresses*, descriptor addresses are guest-physical. A user address here is the
guest-physical one plus an offset that is no address of either kind: the same in every process, so that a guest that
was moved says the same again, and never inside RAM, so that a back end which takes one for the other is found out.
"""

from vdev.errors import UserError
from vdev.memory import GuestMemory, MemfdBacking, Region

__all__ = ["USER_OFFSET", "shared_regions", "user_address"]

USER_OFFSET = 0x4000_0000_0000
"""64 TiB: above any RAM that a guest here can have, below 2^47 as a user process's addresses are."""


def user_address(guest_address: int) -> int:
    """Return the user address of a guest-physical one."""
    return guest_address + USER_OFFSET


def shared_regions(memory: GuestMemory) -> tuple[tuple[Region, int], ...]:
    """Return each region with the memfd that another process can map from offset 0.

    Raises UserError for RAM that is in no memfd, or reaches to where user addresses begin.
    """
    regions = []
    for region in memory.regions:
        fd = region.backing.fd
        if not isinstance(region.backing, MemfdBacking) or fd is None or fd < 0:
            raise UserError("a vhost-user back end can only share guest RAM that is in a memfd")
        if region.end > USER_OFFSET:
            raise UserError(
                f"the region at {region.guest_address:#x} lies above {USER_OFFSET:#x}: no back end maps that"
            )
        regions.append((region, fd))
    return tuple(regions)
