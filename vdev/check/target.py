"""What is judged, and how it is reached: the one interface that the bench and the runner have of a target.

`RegistersTarget` is a device in this process behind virtio-mmio registers; `ThreadTarget` one that this project's own
vhost-user back end serves in a thread; `SocketTarget` is whoever listens at a socket.
"""

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from vdev.devices.kind import Carrier
from vdev.errors import VdevError

if TYPE_CHECKING:
    from vdev.device import Device
    from vdev.memory import GuestMemory
    from vdev.mmio import MmioRegisters

__all__ = ["DEFAULT_PATIENCE", "ConnectionClosed", "Ending", "HostAction", "MakeDevice", "Target", "TargetGone"]

DEFAULT_PATIENCE = 5.0
"""Seconds that a target has for each answer."""

MakeDevice = Callable[["GuestMemory"], "Device"]
"""What makes a device that lives in this process, over the guest RAM that it is given."""

HostAction = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]
"""(action, arguments) -> answer: has the host do something with the device, named as on its control socket."""


class ConnectionClosed(VdevError):
    """The target closed the connection. No judgement by itself: it may do so for bad input.

    The runner looks whether it died of it, and says INCONCLUSIVE if it did not.
    """


class TargetGone(VdevError):
    """Nobody can be judged any more, for the reason in the message: all cases that are left are INCONCLUSIVE."""


@dataclass(frozen=True, slots=True)
class Ending:
    """What became of a target that is not there any more.

    `is_crash` for a death that no input excuses (a signal, an abort, a panic, a refusal to come back). `why` is one
    sentence, `last_words` the end of what it printed.
    """

    is_crash: bool
    why: str
    last_words: str = ""


class Target(Protocol):
    """Somebody to be judged.

    Of `connect` and `plug_in` one works, as `carrier` says.
    """

    carrier: Carrier
    patience: float
    """Seconds for each answer."""

    @property
    def host(self) -> HostAction | None:
        """What has the device's host act, None where nobody can."""
        ...

    @property
    def place(self) -> str:
        """Where it is, for people."""
        ...

    def connect(self) -> socket.socket:
        """Return a new connection (vhost-user), blocking, the caller's to close. Starts the target if it has ended.

        Raises TargetCrashed or TargetGone if there is none to be had.
        """
        ...

    def plug_in(self, memory: "GuestMemory") -> "MmioRegisters":
        """Return the registers of a new device over `memory` (virtio-mmio); the one before is closed.

        The caller sets `device.interrupt`.
        """
        ...

    def settle(self) -> Ending | None:
        """Wait, after a connection was closed, until the target is ready for another driver.

        Returns what became of it instead, None if it is alive or ended as its kind does when a connection ends.
        Raises TargetHung when it neither answers nor ends within `patience`.
        """
        ...

    def restart(self) -> bool:
        """End a target that hangs and have a new one with the next `connect`; false if it is not ours to end."""
        ...

    def close(self) -> None:
        """Leave nothing behind: no process, no socket file, no thread."""
        ...
