"""A device of which nothing is known but that it is a virtio device."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from vdev.check.bench.request import Request
from vdev.check.verdict import Inconclusive

if TYPE_CHECKING:
    from vdev.check.bench.bench import Bench

__all__ = ["GenericTraffic"]


class GenericTraffic:
    """One queue, and no request: what needs one is INCONCLUSIVE."""

    name = "generic"
    device_id = 0
    queue = 0
    needs: tuple[int, ...] = ()

    def queues(self, bench: "Bench") -> Mapping[int, int]:
        """Return the first queue."""
        return {0: 64}

    def prepare(self, bench: "Bench") -> None:
        """Do nothing."""

    def plain(self, bench: "Bench", size: int | None = None) -> Request:
        """Raise Inconclusive."""
        raise Inconclusive("no request is known for this type of device")
