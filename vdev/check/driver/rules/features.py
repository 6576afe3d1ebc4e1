"""Feature bits: what a driver accepts of what it was offered ("Feature Bits", "Reserved Feature Bits")."""

from spec.device import FEATURE_REQUIRES, DeviceStatus, Feature, feature_mask, feature_names, is_device_type_feature
from spec.vhost_user import LOG_ALL, PROTOCOL_FEATURES
from vdev.check.driver.observation import FeaturesAccepted, FeaturesAgreed, StatusWritten
from vdev.check.driver.offer import TYPE_FEATURES
from vdev.check.driver.rule import Rule, rule, sees
from vdev.devices.kind import Carrier

__all__: list[str] = []

_MMIO = (Carrier.MMIO,)
_LEGACY = feature_mask(Feature.NOTIFY_ON_EMPTY, Feature.ANY_LAYOUT)
_FRONT_END = feature_mask(LOG_ALL, PROTOCOL_FEATURES)
"""What is between front end and back end; the one is the driver's when it migrates."""
_PCI = feature_mask(Feature.SR_IOV, Feature.NOTIF_CONFIG_DATA, Feature.ADMIN_VQ)
"""What has a meaning over virtio-pci alone."""
_KNOWN = feature_mask(*Feature) & ~_LEGACY & ~_PCI | feature_mask(Feature.SR_IOV)
"""SR_IOV has a statement of its own."""


def _words(mask: int) -> str:
    return ", ".join(feature_names(mask)) or "none"


@rule("features.only-offered", covers=["features.driver.1"], awaits="accepted features")
class OnlyOffered(Rule):
    """No feature is accepted that was not offered."""

    @sees(FeaturesAccepted)
    def accepted(self, seen: FeaturesAccepted) -> None:
        """Compare."""
        unoffered = seen.accepted & seen.mask & ~self.picture.offered
        self.expect(
            not unoffered,
            "features.driver.1",
            expected=f"no more than {_words(self.picture.offered & seen.mask)}",
            observed=f"{_words(unoffered)} accepted, too",
        )


class _Chosen(Rule):
    """Looks at all that the driver accepts, when it says that this is all."""

    @sees(StatusWritten)
    def written(self, seen: StatusWritten) -> None:
        """Over virtio-mmio FEATURES_OK says so."""
        if seen.value & ~seen.before & DeviceStatus.FEATURES_OK:
            self.chosen(self.picture.accepted)

    @sees(FeaturesAccepted)
    def accepted(self, seen: FeaturesAccepted) -> None:
        """Over vhost-user one message has them all."""
        if self.picture.carrier is Carrier.VHOST_USER:
            self.chosen(seen.accepted)

    def chosen(self, features: int) -> None:
        """Hold the choice against a statement."""


class _Accepts(_Chosen):
    bit: Feature
    statement = ""

    def chosen(self, features: int) -> None:
        """Look whether it was taken, if it was there to take."""
        if self.picture.shown >> self.bit & 1:
            self.expect(
                bool(features >> self.bit & 1),
                self.statement,
                expected=f"{self.bit.name} accepted, as it was offered",
                observed=f"{_words(features)} accepted",
            )


@rule("features.with-what-they-require", covers=["features.driver.2"], awaits="chose its features")
class WithRequired(_Chosen):
    """No feature is accepted without those that it requires."""

    def chosen(self, features: int) -> None:
        """Look each one up."""
        for bit, required in FEATURE_REQUIRES.items():
            missing = feature_mask(*required) & ~features
            self.expect(
                not features >> bit & 1 or not missing,
                "features.driver.2",
                expected=f"{_words(1 << bit)} with {_words(feature_mask(*required))}",
                observed=f"{_words(features)} accepted",
            )


@rule("features.looked-at", covers=["features.driver.3"], awaits="accepted features", carriers=_MMIO)
class LookedAt(Rule):
    """A driver has read which features are offered before it accepts any of them."""

    @sees(FeaturesAccepted)
    def accepted(self, seen: FeaturesAccepted) -> None:
        """Look whether the same bits were read since the reset."""
        blind = seen.accepted & seen.mask & ~self.picture.read_mask
        self.expect(
            not blind,
            "features.driver.3",
            expected="DeviceFeatures read for every bit that is accepted",
            observed=f"{_words(blind)} accepted unseen",
        )


@rule("features.none-unknown", covers=["features.driver.5"], awaits="accepted features")
class NoneUnknown(Rule):
    """No feature is accepted that is reserved, of another transport or of another type of device."""

    @sees(FeaturesAccepted)
    def accepted(self, seen: FeaturesAccepted) -> None:
        """Look at the bits that nobody could know."""
        own = TYPE_FEATURES.get(self.picture.device_type, -1)
        known = _KNOWN | feature_mask(*(bit for bit in range(128) if is_device_type_feature(bit) and own >> bit & 1))
        # What an old text had may be accepted by a driver that knows that text.
        known |= _LEGACY
        if self.picture.carrier is Carrier.VHOST_USER:
            # Behind the front end the driver may well sit on PCI.
            known |= _PCI | _FRONT_END
        unknown = seen.accepted & seen.mask & ~known
        self.expect(
            not unknown,
            "features.driver.5",
            expected="only features of this transport and type of device",
            observed=f"{_words(unknown)} accepted",
        )


@rule("features.no-new-ones", covers=["init.driver.4"], awaits="came to an agreement on features", carriers=_MMIO)
class NoNewOnes(Rule):
    """After FEATURES_OK no feature is accepted any more."""

    @sees(FeaturesAgreed)
    def agreed(self, _: FeaturesAgreed) -> None:
        """From here on it counts."""
        self.is_exercised = True

    @sees(FeaturesAccepted)
    def accepted(self, seen: FeaturesAccepted) -> None:
        """Look whether that is too late."""
        if self.picture.features is not None:
            self.expect(
                False,
                "init.driver.4",
                expected="no write to DriverFeatures after FEATURES_OK",
                observed=f"{_words(seen.accepted & seen.mask)} written",
            )


@rule("features.version-1", covers=["reserved.driver.1"], awaits="chose its features after it had seen VERSION_1")
class AcceptsVersion1(_Accepts):
    """VERSION_1 is accepted where it is offered."""

    bit, statement = Feature.VERSION_1, "reserved.driver.1"


@rule("features.packed", covers=["reserved.driver.6"], awaits="chose its features after it had seen RING_PACKED")
class AcceptsPacked(_Accepts):
    """RING_PACKED is accepted where it is offered."""

    bit, statement = Feature.RING_PACKED, "reserved.driver.6"


@rule(
    "features.order-platform",
    covers=["reserved.driver.7"],
    awaits="chose its features after it had seen ORDER_PLATFORM",
)
class AcceptsOrderPlatform(_Accepts):
    """ORDER_PLATFORM is accepted where it is offered."""

    bit, statement = Feature.ORDER_PLATFORM, "reserved.driver.7"


@rule(
    "features.no-sr-iov",
    covers=["reserved.driver.10"],
    awaits="chose its features after it had seen SR_IOV",
    carriers=_MMIO,
)
class NoSrIov(_Chosen):
    """SR_IOV is not accepted of a device that is not on PCI."""

    def chosen(self, features: int) -> None:
        """Look at the bit, where it was there."""
        if self.picture.shown >> Feature.SR_IOV & 1:
            self.expect(
                not features >> Feature.SR_IOV & 1,
                "reserved.driver.10",
                expected="SR_IOV left alone",
                observed="SR_IOV accepted",
            )
