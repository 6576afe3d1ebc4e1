"""Whether pages of guest RAM hold what they held."""

from collections.abc import Iterator

from xxhash import xxh3_64_intdigest

from vdev.errors import GuestAddressError
from vdev.memory import GuestMemory

__all__ = ["PageWatch"]


class PageWatch:
    """Pieces of guest RAM, each with a digest of its content when it was added. What is outside of RAM is left out."""

    def __init__(self, memory: GuestMemory) -> None:
        self._memory = memory
        self._digests: dict[int, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._digests)

    def __contains__(self, address: object) -> bool:
        return address in self._digests

    def add(self, address: int, size: int) -> None:
        """Look at a piece from now on, or anew."""
        if (data := self._read(address, size)) is not None:
            self._digests[address] = size, xxh3_64_intdigest(data)

    def remove(self, address: int) -> None:
        """Look at a piece no longer."""
        self._digests.pop(address, None)

    def changed(self, *, may_be_empty: bool = False) -> int | None:
        """Return the address of a piece that was written since it was added.

        Where it `may_be_empty`, one that now holds nothing but zeros was not written.
        """
        return next(self.all_changed(may_be_empty=may_be_empty), None)

    def all_changed(self, *, may_be_empty: bool = False) -> Iterator[int]:
        """Yield the addresses of all such pieces."""
        for address, (size, digest) in self._digests.items():
            data = self._read(address, size)
            if data is None or xxh3_64_intdigest(data) == digest:
                continue
            if not (may_be_empty and not any(data)):
                yield address

    def _read(self, address: int, size: int) -> bytes | None:
        try:
            return self._memory.read(address, size)
        except GuestAddressError:
            return None
