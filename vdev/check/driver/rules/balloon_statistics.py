"""What a balloon driver tells of its guest's memory ("Memory Statistics")."""

import numpy as np

from spec.balloon import STATISTIC, BalloonFeature, BalloonQueue
from spec.layout import dtype_of
from vdev.check.driver.balloon_rule import BalloonRule
from vdev.check.driver.observation import Called, ChainGivenBack, ChainMadeAvailable, Rested
from vdev.check.driver.picture import Picture
from vdev.check.driver.raw_chain import RawChain
from vdev.check.driver.rule import rule, sees

__all__: list[str] = []

_TYPES = ("balloon",)
_NEEDS = (BalloonFeature.STATS_VQ,)
_ENTRY = dtype_of(STATISTIC)


class _StatisticsRule(BalloonRule):
    """Looks at the buffers of statsq."""

    @sees(ChainMadeAvailable)
    def available(self, seen: ChainMadeAvailable) -> None:
        """Look at one of them."""
        if self.is_of(seen.number, BalloonQueue.STATISTICS):
            self.buffer(seen)

    def buffer(self, seen: ChainMadeAvailable) -> None:
        """Look at a buffer."""

    def tags(self, chain: RawChain) -> list[int]:
        """Return the tags of the whole entries in a buffer, in order."""
        data = self.readable(chain, "balloon.driver.described.statistics-buffer", "statistics")
        whole = len(data) - len(data) % _ENTRY.itemsize
        tags: list[int] = np.frombuffer(data[:whole], _ENTRY)["tag"].tolist()
        return tags


@rule(
    "balloon.statistics-buffer",
    covers=["balloon.driver.described.statistics-buffer"],
    awaits="sent statistics",
    types=_TYPES,
    features=_NEEDS,
)
class StatisticsAreReadable(_StatisticsRule):
    """A buffer in statsq is device-readable."""

    def buffer(self, seen: ChainMadeAvailable) -> None:
        """Read it."""
        self.tags(seen.chain)
        self.expect(True, "balloon.driver.described.statistics-buffer", expected="", observed="")


@rule(
    "balloon.one-statistics-buffer",
    covers=["balloon.driver.statistics.1"],
    awaits="sent statistics",
    types=_TYPES,
    features=_NEEDS,
)
class OneStatisticsBuffer(_StatisticsRule):
    """There is never more than one buffer in statsq."""

    def buffer(self, seen: ChainMadeAvailable) -> None:
        """No other is there."""
        self.expect(
            not seen.in_flight,
            "balloon.driver.statistics.1",
            expected="no buffer in statsq while the device has one",
            observed=f"one more, and the device has {len(seen.in_flight)}",
            shown=seen.chain.show(),
        )


@rule(
    "balloon.first-statistics",
    covers=["balloon.driver.statistics.2"],
    awaits="came to rest",
    types=_TYPES,
    features=_NEEDS,
)
class FirstStatistics(_StatisticsRule):
    """After initialization there is a buffer in statsq."""

    def buffer(self, seen: ChainMadeAvailable) -> None:
        """There is."""
        self.expect(True, "balloon.driver.statistics.2", expected="", observed="")

    @sees(Rested)
    def rested(self, seen: Rested) -> None:
        """The queue has had a buffer by now."""
        if not self.is_working or not self.picture.has(BalloonFeature.STATS_VQ):
            return
        numbers = [number for number in self.picture.queues if self.is_of(number, BalloonQueue.STATISTICS)]
        count = sum(self.picture.queues[number].available_count for number in numbers)
        self.due(
            count > 0,
            "balloon.driver.statistics.2",
            seen,
            expected="a buffer in statsq after initialization",
            observed="there was none" if numbers else "there is no such queue",
        )


@rule(
    "balloon.next-statistics",
    covers=["balloon.driver.statistics.3"],
    awaits="was asked for statistics",
    types=_TYPES,
    features=_NEEDS,
)
class NextStatistics(_StatisticsRule):
    """A buffer that came back from statsq is followed by a new one."""

    def __init__(self, picture: Picture) -> None:
        super().__init__(picture)
        self._is_back = False
        self._is_told = False

    @sees(ChainGivenBack)
    def given_back(self, seen: ChainGivenBack) -> None:
        """From now on the driver owes one."""
        if self.is_of(seen.number, BalloonQueue.STATISTICS):
            self._is_back, self._is_told = True, False

    @sees(Called)
    def called(self, seen: Called) -> None:
        """And it knows."""
        if seen.number is not None and self.is_of(seen.number, BalloonQueue.STATISTICS):
            self._is_told = self._is_back

    def buffer(self, seen: ChainMadeAvailable) -> None:
        """Here it is."""
        if self._is_back:
            self.expect(True, "balloon.driver.statistics.3", expected="", observed="")
        self._is_back = self._is_told = False

    @sees(Rested)
    def rested(self, seen: Rested) -> None:
        """It should have come."""
        if self._is_told and self.is_working:
            self.due(
                False,
                "balloon.driver.statistics.3",
                seen,
                expected="a new buffer in statsq after the device used one and interrupted",
                observed="there is none",
            )


@rule(
    "balloon.statistics-are-filled",
    covers=["balloon.driver.statistics.4"],
    awaits="sent statistics",
    types=_TYPES,
    features=_NEEDS,
)
class StatisticsAreFilled(_StatisticsRule):
    """A buffer in statsq has entries, and one for each statistic."""

    def buffer(self, seen: ChainMadeAvailable) -> None:
        """There are some, and no tag comes twice."""
        tags = self.tags(seen.chain)
        again = sorted({tag for tag in tags if tags.count(tag) > 1})
        self.expect(
            bool(tags) and not again,
            "balloon.driver.statistics.4",
            expected="an entry for each statistic that the driver knows, and one only",
            observed=f"tags {tags}" if tags else "no entry",
            shown=seen.chain.show(),
        )


@rule(
    "balloon.statistics-size",
    covers=["errata.balloon.statistics-size"],
    awaits="sent statistics",
    types=_TYPES,
    features=_NEEDS,
)
class StatisticsSize(_StatisticsRule):
    """A buffer in statsq is a whole number of entries of ten bytes."""

    def buffer(self, seen: ChainMadeAvailable) -> None:
        """Divide."""
        size = seen.chain.size
        self.expect(
            size % _ENTRY.itemsize == 0,
            "errata.balloon.statistics-size",
            expected=f"a multiple of {_ENTRY.itemsize} bytes",
            observed=f"{size} bytes",
            shown=seen.chain.show(),
        )


@rule(
    "balloon.same-statistics",
    covers=["balloon.driver.statistics.8"],
    awaits="sent statistics a second time",
    types=_TYPES,
    features=_NEEDS,
)
class SameStatistics(_StatisticsRule):
    """All buffers in statsq have the same statistics."""

    def __init__(self, picture: Picture) -> None:
        super().__init__(picture)
        self._first: list[int] | None = None

    def buffer(self, seen: ChainMadeAvailable) -> None:
        """Compare with the first."""
        tags = sorted(self.tags(seen.chain))
        if self._first is None:
            self._first = tags
            return
        self.expect(
            tags == self._first,
            "balloon.driver.statistics.8",
            expected=f"tags {self._first}, as in the first buffer",
            observed=f"tags {tags}",
            shown=seen.chain.show(),
        )
