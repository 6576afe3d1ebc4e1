"""The base of a ring: the number that says from where on a back end processes it."""

from guest_agent.vhost_user.inflight import InflightArea
from guest_agent.vhost_user.ring import Ring
from spec.device import Feature
from vdev.errors import BackEndViolation, UserError
from vdev.memory import GuestMemory

__all__ = ["base_after_loss", "check_base", "first_base"]

_IDX_OFFSET = 2
"""Bytes from the start of a split queue's available or used ring to its index."""

_FRESH_PACKED = 0x8000_8000
"""Both positions 0, both wrap counters 1 ("Packed Virtqueues")."""


def first_base(features: int) -> int:
    """Return the base of a ring that nobody used yet."""
    return _FRESH_PACKED if _is_packed(features) else 0


def check_base(memory: GuestMemory, ring: Ring, features: int, base: int) -> None:
    """Raise BackEndViolation if a stopped split ring cannot have come to `base`.

    It lies between what was used and what was made available; a packed ring does not show both.
    """
    if _is_packed(features):
        return
    available, used = _index(memory, ring.addresses.driver), _index(memory, ring.addresses.device)
    if (base - used) & 0xFFFF > (available - used) & 0xFFFF:
        raise BackEndViolation(
            "Front-end message types",
            f"the base {base} is not between the used index {used} and the available index {available}",
            request="GET_VRING_BASE",
            queue=ring.number,
        )


def base_after_loss(memory: GuestMemory, ring: Ring, features: int, inflight: InflightArea | None) -> int:
    """Return from where a ring goes on whose back end did not live to say: behind what was used.

    A packed ring has no used index; there it is the area for buffers in flight that tells. Raises UserError without.
    """
    if not _is_packed(features):
        return _index(memory, ring.addresses.device)
    used = None if inflight is None else inflight.packed_used(ring.number, ring.addresses.size)
    if used is None:
        raise UserError(f"packed ring {ring.number} cannot go on: its back end was lost and did not tell the base")
    return used | used << 16


def _index(memory: GuestMemory, ring_address: int) -> int:
    return int.from_bytes(memory.read(ring_address + _IDX_OFFSET, 2), "little")


def _is_packed(features: int) -> bool:
    return bool(features >> Feature.RING_PACKED & 1)
