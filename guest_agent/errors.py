"""What the guest finds wrong with itself."""

from vdev.errors import VdevError

__all__ = ["GuestCorruption"]


class GuestCorruption(VdevError):
    """An invariant of the guest's own is broken: its RAM is not what it left, or its software is wrong.

    `page` is where it showed, None if no single page did.
    """

    def __init__(self, message: str, page: int | None = None) -> None:
        self.page = page
        super().__init__(message if page is None else f"page {page}: {message}")
