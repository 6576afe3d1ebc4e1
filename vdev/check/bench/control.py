"""What a check does to a device as a whole: the same calls, whatever carries it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from vdev.check.verdict import Inconclusive

__all__ = ["DeviceControl", "Refused", "RingAreas"]


@dataclass(frozen=True, slots=True)
class RingAreas:
    """A queue's size in descriptors, and the guest-physical addresses of its three parts.

    `descriptor` is the descriptor table or ring; `driver` the available ring or the driver's event suppression
    structure; `device` the used ring or the device's.
    """

    size: int
    descriptor: int
    driver: int
    device: int


class Refused(Inconclusive):
    """The other side said in so many words that it does not do what it was asked for."""


class DeviceControl(Protocol):
    """Each call that a target has to answer ends with the answer, or raises TargetHung or ConnectionClosed."""

    def begin(self) -> None:
        """Set ACKNOWLEDGE and DRIVER, as far as the carrier has a status."""
        ...

    def offered_features(self) -> int:
        """Return the mask of all features that are offered."""
        ...

    def accept_features(self, mask: int) -> bool:
        """Accept these features and no others; say whether FEATURES_OK stayed."""
        ...

    def run(self) -> None:
        """Enable the queues that were set up, as far as that is a step of its own, and set DRIVER_OK."""
        ...

    def status(self) -> int:
        """Return the device status."""
        ...

    def set_status(self, value: int) -> None:
        """Write exactly this as device status."""
        ...

    def reset(self) -> None:
        """Reset the device, and wait until it says that it is done."""
        ...

    def read_config(self, offset: int, size: int) -> bytes:
        """Return bytes of configuration space."""
        ...

    def write_config(self, offset: int, data: bytes) -> None:
        """Write configuration space."""
        ...

    def config_generation(self) -> int | None:
        """Return what changes with configuration space, None where the carrier has no such thing."""
        ...

    def queue_size_max(self, number: int) -> int | None:
        """Return the most descriptors of a queue, 0 for one that does not exist, None where nobody can tell."""
        ...

    def set_up_queue(self, number: int, areas: RingAreas, *, base: int = 0) -> None:
        """Tell where a queue is, and that it is ready; `base` is where it goes on (vhost-user only)."""
        ...

    def start_queue(self, number: int) -> None:
        """Have a queue that was set up be served, as far as that is a step of its own."""
        ...

    def stop_queue(self, number: int) -> int | None:
        """Stop a queue: afterwards nothing in it is touched. Returns the ring base where the carrier has one."""
        ...

    def reset_queue(self, number: int) -> None:
        """Reset one queue as RING_RESET allows."""
        ...

    def kick(self, number: int, place: int | None = None) -> None:
        """Notify the device; `place` goes along if NOTIFICATION_DATA is negotiated."""
        ...

    def call_count(self, number: int) -> int:
        """Return how often the device has told of used buffers of a queue until now."""
        ...

    def wait_call(self, number: int, than: int) -> int:
        """Wait until `call_count` is more than `than`, and return it."""
        ...

    def wait(self, number: int, until: Callable[[], bool], what: str) -> None:
        """Wait until `until` holds. Raises TargetHung ("did not `what`") or ConnectionClosed."""
        ...
