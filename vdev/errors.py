"""Errors named by whose fault they are.

Everything this project raises on purpose derives from VdevError. A violation carries the clause of the text that was
broken and the place (queue, descriptor, address) where it showed.
"""

__all__ = [
    "BackEndViolation",
    "DeviceViolation",
    "DriverViolation",
    "FrontEndViolation",
    "GuestAddressError",
    "ProtocolViolation",
    "SavedStateError",
    "UserError",
    "VdevError",
    "VhostUserViolation",
]


class VdevError(Exception):
    """Base of all errors that this project raises on purpose."""


class UserError(VdevError):
    """The person who called asked for something impossible; the message is one line that says what to do."""


class SavedStateError(VdevError):
    """A saved device does not fit the one that is to go on from it; the message says in what."""


class GuestAddressError(VdevError):
    """A guest-physical range is not wholly inside one region of guest RAM.

    `address` and `size` are the range as asked for, bytes.
    """

    def __init__(self, address: int, size: int, why: str) -> None:
        self.address = address
        self.size = size
        self.why = why
        super().__init__(f"guest address {address:#x}, {size} bytes: {why}")


class ProtocolViolation(VdevError):
    """One side broke a clause of the virtio text.

    `statement` names the clause (section and subject); `queue`, `descriptor` and `address` say where, if known.
    """

    side = "somebody"

    def __init__(
        self,
        statement: str,
        message: str,
        *,
        queue: int | None = None,
        descriptor: int | None = None,
        address: int | None = None,
    ) -> None:
        self.statement = statement
        self.message = message
        self.queue = queue
        self.descriptor = descriptor
        self.address = address
        where = [
            f"queue {queue}" if queue is not None else "",
            f"descriptor {descriptor}" if descriptor is not None else "",
            f"address {address:#x}" if address is not None else "",
        ]
        place = ", ".join(part for part in where if part)
        super().__init__(f"{self.side}: {message}{f' ({place})' if place else ''} [virtio 1.4, {statement}]")


class DriverViolation(ProtocolViolation):
    """The driver (guest) broke a clause; the device answers with DEVICE_NEEDS_RESET."""

    side = "driver's fault"


class DeviceViolation(ProtocolViolation):
    """The device (host) broke a clause; the driver stops using the device."""

    side = "device's fault"


class VhostUserViolation(VdevError):
    """One side broke a clause of the vhost-user text.

    `statement` names the section; `request` the message, `state` what the session was in, `queue` the ring, if known.
    """

    side = "somebody"

    def __init__(
        self,
        statement: str,
        message: str,
        *,
        request: str | None = None,
        state: str | None = None,
        queue: int | None = None,
    ) -> None:
        self.statement = statement
        self.message = message
        self.request = request
        self.state = state
        self.queue = queue
        where = [f"queue {queue}" if queue is not None else "", f"while {state}" if state is not None else ""]
        place = ", ".join(part for part in where if part)
        what = f"{request}: {message}" if request is not None else message
        super().__init__(f"{self.side}: {what}{f' ({place})' if place else ''} [vhost-user, {statement}]")


class FrontEndViolation(VhostUserViolation):
    """The front end broke a clause; the back end says so where it is asked, and closes the connection."""

    side = "front end's fault"


class BackEndViolation(VhostUserViolation):
    """The back end broke a clause; the front end closes the connection."""

    side = "back end's fault"
