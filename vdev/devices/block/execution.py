"""Doing requests on the file, one after the other, and what status each gets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from spec.block import (
    DATA_RANGE,
    ID_SIZE,
    SECTOR_SHIFT,
    SECTOR_SIZE,
    BlockFeature,
    RangeFlag,
    RequestStatus,
    RequestType,
)
from spec.layout import dtype_of
from vdev.devices.block.file import BlockFile
from vdev.devices.block.limits import (
    DISCARD_RANGES_MAX,
    DISCARD_SECTORS_MAX,
    REQUEST_SIZE_MAX,
    SEG_MAX,
    SIZE_MAX,
    ZEROES_RANGES_MAX,
    ZEROES_SECTORS_MAX,
)
from vdev.devices.block.requests import Requests, Views

__all__ = ["Executor", "Failure"]

_RANGE = dtype_of(DATA_RANGE)
_IN_SECTOR = SECTOR_SIZE - 1
_OK = int(RequestStatus.OK)
_UNMAP = int(RangeFlag.UNMAP)  # the inverse of an IntFlag has no unknown bits


class _Refused(Exception):
    """The driver asked for what this device cannot or must not do; the request gets `status`."""

    def __init__(self, why: str, status: RequestStatus = RequestStatus.IOERR) -> None:
        self.status = status
        super().__init__(why)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the request at `position` failed. It was the driver's fault, or else the host's."""

    position: int
    request: str
    reason: str
    is_drivers_fault: bool


