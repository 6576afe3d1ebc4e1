"""One ring as its front end has set it up."""

from collections.abc import Callable
from dataclasses import dataclass, field

from vdev.vhost_user.event_fd import EventFd, EventFdGone

__all__ = ["Vring", "VringAddresses"]


@dataclass(frozen=True)
class VringAddresses:
    """Guest-physical addresses of a ring's three areas, and where its used ring is logged (None: it is not)."""

    descriptor: int
    driver: int
    device: int
    log: int | None

    @property
    def areas(self) -> tuple[int, int, int]:
        """Where the ring is."""
        return self.descriptor, self.driver, self.device


@dataclass
class Vring:
    """Ring `number`: what the front end told of it, its file descriptors, and what became of it.

    It is started from SET_VRING_KICK to GET_VRING_BASE, whether it is enabled or not. It is served while it is both,
    knows its size and its place, and its set-up is one that a ring can have.
    """

    number: int
    size: int = 0
    addresses: VringAddresses | None = None
    base: int | None = None
    kick: EventFd | None = None
    call: EventFd | None = None
    err: EventFd | None = None
    is_started: bool = False
    is_enabled: bool = False
    is_served: bool = False
    kick_count: int = 0
    call_count: int = 0
    chain_count: int = 0
    last_error: str | None = None
    on_change: Callable[[], None] = field(default=lambda: None, repr=False)
    """Called when it becomes served, or is served no longer."""

    @property
    def is_polled(self) -> bool:
        """Whether the front end does not kick, and the ring must be looked at again and again."""
        return self.is_started and self.kick is None

    @property
    def state(self) -> str:
        """Return the two states of the text as words."""
        started = "started" if self.is_started else "stopped"
        return f"{started}, {'enabled' if self.is_enabled else 'disabled'}"

    def call_driver(self) -> None:
        """Tell the driver of used buffers."""
        self.call_count += 1
        if self.call is not None:
            try:
                self.call.signal()
            except EventFdGone as gone:
                self.fail(f"call: {gone}")
                self.set_call(None)

    def fail(self, error: str) -> None:
        """Note an error, and tell the front end if it gave a descriptor for that."""
        self.last_error = error
        if self.err is not None:
            try:
                self.err.signal()
            except EventFdGone:
                self.set_err(None)

    def set_kick(self, kick: EventFd | None) -> None:
        """Be kicked by this from now on."""
        before, self.kick = self.kick, kick
        _close(before)

    def set_call(self, call: EventFd | None) -> None:
        """Call with this from now on."""
        before, self.call = self.call, call
        _close(before)

    def set_err(self, err: EventFd | None) -> None:
        """Tell of errors with this from now on."""
        before, self.err = self.err, err
        _close(before)

    def close(self) -> None:
        """Close every descriptor."""
        self.set_kick(None)
        self.set_call(None)
        self.set_err(None)


def _close(event: EventFd | None) -> None:
    if event is not None:
        event.close()
