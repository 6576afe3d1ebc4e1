"""What can become of a back end, as errors.

Drivers know DeviceViolation: both errors that reach them are one, so a driver gives up a back end that is gone or lies
as it gives up any other device that does.
"""

from vdev.errors import DeviceViolation, VdevError, VhostUserViolation

__all__ = ["BackEndGone", "BackEndLost", "BackEndNotResponding", "BackEndRefused"]


class BackEndGone(VdevError):
    """The back end closed the connection."""


class BackEndNotResponding(VdevError):
    """The back end did not do what was waited for; the message names it, and the seconds."""


class _BackEndTrouble(DeviceViolation):
    """A DeviceViolation whose words say it all."""

    def __init__(self, statement: str, message: str, *, queue: int | None = None) -> None:
        super().__init__(statement, message, queue=queue)
        self.args = (message,)

    def __str__(self) -> str:
        return self.message


class BackEndRefused(_BackEndTrouble):
    """The back end says that it cannot do what it was asked; the connection goes on."""


class BackEndLost(_BackEndTrouble):
    """The connection was given up. `cause` is why: BackEndViolation, BackEndGone or BackEndNotResponding."""

    def __init__(self, name: str, cause: VdevError) -> None:
        statement = cause.statement if isinstance(cause, VhostUserViolation) else "Communication"
        super().__init__(statement, f"{name}: {cause}")
        self.cause = cause