class Executor:
    """Does requests on `file`; nothing that goes wrong with it, or with a request, is raised.

    Before FEATURES_OK was seen there are no features. `write_through` makes every write stable before it is completed.
    """

    def __init__(self, file: BlockFile, serial: bytes) -> None:
        self.write_through = False
        self._file = file
        self._sector_count = file.size >> SECTOR_SHIFT
        self._serial = serial.ljust(ID_SIZE, b"\0")
        self._seg_max = self._size_max = REQUEST_SIZE_MAX
        self._served: dict[int, Callable[[int, Views, int], int]] = {}
        self.negotiate(0)

    def negotiate(self, features: int) -> None:
        """Take note of the mask of negotiated features: it says which types there are, and which limits hold."""
        self._seg_max = SEG_MAX if features >> BlockFeature.SEG_MAX & 1 else REQUEST_SIZE_MAX
        self._size_max = SIZE_MAX if features >> BlockFeature.SIZE_MAX & 1 else REQUEST_SIZE_MAX
        self._served = {RequestType.IN: self._read, RequestType.OUT: self._write, RequestType.GET_ID: self._get_id}
        if features >> BlockFeature.FLUSH & 1:
            self._served[RequestType.FLUSH] = self._flush
        if features >> BlockFeature.DISCARD & 1:
            self._served[RequestType.DISCARD] = self._discard
        if features >> BlockFeature.WRITE_ZEROES & 1:
            self._served[RequestType.WRITE_ZEROES] = self._write_zeroes

    def run(self, requests: Requests) -> tuple[list[int], list[Failure]]:
        """Do `requests` and store each one's status; returns the bytes written of each, and what failed."""
        written_sizes: list[int] = []
        failures: list[Failure] = []
        changed: list[int] = []
        served = self._served
        columns = zip(
            requests.types,
            requests.sectors,
            requests.data,
            requests.data_sizes,
            requests.fits,
            requests.statuses,
            strict=True,
        )
        for position, (kind, sector, data, size, fits, status) in enumerate(columns):
            try:
                if kind not in served:
                    raise _Refused("a type that this disk does not know", RequestStatus.UNSUPP)
                if not fits:
                    raise _Refused("data in the wrong direction")
                written_sizes.append(served[kind](sector, data, size) + 1)
                status[0] = _OK
                if kind in _CHANGING:
                    changed.append(position)
            except _Refused as refusal:
                written_sizes.append(1)
                status[0] = refusal.status
                failures.append(Failure(position, _name(kind), str(refusal), is_drivers_fault=True))
            except OSError as error:
                written_sizes.append(1)
                status[0] = RequestStatus.IOERR
                failures.append(Failure(position, _name(kind), _reason(error), is_drivers_fault=False))
        if changed and self.write_through:
            failures += self._make_stable(requests, changed)
        return written_sizes, failures

    def _make_stable(self, requests: Requests, changed: list[int]) -> list[Failure]:
        try:
            self._file.flush()
        except OSError as error:
            for position in changed:
                requests.statuses[position][0] = RequestStatus.IOERR
            return [
                Failure(position, _name(requests.types[position]), _reason(error), is_drivers_fault=False)
                for position in changed
            ]
        return []

    # One request each: returns the bytes of data written into guest RAM; raises _Refused or OSError

    def _read(self, sector: int, data: Views, size: int) -> int:
        # What most reads are is told by one condition; the others are looked at more closely.
        end = sector + (size >> SECTOR_SHIFT)
        if size & _IN_SECTOR or size > SIZE_MAX or len(data) > self._seg_max or end > self._sector_count:
            self._check_data(sector, data, size)
        self._file.read(data, size, sector << SECTOR_SHIFT)
        return size

    def _write(self, sector: int, data: Views, size: int) -> int:
        self._check_writable()
        self._check_data(sector, data, size)
        self._file.write(data, size, sector << SECTOR_SHIFT)
        return 0

    def _flush(self, sector: int, data: Views, size: int) -> int:
        if not self._file.read_only:
            self._file.flush()
        return 0

    def _get_id(self, sector: int, data: Views, size: int) -> int:
        if size < ID_SIZE:
            raise _Refused(f"{size} bytes for an id of {ID_SIZE}")
        rest = self._serial
        for view in data:
            view[: len(rest)] = rest[: len(view)]
            rest = rest[len(view) :]
        return ID_SIZE

    def _discard(self, sector: int, data: Views, size: int) -> int:
        for first, count, flags in self._ranges(data, size, DISCARD_RANGES_MAX, DISCARD_SECTORS_MAX):
            if flags & _UNMAP:
                raise _Refused("unmap in a discard", RequestStatus.UNSUPP)
            if count:
                self._file.discard(first << SECTOR_SHIFT, count << SECTOR_SHIFT)
        return 0

    def _write_zeroes(self, sector: int, data: Views, size: int) -> int:
        for first, count, flags in self._ranges(data, size, ZEROES_RANGES_MAX, ZEROES_SECTORS_MAX):
            if count:
                self._file.write_zeroes(first << SECTOR_SHIFT, count << SECTOR_SHIFT, unmap=bool(flags & _UNMAP))
        return 0

    # What is checked

    def _check_data(self, sector: int, data: Views, size: int) -> None:
        if size & _IN_SECTOR:
            raise _Refused(f"{size} bytes of data are not whole sectors")
        self._check_bounds(sector, size >> SECTOR_SHIFT)
        if size > REQUEST_SIZE_MAX or len(data) > self._seg_max:
            raise _Refused(f"{size} bytes of data in {len(data)} segments")
        if size > self._size_max and max(map(len, data)) > self._size_max:
            raise _Refused(f"a segment of more than {self._size_max} bytes")

    def _check_bounds(self, sector: int, count: int) -> None:
        if sector + count > self._sector_count:
            raise _Refused(f"sectors {sector} to {sector + count} of {self._sector_count}")

    def _check_writable(self) -> None:
        if self._file.read_only:
            raise _Refused("the disk is read-only")

    def _ranges(self, data: Views, size: int, ranges_max: int, sectors_max: int) -> Sequence[tuple[int, int, int]]:
        """Return a copy of the ranges in `data` as (sector, count, flags), all of them checked before one is done."""
        self._check_writable()
        if not size or size % _RANGE.itemsize or size // _RANGE.itemsize > ranges_max:
            raise _Refused(f"{size} bytes are not 1 to {ranges_max} ranges of {_RANGE.itemsize}")
        ranges: list[tuple[int, int, int]] = np.frombuffer(b"".join(data), _RANGE).tolist()
        for first, count, flags in ranges:
            if flags & ~_UNMAP:
                raise _Refused(f"unknown flags {flags:#x}", RequestStatus.UNSUPP)
            if count > sectors_max:
                raise _Refused(f"a range of {count} sectors, at most {sectors_max} are allowed")
            self._check_bounds(first, count)
        return ranges


_CHANGING = {int(RequestType.OUT), int(RequestType.DISCARD), int(RequestType.WRITE_ZEROES)}


def _name(kind: int) -> str:
    return RequestType(kind).name if kind in set(RequestType) else f"type {kind}"


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
