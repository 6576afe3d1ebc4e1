"""What the requests of a block driver consist of ("Device Operation")."""

from spec.block import DATA_RANGE, ID_SIZE, SECTOR_SIZE, BlockFeature, RangeFlag, RequestType
from vdev.check.driver.block_request import BlockRequest
from vdev.check.driver.block_rule import BlockRule
from vdev.check.driver.observation import ChainMadeAvailable, FeaturesAgreed
from vdev.check.driver.rule import Rule, rule, sees

__all__: list[str] = []

_TYPES = ("block",)
_RANGE_SIZE: int = DATA_RANGE.sizeof()
_RANGED = (RequestType.DISCARD, RequestType.WRITE_ZEROES, RequestType.SECURE_ERASE)
_WRITING = (RequestType.OUT, *_RANGED)
_ZONED = range(15, 28)
"""Types of requests that only a zoned disk knows (and the gaps between them)."""
_NEEDS = {
    RequestType.FLUSH: BlockFeature.FLUSH,
    RequestType.GET_LIFETIME: BlockFeature.LIFETIME,
    RequestType.DISCARD: BlockFeature.DISCARD,
    RequestType.WRITE_ZEROES: BlockFeature.WRITE_ZEROES,
    RequestType.SECURE_ERASE: BlockFeature.SECURE_ERASE,
}


def _name(kind: int) -> str:
    return RequestType(kind).name if kind in set(RequestType) else f"type {kind}"


@rule("block.takes-read-only", covers=["block.driver.operation.3"], awaits="chose features", types=_TYPES)
class TakesReadOnly(Rule):
    """RO is accepted where it is offered."""

    @sees(FeaturesAgreed)
    def agreed(self, seen: FeaturesAgreed) -> None:
        """Look at the bit."""
        if self.picture.offered >> BlockFeature.RO & 1:
            self.expect(
                bool(seen.features >> BlockFeature.RO & 1),
                "block.driver.operation.3",
                expected="RO accepted",
                observed=f"it was offered, and features {seen.features:#x} were accepted",
            )


@rule("block.framing", covers=["block.driver.described.framing"], awaits="sent a request", types=_TYPES)
class Framing(BlockRule):
    """A request has a header and room for the status."""

    def request(self, seen: ChainMadeAvailable, request: BlockRequest) -> None:
        """It has."""
        self.expect(True, "block.driver.described.framing", expected="", observed="")

    def unreadable(self, seen: ChainMadeAvailable, lack: str) -> None:
        """It has not."""
        self.expect(
            False,
            "block.driver.described.framing",
            expected="a header in guest RAM, and a byte for the status",
            observed=lack,
            shown=seen.chain.show(),
        )


@rule("block.direction", covers=["block.driver.described.direction"], awaits="sent data", types=_TYPES)
class Direction(BlockRule):
    """Data that go to the disk are device-readable, data that come from it device-writable."""

    def request(self, seen: ChainMadeAvailable, request: BlockRequest) -> None:
        """Look at the side that should have nothing."""
        kind = request.kind
        if kind in _WRITING:
            wrong, side = request.writable_size, "device-writable"
        elif kind in (RequestType.IN, RequestType.GET_ID, RequestType.GET_LIFETIME):
            wrong, side = request.readable_size, "device-readable"
        else:
            return
        self.expect(
            not wrong,
            "block.driver.described.direction",
            expected=f"no {side} data in {_name(kind)}",
            observed=f"{wrong} bytes",
            shown=seen.chain.show(),
        )


@rule("block.types", covers=["block.driver.described.type"], awaits="sent a request", types=_TYPES)
class Types(BlockRule):
    """A request is one of the text's, and one that was agreed upon."""

    def request(self, seen: ChainMadeAvailable, request: BlockRequest) -> None:
        """Look at its type."""
        kind, has = request.kind, self.picture.has
        if kind in set(RequestType):
            need = _NEEDS.get(RequestType(kind))
            is_good = need is None or has(need)
        else:
            is_good = kind in _ZONED and has(BlockFeature.ZONED)
        self.expect(
            is_good,
            "block.driver.described.type",
            expected="a request that every device knows, or that a negotiated feature brings",
            observed=f"{_name(kind)}, with features {self.picture.features or 0:#x}",
            shown=seen.chain.show(),
        )


