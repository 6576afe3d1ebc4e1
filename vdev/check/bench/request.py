"""A request of a device's type, as bytes: what the driver gives, what room it makes, and what must come back."""

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Request", "anything"]


def anything(_: bytes, __: int) -> str | None:
    """Find nothing wrong with any answer."""
    return None


@dataclass(frozen=True, slots=True)
class Request:
    """`readable` goes to the device; it has room for `writable_size` bytes.

    `check` gets the device-writable bytes as they are afterwards and the used length, and returns what is wrong with
    them, None if nothing is. `written` is the used length where the text leaves no choice in it. One that does not
    `answer` may be kept by the device for as long as it likes.
    """

    readable: bytes = b""
    writable_size: int = 0
    check: Callable[[bytes, int], str | None] = anything
    written: int | None = None
    answers: bool = True
