"""What the device offers, in turn."""

from spec.device import Feature, feature_mask
from vdev.check.driver.game import Game, Stage, game
from vdev.check.driver.observation import Observation, StatusWritten
from vdev.devices.kind import Carrier

__all__: list[str] = []

_MMIO = (Carrier.MMIO,)
_RINGS = feature_mask(
    Feature.EVENT_IDX,
    Feature.INDIRECT_DESC,
    Feature.IN_ORDER,
    Feature.NOTIFICATION_DATA,
    Feature.RING_RESET,
    Feature.ORDER_PLATFORM,
)
_NEEDED = feature_mask(Feature.VERSION_1, Feature.RING_PACKED)
"""What the format of this start needs."""


class _Offering(Game):
    enough = 6

    def begin(self) -> None:
        """What is offered is what this is about."""
        self.acted += 1


@game("bare", needs_start=True, covers=["features.driver.6"])
class Bare(_Offering):
    """The device offers nothing beyond VERSION_1, and the ring format."""

    @classmethod
    def offers(cls, offered: int) -> int:
        """Nothing else."""
        return offered & _NEEDED


def _alone(bit: Feature) -> type[Game]:
    class Alone(_Offering):
        @classmethod
        def offers(cls, offered: int) -> int:
            return offered & ~(_RINGS & ~feature_mask(bit))

    Alone.__name__ = Alone.__qualname__ = f"Alone{bit.name.title().replace('_', '')}"
    Alone.__doc__ = f"Of the features for rings the device offers only {bit.name}, and the ring format."
    return Alone


for _bit in (
    Feature.EVENT_IDX,
    Feature.INDIRECT_DESC,
    Feature.IN_ORDER,
    Feature.NOTIFICATION_DATA,
    Feature.RING_RESET,
):
    game(f"only-{_bit.name.lower().replace('_', '-')}", needs_start=True, covers=["features.driver.6"])(_alone(_bit))


@game("unknown-features", needs_start=True, covers=["features.driver.4", "features.driver.8"], per_format=False)
class UnknownFeatures(_Offering):
    """The device offers features that nobody knows, reserved ones, and some of other transports."""

    strange = feature_mask(
        24, 25, 31, Feature.SR_IOV, Feature.NOTIF_CONFIG_DATA, Feature.ADMIN_VQ, 44, 45, 49, *range(100, 128)
    )

    @classmethod
    def offers(cls, offered: int) -> int:
        """All of them beside the real ones."""
        return offered | cls.strange


@game("order-platform", needs_start=True, per_format=False)
class OrderPlatform(_Offering):
    """The device offers ORDER_PLATFORM."""

    @classmethod
    def offers(cls, offered: int) -> int:
        """Beside the others."""
        return offered | feature_mask(Feature.ORDER_PLATFORM)


@game("no-version-1", needs_start=True, covers=["features.driver.7"], carriers=_MMIO, per_format=False)
class NoVersion1(Game):
    """The device does not offer VERSION_1."""

    aim = "times FAILED was set"
    enough = 1
    lets_go = True

    @classmethod
    def offers(cls, offered: int) -> int:
        """What needs VERSION_1 is left out, too."""
        return offered & feature_mask(*range(Feature.VERSION_1))

    @property
    def progress(self) -> int:
        """FAILED, or that the driver works in the old way."""
        return self.stage.picture.failed_count + self.stage.picture.used_count

    def turn(self) -> None:
        """Whoever does not use it has to say so."""
        if self.refused and not self.stage.picture.failed_count:
            self.fail("features.driver.7", expected="FAILED set", observed=f"the driver left: {self.refused}")


@game("refused", needs_start=True, covers=["init.driver.5"], carriers=_MMIO, per_format=False)
class Refused(Game):
    """The device does not accept the features that the driver chose."""

    aim = "times FAILED was set"
    enough = 1
    lets_go = True

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._was_refused = False

    def refuses_features(self) -> bool:
        """Whatever they are."""
        self.acted += 1
        return True

    def see(self, seen: Observation) -> None:
        """A driver that begins anew has not given up."""
        if isinstance(seen, StatusWritten) and not seen.value and self.acted:
            self._was_refused = True

    @property
    def progress(self) -> int:
        """FAILED, or a new attempt."""
        return self.stage.picture.failed_count + self._was_refused

    def turn(self) -> None:
        """Whoever gives up should say so."""
        if self.refused and not self.progress:
            self.fail("init.driver.5", expected="FAILED set", observed=f"the driver left: {self.refused}")
