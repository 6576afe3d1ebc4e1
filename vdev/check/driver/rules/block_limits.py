"""Whether a block driver keeps to what the device allows ("Device configuration layout")."""

from collections import deque

from spec.block import CONFIG, SECTOR_SHIFT, BlockFeature, RequestType
from spec.device import DeviceStatus
from vdev.check.driver.block_request import BlockRequest
from vdev.check.driver.block_rule import BlockRule
from vdev.check.driver.config_access import covers_only
from vdev.check.driver.observation import Called, ChainMadeAvailable, ConfigRead, Rested
from vdev.check.driver.picture import Picture
from vdev.check.driver.rule import Rule, rule, sees
from vdev.devices.kind import Carrier

__all__: list[str] = []

_TYPES = ("block",)
_SECTOR_FIELDS = {
    RequestType.DISCARD: "max_discard_sectors",
    RequestType.WRITE_ZEROES: "max_write_zeroes_sectors",
    RequestType.SECURE_ERASE: "max_secure_erase_sectors",
}


@rule(
    "block.writeback-after-features",
    covers=["block.driver.init.4"],
    awaits="read writeback",
    carriers=[Carrier.MMIO],
    types=_TYPES,
)
class WritebackAfterFeatures(Rule):
    """The field writeback is not read before FEATURES_OK is set.

    A front end reads more of configuration space than its driver does, so this shows over registers alone.
    """

    @sees(ConfigRead)
    def read(self, seen: ConfigRead) -> None:
        """Look at the status."""
        if not covers_only(CONFIG, "writeback", seen):
            return
        self.expect(
            bool(self.picture.status & DeviceStatus.FEATURES_OK),
            "block.driver.init.4",
            expected="writeback to be read after FEATURES_OK was set",
            observed="it was read before",
        )


@rule(
    "block.looks-at-capacity",
    covers=["block.driver.operation.1"],
    awaits="was told of a configuration change",
    types=_TYPES,
)
class LooksAtCapacity(BlockRule):
    """After a configuration change the driver looks at the capacity again."""

    def __init__(self, picture: Picture) -> None:
        super().__init__(picture)
        self._is_told = False

    @sees(Called)
    def called(self, seen: Called) -> None:
        """The configuration space has changed."""
        self._is_told |= seen.number is None and self.is_working

    def reads(self, seen: ConfigRead) -> None:
        """It does."""
        if self._is_told and self.config.touches("capacity", seen):
            self._is_told = False
            self.expect(True, "block.driver.operation.1", expected="", observed="")

    @sees(Rested)
    def rested(self, seen: Rested) -> None:
        """By now it should have."""
        if self._is_told and self.is_working:
            self._is_told = False
            self.due(
                False,
                "block.driver.operation.1",
                seen,
                expected="capacity to be read after a configuration change",
                observed="it was not",
            )


@rule("block.inside-capacity", covers=["block.driver.operation.2"], awaits="read or wrote", types=_TYPES)
class InsideCapacity(BlockRule):
    """No request reaches beyond the capacity.

    A request may have been on its way when the capacity changed, so until the driver rests either value is good.
    """

    def __init__(self, picture: Picture) -> None:
        super().__init__(picture)
        self._capacities: deque[int] = deque(maxlen=2)

    def reads(self, seen: ConfigRead) -> None:
        """Note what the driver knows."""
        capacity = self.config.get("capacity")
        if capacity is not None:
            if capacity in self._capacities:
                self._capacities.remove(capacity)
            self._capacities.append(capacity)

    @sees(Rested)
    def rested(self, seen: Rested) -> None:
        """From now on only the newest is good."""
        while len(self._capacities) > 1:
            self._capacities.popleft()

    def request(self, seen: ChainMadeAvailable, request: BlockRequest) -> None:
        """Look at its end."""
        if request.kind in (RequestType.IN, RequestType.OUT):
            ends = [request.sector + (request.size >> SECTOR_SHIFT)]
        elif request.kind == RequestType.WRITE_ZEROES:
            ends = [sector + count for sector, count, _ in request.ranges]
        else:
            return
        if self._capacities:
            capacity = max(self._capacities)
            self.expect(
                max(ends, default=0) <= capacity,
                "block.driver.operation.2",
                expected=f"a request inside of {capacity} sectors",
                observed=f"{RequestType(request.kind).name} up to sector {max(ends, default=0)}",
                shown=seen.chain.show(),
            )


