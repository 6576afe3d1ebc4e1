"""A chain of descriptors as it stands in guest RAM, right or wrong: bytes, and what they say."""

from dataclasses import dataclass
from typing import NamedTuple

from vdev.check.evidence import Shown

__all__ = ["RawChain", "RawDescriptor"]


class RawDescriptor(NamedTuple):
    """One descriptor. `place` is its index in the table or slot in the ring, `at` its guest-physical address.

    `link` is the split format's `next`, the packed one's buffer id.
    """

    place: int
    at: int
    address: int
    size: int
    flags: int
    link: int
    is_writable: bool
    has_next: bool
    is_indirect: bool
    data: bytes

    def show(self, what: str = "descriptor") -> Shown:
        """Return it as evidence."""
        return Shown(f"{what} {self.place}", self.data, self.at)


@dataclass(frozen=True, slots=True)
class RawChain:
    """`head` is a descriptor's index (split) or the buffer's id (packed).

    `descriptors` stand in the ring or table itself; `table` in the indirect table that the last of them refers to.
    `fault` says why the chain could not be followed to its end, empty if it could.
    """

    queue: int
    head: int
    descriptors: tuple[RawDescriptor, ...]
    table: tuple[RawDescriptor, ...] = ()
    fault: str = ""

    @property
    def segments(self) -> tuple[RawDescriptor, ...]:
        """The descriptors that stand for memory, in order."""
        return tuple(each for each in self.descriptors if not each.is_indirect) + self.table

    @property
    def size(self) -> int:
        """Bytes of the buffer."""
        return sum(each.size for each in self.segments)

    def show(self) -> tuple[Shown, ...]:
        """Return all of it as evidence."""
        return tuple(each.show() for each in self.descriptors) + tuple(each.show("table entry") for each in self.table)