@rule(
    "block.read-only",
    covers=["block.driver.described.read-only"],
    awaits="sent a request",
    types=_TYPES,
    features=[BlockFeature.RO],
)
class ReadOnly(BlockRule):
    """A disk that is read-only is not written to."""

    def request(self, seen: ChainMadeAvailable, request: BlockRequest) -> None:
        """Look at its type."""
        if self.picture.has(BlockFeature.RO):
            self.expect(
                request.kind not in _WRITING,
                "block.driver.described.read-only",
                expected="nothing that changes a disk with RO",
                observed=_name(request.kind),
                shown=seen.chain.show(),
            )


@rule("block.flush-sector", covers=["block.driver.operation.4"], awaits="flushed", types=_TYPES)
class FlushSector(BlockRule):
    """A flush has sector 0."""

    def request(self, seen: ChainMadeAvailable, request: BlockRequest) -> None:
        """Look at it."""
        if request.kind == RequestType.FLUSH:
            self.expect(
                not request.sector,
                "block.driver.operation.4",
                expected="sector 0 in FLUSH",
                observed=f"sector {request.sector}",
                shown=seen.chain.show(),
            )


@rule("block.flush-data", covers=["block.driver.operation.5"], awaits="flushed", types=_TYPES)
class FlushData(BlockRule):
    """A flush carries no data."""

    def request(self, seen: ChainMadeAvailable, request: BlockRequest) -> None:
        """Look for some."""
        if request.kind == RequestType.FLUSH:
            self.expect(
                not request.size,
                "block.driver.operation.5",
                expected="no data in FLUSH",
                observed=f"{request.size} bytes",
                shown=seen.chain.show(),
            )


@rule("block.whole-sectors", covers=["block.driver.operation.6"], awaits="read or wrote", types=_TYPES)
class WholeSectors(BlockRule):
    """Reads and writes are of whole sectors."""

    def request(self, seen: ChainMadeAvailable, request: BlockRequest) -> None:
        """Divide."""
        if request.kind in (RequestType.IN, RequestType.OUT):
            self.expect(
                request.size % SECTOR_SIZE == 0,
                "block.driver.operation.6",
                expected=f"a multiple of {SECTOR_SIZE} bytes in {_name(request.kind)}",
                observed=f"{request.size} bytes",
                shown=seen.chain.show(),
            )


@rule("block.whole-ranges", covers=["block.driver.operation.7"], awaits="discarded or zeroed", types=_TYPES)
class WholeRanges(BlockRule):
    """The data of a discard, write zeroes or secure erase are a whole number of segments."""

    def request(self, seen: ChainMadeAvailable, request: BlockRequest) -> None:
        """Divide."""
        if request.kind in _RANGED:
            self.expect(
                request.readable_size % _RANGE_SIZE == 0,
                "block.driver.operation.7",
                expected=f"a multiple of {_RANGE_SIZE} bytes in {_name(request.kind)}",
                observed=f"{request.readable_size} bytes",
                shown=seen.chain.show(),
            )


@rule("block.id-size", covers=["block.driver.operation.8"], awaits="asked for the disk's id", types=_TYPES)
class IdSize(BlockRule):
    """A GET_ID has 20 bytes of data."""

    def request(self, seen: ChainMadeAvailable, request: BlockRequest) -> None:
        """Compare."""
        if request.kind == RequestType.GET_ID:
            self.expect(
                request.writable_size == ID_SIZE,
                "block.driver.operation.8",
                expected=f"{ID_SIZE} bytes of data in GET_ID",
                observed=f"{request.writable_size}",
                shown=seen.chain.show(),
            )


@rule(
    "block.discard-without-unmap",
    covers=["block.driver.operation.14"],
    awaits="discarded",
    types=_TYPES,
    features=[BlockFeature.DISCARD],
)
class DiscardWithoutUnmap(BlockRule):
    """A discard's segments have the unmap bit clear."""

    def request(self, seen: ChainMadeAvailable, request: BlockRequest) -> None:
        """Look at the flags."""
        for sector, _, flags in request.ranges if request.kind == RequestType.DISCARD else ():
            self.expect(
                not flags & RangeFlag.UNMAP,
                "block.driver.operation.14",
                expected="unmap clear in DISCARD",
                observed=f"flags {flags:#x} for the range from sector {sector} on",
                shown=seen.chain.show(),
            )
