"""What can go wrong with a migration, and with the stream that carries it."""

from vdev.errors import VdevError

__all__ = [
    "DestinationLost",
    "DestinationRefused",
    "DirtyLogLost",
    "LinkClosed",
    "MigrationFailed",
    "MigrationInDoubt",
    "MigrationRevoked",
    "BadMagic",
    "MalformedRecord",
    "RangeOutsideRam",
    "StreamError",
    "Truncated",
    "UnexpectedRecord",
    "UnknownRecord",
    "UnknownVersion",
    "WrongChecksum",
    "WrongTotals",
]


class MigrationFailed(VdevError):
    """The migration ended before the guest moved: it runs at the source, as if nobody had asked."""


class DestinationLost(MigrationFailed):
    """The link broke or went silent, or the destination died, before it could run the guest."""


class DestinationRefused(MigrationFailed):
    """The destination gave up and said why; no guest runs there."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the destination gave up: {reason}")


class MigrationInDoubt(VdevError):
    """The destination was told to run the guest and then fell silent, and nobody can say whether it did.

    The source's guest stays stopped: better none than two.
    """


class MigrationRevoked(VdevError):
    """The source asked what became of this migration and was told "gone", so the destination must not run the guest."""


class DirtyLogLost(VdevError):
    """The dirty log can no longer be read: the guest process died, or the kernel refuses."""


class LinkClosed(VdevError):
    """The link cannot carry another byte; the message says why."""


class StreamError(VdevError):
    """The stream is not what it should be. `offset` is where in the stream, bytes from its first."""

    def __init__(self, message: str, offset: int) -> None:
        self.offset = offset
        super().__init__(f"migration stream at byte {offset}: {message}")


class BadMagic(StreamError):
    """The first bytes are not a migration stream's."""


class UnknownVersion(StreamError):
    """The stream has a version, or a flag, that this program does not know."""


class UnknownRecord(StreamError):
    """A record has a type, or a flag, that this version does not have."""


class UnexpectedRecord(StreamError):
    """A record stands where it may not: see the tables in `host_migrator.stream.order`."""


class MalformedRecord(StreamError):
    """A record's sizes or contents contradict each other."""


class RangeOutsideRam(StreamError):
    """A record names memory that is not wholly in one region of guest RAM."""


class Truncated(StreamError):
    """The stream ended before it was complete."""


class WrongChecksum(StreamError):
    """Bytes changed on their way."""


class WrongTotals(StreamError):
    """The stream did not carry what its last record counts."""
