"""What a balloon driver does that wants free pages to hold a pattern ("Page Poison")."""

import numpy as np

from spec.balloon import CONFIG, PAGE_FRAME_SIZE, BalloonFeature, BalloonQueue
from spec.device import DeviceStatus
from vdev.check.driver.balloon_count import CountingRule, Pages
from vdev.check.driver.balloon_rule import BalloonRule
from vdev.check.driver.config_access import field_value
from vdev.check.driver.observation import (
    ChainGivenBack,
    ChainMadeAvailable,
    ConfigWritten,
    Kicked,
    Rested,
    StatusWritten,
)
from vdev.check.driver.picture import Picture
from vdev.check.driver.rule import rule, sees
from vdev.check.evidence import Shown
from vdev.devices.kind import Carrier
from vdev.errors import GuestAddressError

__all__: list[str] = []

_TYPES = ("balloon",)
_PAGES_OF_A_REQUEST = 32
_PAGES_KEPT = 2048


class _PoisonRule(BalloonRule):
    """Knows poison_val, as it was last written."""

    def __init__(self, picture: Picture) -> None:
        super().__init__(picture)
        self.value: int | None = None

    @sees(ConfigWritten)
    def written(self, seen: ConfigWritten) -> None:
        """Note it."""
        value = field_value(CONFIG, "poison_val", seen)
        if value is not None and self.picture.has(BalloonFeature.PAGE_POISON):
            self.writes(value)
            self.value = value

    def writes(self, value: int) -> None:
        """Look at a value before it is noted."""


@rule(
    "balloon.poison-value",
    covers=["balloon.driver.poison.2"],
    awaits="began to use the device",
    types=_TYPES,
    features=[BalloonFeature.PAGE_POISON],
)
class PoisonValueFirst(_PoisonRule):
    """poison_val is written before DRIVER_OK.

    Nobody tells a back end of DRIVER_OK. There it is looked at when the driver rests.
    """

    @sees(StatusWritten)
    def status(self, seen: StatusWritten) -> None:
        """Look whether it was written."""
        if seen.value & ~seen.before & DeviceStatus.DRIVER_OK and self.picture.carrier is Carrier.MMIO:
            self._is_written("when DRIVER_OK was set")

    @sees(Rested)
    def rested(self, seen: Rested) -> None:
        """Look whether it was written."""
        if self.is_working and self.picture.carrier is Carrier.VHOST_USER:
            self._is_written("when the driver rested")

    def _is_written(self, when: str) -> None:
        if self.picture.has(BalloonFeature.PAGE_POISON):
            self.expect(
                self.value is not None,
                "balloon.driver.poison.2",
                expected="poison_val to be written before DRIVER_OK",
                observed=f"it was not written {when}",
            )


@rule(
    "balloon.poison-value-stays",
    covers=["balloon.driver.poison.3"],
    awaits="used the device",
    types=_TYPES,
    features=[BalloonFeature.PAGE_POISON],
)
class PoisonValueStays(_PoisonRule):
    """From DRIVER_OK on poison_val stays as it is."""

    def __init__(self, picture: Picture) -> None:
        super().__init__(picture)
        self._is_fixed = False

    @sees(Rested, Kicked)
    def used(self, seen: Rested | Kicked) -> None:
        """What a driver wrote before it uses the device is its choice."""
        over_registers = self.picture.carrier is Carrier.MMIO
        if self.picture.has(BalloonFeature.PAGE_POISON) and self.is_working:
            self._is_fixed |= over_registers or isinstance(seen, Rested)
            if self._is_fixed:
                self.expect(True, "balloon.driver.poison.3", expected="", observed="")

    def writes(self, value: int) -> None:
        """A front end that writes all of the space writes the same again."""
        if self._is_fixed or (self.picture.carrier is Carrier.MMIO and self.is_working):
            self.expect(
                value == self.value,
                "balloon.driver.poison.3",
                expected="poison_val to stay as it is while the driver uses the device",
                observed=f"it was written with {value:#x}, after {self.value or 0:#x}",
            )


