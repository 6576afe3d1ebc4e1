"""What hostile checks over vhost-user have in common."""

from collections.abc import Callable, Sequence

from spec.vhost_user import U64, FrontEndRequest
from vdev.check.bench.bench import Bench
from vdev.check.device.vhost_steps import VHOST, is_open_after
from vdev.check.registry import check
from vdev.check.target import ConnectionClosed

__all__ = ["Step", "hostile", "send_each", "u64"]

Step = tuple[FrontEndRequest, bytes, Sequence[int]]
"""A request, its payload, and the file descriptors that go along."""

_COVERS = ("vhost-user.back-end.error.1", "hostile.device.alive", "hostile.device.memory")


def u64(value: int) -> bytes:
    """Return the payload of a message that is a number."""
    body: bytes = U64.build({"value": value})
    return body


def send_each(bench: Bench, steps: Sequence[Step], bring_up: Callable[[], None]) -> None:
    """Send each message to a back end that was brought up for it, and see that it answers or closes."""
    bring_up()
    for request, body, fds in steps:
        try:
            bench.front_end.send(request, body, fds)
            is_open = is_open_after(bench)
        except ConnectionClosed:
            is_open = False
        if not is_open:
            bench.reconnect()
            bring_up()


def hostile(name: str) -> Callable[[Callable[[Bench], None]], Callable[[Bench], None]]:
    """Register a hostile check of the back end."""
    return check(f"vhost-hostile.{name}", covers=_COVERS, carriers=VHOST, hostile=True)