@rule(
    "block.ranges-inside",
    covers=["block.driver.described.range-inside"],
    awaits="discarded",
    types=_TYPES,
)
class RangesInside(InsideCapacity):
    """The sectors that a discard or secure erase names are on the disk."""

    def request(self, seen: ChainMadeAvailable, request: BlockRequest) -> None:
        """Look at the ends."""
        if request.kind in (RequestType.DISCARD, RequestType.SECURE_ERASE) and self._capacities:
            end = max((sector + count for sector, count, _ in request.ranges), default=0)
            self.expect(
                end <= max(self._capacities),
                "block.driver.described.range-inside",
                expected=f"ranges inside of {max(self._capacities)} sectors",
                observed=f"{RequestType(request.kind).name} up to sector {end}",
                shown=seen.chain.show(),
            )


@rule(
    "block.seg-max",
    covers=["block.driver.described.seg-max"],
    awaits="read or wrote",
    types=_TYPES,
    features=[BlockFeature.SEG_MAX],
)
class SegMax(BlockRule):
    """A request has at most seg_max segments of data."""

    def request(self, seen: ChainMadeAvailable, request: BlockRequest) -> None:
        """Count."""
        most = self.config.get("seg_max")
        if request.kind in (RequestType.IN, RequestType.OUT) and most and self.picture.has(BlockFeature.SEG_MAX):
            self.expect(
                len(request.segment_sizes) <= most,
                "block.driver.described.seg-max",
                expected=f"at most {most} segments of data",
                observed=f"{len(request.segment_sizes)}",
                shown=seen.chain.show(),
            )


@rule(
    "block.size-max",
    covers=["block.driver.described.size-max"],
    awaits="read or wrote",
    types=_TYPES,
    features=[BlockFeature.SIZE_MAX],
)
class SizeMax(BlockRule):
    """No segment of data is longer than size_max."""

    def request(self, seen: ChainMadeAvailable, request: BlockRequest) -> None:
        """Look at the longest."""
        most = self.config.get("size_max")
        if request.kind in (RequestType.IN, RequestType.OUT) and most and self.picture.has(BlockFeature.SIZE_MAX):
            longest = max(request.segment_sizes, default=0)
            self.expect(
                longest <= most,
                "block.driver.described.size-max",
                expected=f"segments of at most {most} bytes",
                observed=f"one of {longest}",
                shown=seen.chain.show(),
            )


class _RangeCount(BlockRule):
    request_type: RequestType
    statement = ""
    field = ""

    def request(self, seen: ChainMadeAvailable, request: BlockRequest) -> None:
        """Count."""
        most = self.config.get(self.field)
        if request.kind == self.request_type and most is not None:
            self.expect(
                len(request.ranges) <= most,
                self.statement,
                expected=f"at most {most} segments, as {self.field} says, in {self.request_type.name}",
                observed=f"{len(request.ranges)}",
                shown=seen.chain.show(),
            )


@rule(
    "block.discard-ranges",
    covers=["block.driver.operation.9"],
    awaits="discarded",
    types=_TYPES,
    features=[BlockFeature.DISCARD],
)
class DiscardRanges(_RangeCount):
    """A discard has at most max_discard_seg segments."""

    request_type = RequestType.DISCARD
    statement = "block.driver.operation.9"
    field = "max_discard_seg"


@rule(
    "block.erase-ranges",
    covers=["block.driver.operation.10"],
    awaits="erased",
    types=_TYPES,
    features=[BlockFeature.SECURE_ERASE],
)
class EraseRanges(_RangeCount):
    """A secure erase has at most max_secure_erase_seg segments."""

    request_type = RequestType.SECURE_ERASE
    statement = "block.driver.operation.10"
    field = "max_secure_erase_seg"


@rule(
    "block.zeroes-ranges",
    covers=["block.driver.operation.11"],
    awaits="wrote zeroes",
    types=_TYPES,
    features=[BlockFeature.WRITE_ZEROES],
)
class ZeroesRanges(_RangeCount):
    """A write zeroes has at most max_write_zeroes_seg segments."""

    request_type = RequestType.WRITE_ZEROES
    statement = "block.driver.operation.11"
    field = "max_write_zeroes_seg"


@rule(
    "block.range-sectors",
    covers=["block.driver.described.range-sectors"],
    awaits="discarded or zeroed",
    types=_TYPES,
)
class RangeSectors(BlockRule):
    """No segment has more sectors than the device's maximum for its kind."""

    def request(self, seen: ChainMadeAvailable, request: BlockRequest) -> None:
        """Look at each."""
        field = _SECTOR_FIELDS.get(RequestType(request.kind)) if request.kind in set(RequestType) else None
        most = self.config.get(field) if field is not None else None
        for sector, count, _ in request.ranges if most else ():
            self.expect(
                count <= (most or 0),
                "block.driver.described.range-sectors",
                expected=f"at most {most} sectors in a segment, as {field} says",
                observed=f"{count} from sector {sector} on",
                shown=seen.chain.show(),
            )