class _FillingRule(CountingRule):
    """Compares deflated pages with what they held while they were in the balloon."""

    def __init__(self, picture: Picture) -> None:
        super().__init__(picture)
        self.value = 0
        self._before: dict[int, bytes] = {}
        self._deflated: dict[int, bytes] = {}
        self._noticed: dict[int, bytes] = {}
        """Those of them of which the driver knows: it wrote actual."""

    @sees(ConfigWritten)
    def written(self, seen: ConfigWritten) -> None:
        """Note the pattern, and that the driver has seen its requests come back."""
        if field_value(CONFIG, "actual", seen) is not None:
            self._noticed.update(self._deflated)
            self._deflated.clear()
        value = field_value(CONFIG, "poison_val", seen)
        self.value = self.value if value is None else value

    def inflates(self, seen: ChainMadeAvailable, pages: Pages) -> None:
        """These are the device's again."""
        for page in pages.tolist():
            self._deflated.pop(page, None)
            self._noticed.pop(page, None)

    def acknowledged(self, seen: ChainGivenBack, pages: Pages, *, inflated: bool) -> None:
        """Note what the device left in the pages, and which went back."""
        if not self.picture.has(BalloonFeature.PAGE_POISON):
            return
        for page in pages[:_PAGES_OF_A_REQUEST].tolist():
            if not inflated and (held := self._before.pop(page, None)) is not None:
                self._deflated[page] = held
            elif inflated and len(self._before) < _PAGES_KEPT and self.picture.memory.contains(page, PAGE_FRAME_SIZE):
                self._before[page] = self.picture.memory.read(page, PAGE_FRAME_SIZE)

    @sees(Rested)
    def rested(self, seen: Rested) -> None:
        """Each page that went back had time to be filled."""
        deflated, self._noticed = self._noticed, {}
        poison = self.value.to_bytes(4, "little") * (PAGE_FRAME_SIZE // 4)
        for page, before in deflated.items():
            if before != poison:
                self.compare(page, before, self.picture.memory.read(page, PAGE_FRAME_SIZE))

    def compare(self, page: int, before: bytes, after: bytes) -> None:
        """Look at one page."""


@rule(
    "balloon.deflated-pages-are-filled",
    covers=["balloon.driver.features.2"],
    awaits="took a page back",
    types=_TYPES,
    features=[BalloonFeature.PAGE_POISON],
)
class FillsAtOnce(_FillingRule):
    """A driver that accepts PAGE_POISON fills deflated pages at once."""

    def compare(self, page: int, before: bytes, after: bytes) -> None:
        """Something was written to it."""
        self.expect(
            after != before,
            "balloon.driver.features.2",
            expected=f"a deflated page filled with poison_val, {self.value:#x}",
            observed="it holds what the device left there",
            shown=(Shown("beginning of the deflated page", after[:32], page),),
        )


@rule(
    "balloon.deflated-pages-hold-the-pattern",
    covers=["balloon.driver.poison.1"],
    awaits="used a page that it took back",
    types=_TYPES,
    features=[BalloonFeature.PAGE_POISON],
)
class FillsBeforeUse(_FillingRule):
    """Deflated pages that the driver uses again were filled with poison_val before."""

    def compare(self, page: int, before: bytes, after: bytes) -> None:
        """Nothing of what the device left is in a page that was written to."""
        if after == before:
            return
        old, new = np.frombuffer(before, np.uint64), np.frombuffer(after, np.uint64)
        left = np.flatnonzero((old == new) & (old != 0) & (old != (self.value << 32 | self.value)))
        at = 8 * int(left[0]) if len(left) else 0
        self.expect(
            not len(left),
            "balloon.driver.poison.1",
            expected=f"a deflated page that is filled with poison_val, {self.value:#x}, before it is used",
            observed=f"it was written to, and {8 * len(left)} bytes hold what the device left there",
            shown=(Shown("part of the deflated page", after[at : at + 32], page + at),),
        )


@rule(
    "balloon.reported-pages-hold-the-pattern",
    covers=["balloon.driver.reporting.2"],
    awaits="reported a page",
    types=_TYPES,
    features=[BalloonFeature.PAGE_POISON, BalloonFeature.PAGE_REPORTING],
)
class FillsBeforeReport(_PoisonRule):
    """Free pages are filled with poison_val before they are reported."""

    @sees(ChainMadeAvailable)
    def available(self, seen: ChainMadeAvailable) -> None:
        """Look at the first and the last page of each block."""
        if not self.is_of(seen.number, BalloonQueue.REPORTING) or not self.picture.has(BalloonFeature.PAGE_POISON):
            return
        value = self.value or 0
        poison = value.to_bytes(4, "little") * (PAGE_FRAME_SIZE // 4)
        for block in seen.chain.segments:
            for at in {0, max(0, block.size - PAGE_FRAME_SIZE)}:
                content = self._content(block.address + at)
                self.expect(
                    content in (poison, None),
                    "balloon.driver.reporting.2",
                    expected=f"a reported page filled with poison_val, {value:#x}",
                    observed="it holds something else",
                    shown=(Shown("beginning of the reported page", (content or b"")[:32], block.address + at),),
                )

    def _content(self, address: int) -> bytes | None:
        try:
            return self.picture.memory.read(address, PAGE_FRAME_SIZE)
        except GuestAddressError:
            return None
