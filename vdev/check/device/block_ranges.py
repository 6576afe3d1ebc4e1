"""Checks of requests for ranges of sectors: discard, write zeroes, secure erase. They store what they found again."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spec.block import DATA_RANGE, SECTOR_SIZE, BlockFeature, RangeFlag, RequestStatus, RequestType
from vdev.check.device.block_disk import BLOCK, Answer, Disk, name_of_status
from vdev.check.evidence import Shown
from vdev.check.registry import BOTH, check

if TYPE_CHECKING:
    from vdev.check.bench.bench import Bench

_UNKNOWN_FLAGS = (0x2, 0x8000_0000, 0x3)
_MOST_SECTORS = 64
"""A device whose alignment is larger than that is not asked."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """A type of request for ranges: its feature, and where its limits stand."""

    feature: BlockFeature
    type: RequestType
    sectors_field: str
    ranges_field: str
    alignment_field: str | None


_DISCARD = _Kind(
    BlockFeature.DISCARD,
    RequestType.DISCARD,
    "max_discard_sectors",
    "max_discard_seg",
    "discard_sector_alignment",
)
_ZEROES = _Kind(
    BlockFeature.WRITE_ZEROES, RequestType.WRITE_ZEROES, "max_write_zeroes_sectors", "max_write_zeroes_seg", None
)
_ERASE = _Kind(
    BlockFeature.SECURE_ERASE,
    RequestType.SECURE_ERASE,
    "max_secure_erase_sectors",
    "max_secure_erase_seg",
    "secure_erase_sector_alignment",
)
_KINDS = (_DISCARD, _ZEROES, _ERASE)


class _Range:
    """Three pieces of one size on a disk, of which the middle one is asked for; `piece` is in sectors."""

    def __init__(self, disk: Disk, kind: _Kind) -> None:
        self.disk = disk
        self.kind = kind
        alignment = max(1, int(disk.config[kind.alignment_field])) if kind.alignment_field else 1
        self.piece = max(8, disk.unit_sectors, alignment)
        limit = int(disk.config[kind.sectors_field])
        if limit < self.piece or self.piece > _MOST_SECTORS or self.piece % alignment:
            disk.bench.not_applicable(
                f"{kind.type.name} takes up to {limit} sectors, aligned to {alignment}: this check does not"
            )
        highest = disk.needs_sectors(3 * self.piece) // self.piece * self.piece
        self.first = disk.bench.random.randrange(0, highest + 1, self.piece)
        self.middle = self.first + self.piece

    def ask(self, *flags: int, kind: RequestType | None = None) -> Answer:
        """Ask for the middle piece, in as many ranges as there are flags."""
        step = self.piece // len(flags)
        data = b"".join(
            DATA_RANGE.build({"sector": self.middle + number * step, "num_sectors": step, "flags": one})
            for number, one in enumerate(flags)
        )
        return self.disk.ask(kind or self.kind.type, to_write=data)

    @contextmanager
    def filled(self) -> Iterator[bytes]:
        """Yield random bytes that all three pieces hold meanwhile."""
        data = self.disk.bench.random.randbytes(3 * self.piece * SECTOR_SIZE)
        with self.disk.put_back(self.first, 3 * self.piece):
            self.disk.write(self.first, data)
            yield data

    def pieces(self) -> tuple[bytes, bytes, bytes]:
        """Return what the three pieces hold."""
        data = self.disk.read(self.first, 3 * self.piece)
        size = self.piece * SECTOR_SIZE
        return data[:size], data[size : 2 * size], data[2 * size :]

    def expect_neighbours(self, data: bytes, statement: str) -> bytes:
        """Expect the two outer pieces to hold what `data` has for them; return the middle piece."""
        before, middle, behind = self.pieces()
        size = self.piece * SECTOR_SIZE
        self.disk.bench.expect(
            before == data[:size] and behind == data[2 * size :],
            statement,
            expected=f"sectors outside {self.middle} to {self.middle + self.piece - 1} as before",
            observed="they changed",
            shown=[
                Shown("the sector before the range", before[-SECTOR_SIZE:]),
                Shown("behind it", behind[:SECTOR_SIZE]),
            ],
        )
        return middle


@check("block-ranges.unknown-flags-are-unsupported", covers=["block.device.operation.5"], types=BLOCK, writes=True)
def unknown_flags_are_unsupported(bench: "Bench") -> None:
    """Discard, write zeroes and secure erase with a flag that is not defined are answered with UNSUPP."""
    kinds = [kind for kind in _KINDS if bench.offers(kind.feature)]
    if not kinds:
        bench.not_applicable("none of DISCARD, WRITE_ZEROES and SECURE_ERASE is offered")
    disk = Disk(bench, *(kind.feature for kind in kinds))
    for kind in kinds:
        asked = _Range(disk, kind)
        with disk.put_back(asked.first, 3 * asked.piece):
            for flags in _UNKNOWN_FLAGS:
                answer = asked.ask(flags)
                bench.expect(
                    answer.status == RequestStatus.UNSUPP,
                    "block.device.operation.5",
                    expected=f"UNSUPP for {kind.type.name} with flags {flags:#x}",
                    observed=f"status {name_of_status(answer.status)}",
                    shown=answer.shown(),
                )


@check(
    "block-ranges.discard-does-not-unmap",
    covers=["block.device.operation.6"],
    types=BLOCK,
    features=[BlockFeature.DISCARD],
    writes=True,
)
def discard_does_not_unmap(bench: "Bench") -> None:
    """A discard with the unmap flag is answered with UNSUPP."""
    disk = Disk(bench, BlockFeature.DISCARD)
    asked = _Range(disk, _DISCARD)
    with disk.put_back(asked.first, 3 * asked.piece):
        answer = asked.ask(int(RangeFlag.UNMAP))
        bench.expect(
            answer.status == RequestStatus.UNSUPP,
            "block.device.operation.6",
            expected="UNSUPP for a discard with the unmap flag",
            observed=f"status {name_of_status(answer.status)}",
            shown=answer.shown(),
        )


@check(
    "block-ranges.zeroes-are-read",
    covers=["block.device.operation.9", "block.device.described.zeroes-range"],
    formats=BOTH,
    types=BLOCK,
    features=[BlockFeature.WRITE_ZEROES],
    writes=True,
)
def zeroes_are_read(bench: "Bench") -> None:
    """After write zeroes, with and without unmap, just the range reads as zeros."""
    disk = Disk(bench, BlockFeature.WRITE_ZEROES)
    asked = _Range(disk, _ZEROES)
    several = (0, 0) if int(disk.config[_ZEROES.ranges_field]) > 1 else (0,)
    for flags in ((0,), (int(RangeFlag.UNMAP),), several):
        with asked.filled() as data:
            answer = asked.ask(*flags)
            if not answer.is_ok:
                bench.inconclusive(f"write zeroes was answered with status {name_of_status(answer.status)}")
            middle = asked.expect_neighbours(data, "block.device.described.zeroes-range")
            bench.expect(
                not any(middle),
                "block.device.operation.9",
                expected=f"zeros from sector {asked.middle} on after write zeroes with flags {flags}",
                observed="other bytes",
                shown=[Shown("the first sector of the range", middle[:SECTOR_SIZE])],
            )


@check(
    "block-ranges.discard-keeps-to-its-range",
    covers=["block.device.described.discard"],
    formats=BOTH,
    types=BLOCK,
    features=[BlockFeature.DISCARD],
    writes=True,
)
def discard_keeps_to_its_range(bench: "Bench") -> None:
    """A discard is answered with OK, and changes no sector outside its range."""
    _expect_range_kept(bench, _DISCARD, "block.device.described.discard")


@check(
    "block-ranges.erase-keeps-to-its-range",
    covers=["block.device.described.secure-erase"],
    formats=BOTH,
    types=BLOCK,
    features=[BlockFeature.SECURE_ERASE],
    writes=True,
)
def erase_keeps_to_its_range(bench: "Bench") -> None:
    """A secure erase is answered with OK, and changes no sector outside its range."""
    _expect_range_kept(bench, _ERASE, "block.device.described.secure-erase")


def _expect_range_kept(bench: "Bench", kind: _Kind, statement: str) -> None:
    disk = Disk(bench, kind.feature)
    asked = _Range(disk, kind)
    with asked.filled() as data:
        answer = asked.ask(0)
        bench.expect(
            answer.is_ok,
            statement,
            expected=f"OK for {kind.type.name} of {asked.piece} sectors at {asked.middle}",
            observed=f"status {name_of_status(answer.status)}",
            shown=answer.shown(),
        )
        asked.expect_neighbours(data, statement)
