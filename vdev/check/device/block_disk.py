"""A disk in the hands of a check: its configuration space, and requests of any kind with what came of them."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spec.block import CONFIG, REQUEST_HEADER, SECTOR_SIZE, BlockFeature, RequestStatus, RequestType
from spec.layout import dtype_of, offset_of
from vdev.check.bench.request import Request
from vdev.check.evidence import Shown
from vdev.check.verdict import Failed, Inconclusive, Judgement

if TYPE_CHECKING:
    from vdev.check.bench.bench import Bench

__all__ = ["BLOCK", "Answer", "Disk", "name_of_status", "read_config"]

BLOCK = ("block",)
"""The types of all checks of disks."""

_CONFIG = dtype_of(CONFIG)
_OK = int(RequestStatus.OK)

_FIELDS_OF = {
    BlockFeature.SIZE_MAX: "size_max",
    BlockFeature.SEG_MAX: "seg_max",
    BlockFeature.GEOMETRY: "sectors",
    BlockFeature.BLK_SIZE: "blk_size",
    BlockFeature.TOPOLOGY: "opt_io_size",
    BlockFeature.CONFIG_WCE: "writeback",
    BlockFeature.MQ: "num_queues",
    BlockFeature.DISCARD: "discard_sector_alignment",
    BlockFeature.WRITE_ZEROES: "write_zeroes_may_unmap",
    BlockFeature.SECURE_ERASE: "secure_erase_sector_alignment",
    BlockFeature.ZONED: "model",
}
"""Feature -> the last field that it brings. What no feature brings is not asked for: the space may end before it."""


def name_of_status(status: int) -> str:
    """Return how evidence speaks of a status byte."""
    return f"{status:#04x} ({RequestStatus(status).name})" if status in set(RequestStatus) else f"{status:#04x}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request: the status byte, the used length, the device-writable data before the status."""

    status: int
    length: int
    data: bytes
    request: str

    @property
    def is_ok(self) -> bool:
        """Whether the status is OK."""
        return self.status == _OK

    def shown(self) -> list[Shown]:
        """Return the status, and the first sector of the data."""
        return [
            Shown(f"status of {self.request}", bytes([self.status])),
            *([Shown(f"data of {self.request}", self.data[:SECTOR_SIZE])] if self.data else []),
        ]


class Disk:
    """The block device of a bench that was started with `features`.

    `unit` is how many bytes a read or write is made of: the device's block, 512 where it names none.
    """

    def __init__(self, bench: "Bench", *features: int, queues: dict[int, int] | None = None) -> None:
        self.bench = bench
        bench.start(features=features, queues=queues)
        self.config = self.read_config()
        self.capacity = int(self.config["capacity"])
        blk_size = int(self.config["blk_size"]) if self.has(BlockFeature.BLK_SIZE) else SECTOR_SIZE
        self.unit = blk_size if blk_size and blk_size % SECTOR_SIZE == 0 else SECTOR_SIZE
        self.unit_sectors = self.unit // SECTOR_SIZE

    def has(self, feature: BlockFeature) -> bool:
        """Whether the device offers `feature`."""
        return self.bench.offers(feature)

    def read_config(self) -> Any:
        """Return the configuration space as a record; fields that no offered feature brings are 0."""
        return read_config(self.bench)

    def needs_sectors(self, count: int) -> int:
        """Return the first of the last `count` sectors, in whole units. The check is N/A on a smaller disk."""
        count = -(-count // self.unit_sectors) * self.unit_sectors
        first = (self.capacity - count) // self.unit_sectors * self.unit_sectors
        if first < 0:
            self.bench.not_applicable(f"the disk has {self.capacity} sectors, not {count}")
        return first

    def some_sectors(self, count: int) -> int:
        """Return the first of `count` sectors somewhere on the disk, in whole units."""
        return self.bench.random.randrange(self.needs_sectors(count) // self.unit_sectors + 1) * self.unit_sectors

    def request(self, kind: int, sector: int = 0, *, to_write: bytes = b"", to_read: int = 0) -> Request:
        """Return a request: header, `to_write`, and room for `to_read` bytes and the status."""
        header: bytes = REQUEST_HEADER.build({"type": kind, "reserved": 0, "sector": sector})
        return Request(header + to_write, to_read + 1)

    def ask(
        self,
        kind: int,
        sector: int = 0,
        *,
        to_write: bytes = b"",
        to_read: int = 0,
        queue: int | None = None,
        cuts: Sequence[int] | None = None,
        indirect: bool = False,
    ) -> Answer:
        """Do one request alone, and wait for it."""
        name = f"{RequestType(kind).name if kind in set(RequestType) else f'type {kind}'} at sector {sector}"
        ring = self.bench.ring(queue)
        posted = ring.post(self.request(kind, sector, to_write=to_write, to_read=to_read), cuts=cuts, indirect=indirect)
        ring.publish()
        ring.kick()
        used = ring.wait_used()
        written = ring.written(posted)
        ring.release(posted)
        return Answer(written[-1], used.length, written[:-1], name)

    def ask_many(self, requests: Sequence[Request], *, queue: int | None = None) -> list[Answer]:
        """Have `requests` under way at the same time; return their answers in the same order.

        They are held together by the ids of their buffers, so used buffers may come in any order.
        """
        ring = self.bench.ring(queue)
        posted = [ring.post(request) for request in requests]
        ring.publish()
        ring.kick()
        lengths = {used.id: used.length for used in ring.wait_all(len(posted))}
        answers = []
        for number, one in enumerate(posted):
            written = ring.written(one)
            ring.release(one)
            answers.append(Answer(written[-1], lengths.get(one.head, -1), written[:-1], f"request {number}"))
        return answers

    def read(self, sector: int, count: int) -> bytes:
        """Return `count` sectors, one unit a request; INCONCLUSIVE if the device does not give them."""
        data = b""
        for at in range(sector, sector + count, self.unit_sectors):
            answer = self.ask(RequestType.IN, at, to_read=self.unit)
            if not answer.is_ok:
                self.bench.inconclusive(f"sector {at} cannot be read: status {name_of_status(answer.status)}")
            data += answer.data
        return data

    def write(self, sector: int, data: bytes) -> None:
        """Store `data`, one unit a request; INCONCLUSIVE if the device refuses."""
        for at in range(0, len(data), self.unit):
            answer = self.ask(RequestType.OUT, sector + at // SECTOR_SIZE, to_write=data[at : at + self.unit])
            if not answer.is_ok:
                self.bench.inconclusive(
                    f"sector {sector + at // SECTOR_SIZE} cannot be written: status {name_of_status(answer.status)}"
                )

    @contextmanager
    def put_back(self, sector: int, count: int) -> Iterator[bytes]:
        """Yield what `count` sectors hold, and store that again in the end, whatever the check found between."""
        before = self.read(sector, count)
        try:
            yield before
        except (Failed, Inconclusive):
            # What was found is what is to be told, also if the disk refuses.
            with suppress(Judgement):
                self.write(sector, before)
            raise
        self.write(sector, before)


def read_config(bench: "Bench") -> Any:
    """Return the configuration space of a disk as a record; fields that no offered feature brings are 0."""
    fields: Iterable[str] = [
        "capacity",
        *(field for feature, field in _FIELDS_OF.items() if bench.offers(feature)),
    ]
    ends = [offset_of(CONFIG, name) + _CONFIG[name].itemsize for name in fields]
    raw = bench.control.read_config(0, -(-max(ends) // 4) * 4)
    return np.frombuffer(raw.ljust(_CONFIG.itemsize, b"\0")[: _CONFIG.itemsize], _CONFIG, 1)[0]
