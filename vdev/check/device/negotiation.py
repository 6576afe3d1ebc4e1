"""Checks of feature bits: what is offered, what is agreed to, and what is refused."""

from collections.abc import Iterator

from spec.balloon import BalloonFeature
from spec.block import BlockFeature
from spec.device import FEATURE_REQUIRES, DeviceId, Feature, feature_mask, feature_names, is_device_type_feature
from spec.vhost_user import ProtocolFeature
from vdev.check.bench.bench import Bench
from vdev.check.registry import check
from vdev.check.target import ConnectionClosed
from vdev.devices.kind import Carrier

NET_REQUIRES: dict[int, tuple[int, ...]] = {
    7: (1,),
    8: (1,),
    9: (7, 8),
    10: (1,),
    11: (0,),
    12: (0,),
    13: (11, 12),
    14: (0,),
    18: (17,),
    19: (17,),
    21: (17,),
    22: (17,),
    23: (17,),
    60: (17,),
    61: (11, 12),
}
"""Feature bit of a network device -> bits of which one at least must be there, too ("Feature bit requirements")."""

_TYPE_BITS = {
    DeviceId.BLOCK: frozenset({0, 1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17}),
    DeviceId.ENTROPY: frozenset(),
    DeviceId.BALLOON: frozenset({0, 1, 2, 3, 4, 5}),
}
"""The bits of its own that the text has for a type; 0 and 7 of a block device are the legacy interface's."""

_INSISTED: dict[int, int] = {
    DeviceId.BLOCK: feature_mask(BlockFeature.ZONED),
    DeviceId.BALLOON: feature_mask(BalloonFeature.MUST_TELL_HOST),
}
"""Features of a type's own without which it may refuse a driver: a host-managed disk even has to."""

_COMMON_BITS = frozenset({24, 27, 28, 29}) | frozenset(range(32, 42)) | {43}
"""24 and 27 are the legacy interface's; the others are in "Reserved Feature Bits"."""

_BETWEEN_ENDS = frozenset({26, 30})
"""Of vhost-user, between front end and back end: LOG_ALL and protocol features."""

_PCI_ONLY = frozenset({Feature.SR_IOV, Feature.NOTIF_CONFIG_DATA, Feature.ADMIN_VQ})


def names(bits: int) -> str:
    """Return the names of feature bits for people."""
    return ", ".join(feature_names(bits)) or "none"


def offered_to_drivers(bench: Bench) -> int:
    """Return the features that a driver sees."""
    return bench.offered & ~feature_mask(*_BETWEEN_ENDS)


@check("features.version-1-is-offered", covers=["reserved.device.1"])
def version_1_is_offered(bench: Bench) -> None:
    """A device that is not a legacy one offers VERSION_1."""
    bench.expect(
        bool(bench.offered >> Feature.VERSION_1 & 1),
        "reserved.device.1",
        expected="VERSION_1 (32) among the offered features",
        observed=f"{names(bench.offered)}",
    )


@check("features.requirements-are-offered", covers=["features.device.1"])
def requirements_are_offered(bench: Bench) -> None:
    """Whatever another feature needs is offered, too."""
    offered = bench.offered
    required: dict[int, tuple[int, ...]] = dict(FEATURE_REQUIRES)
    if bench.traffic.device_id == DeviceId.NETWORK:
        required |= NET_REQUIRES
    for bit, needed in required.items():
        if offered >> bit & 1:
            bench.expect(
                any(offered >> other & 1 for other in needed),
                "features.device.1",
                expected=f"{names(feature_mask(*needed))}, which {names(1 << bit)} needs",
                observed=f"offered without it: {names(offered)}",
            )


@check("features.only-defined-bits", covers=["features.device.4"])
def only_defined_bits(bench: Bench) -> None:
    """No bit is offered that the text reserves, does not know, or leaves to another type or transport."""
    allowed = _COMMON_BITS
    if bench.carrier is Carrier.VHOST_USER:
        allowed |= _BETWEEN_ENDS
    else:
        allowed -= _PCI_ONLY
    own = frozenset(bit for bit in range(128) if is_device_type_feature(bit))
    allowed |= _TYPE_BITS.get(DeviceId(bench.traffic.device_id), own) if _is_known(bench) else own
    unknown = bench.offered & ~feature_mask(*allowed)
    bench.expect(
        not unknown,
        "features.device.4",
        expected="bits that the text defines for this type and transport",
        observed=f"offered besides: {names(unknown)}",
    )


def _is_known(bench: Bench) -> bool:
    return bench.traffic.device_id in set(DeviceId)


@check("features.sr-iov-is-not-offered", covers=["reserved.device.10"], carriers=[Carrier.MMIO])
def sr_iov_is_not_offered(bench: Bench) -> None:
    """A device that is not on PCI does not offer SR_IOV."""
    bench.expect(
        not bench.offered >> Feature.SR_IOV & 1,
        "reserved.device.10",
        expected="no SR_IOV (37)",
        observed=names(bench.offered),
    )


@check("features.subsets-are-accepted", covers=["features.device.2"])
def subsets_are_accepted(bench: Bench) -> None:
    """Each offered feature is accepted alone with what it needs, and so is the least set that there is."""
    for accepted in _subsets(bench):
        agreed = _agrees(bench, accepted)
        bench.expect(
            agreed,
            "features.device.2",
            expected=f"FEATURES_OK for {names(accepted)}",
            observed="the features were refused",
        )


def _subsets(bench: Bench) -> Iterator[int]:
    offered = offered_to_drivers(bench)
    platform = _least(bench)
    yield platform
    is_network = bench.traffic.device_id == DeviceId.NETWORK
    for bit in range(offered.bit_length()):
        if offered >> bit & 1:
            yield platform | _with_needs(bit, offered, NET_REQUIRES if is_network else {})


def _least(bench: Bench) -> int:
    """Return the offered features that a device may insist on."""
    insisted = feature_mask(Feature.VERSION_1, Feature.ACCESS_PLATFORM, Feature.ORDER_PLATFORM)
    return bench.offered & (insisted | _INSISTED.get(bench.traffic.device_id, 0))


def _with_needs(bit: int, offered: int, required: dict[int, tuple[int, ...]]) -> int:
    found = 1 << bit
    needed = [other for other in required.get(bit, ()) if offered >> other & 1]
    return found | _with_needs(needed[0], offered, required) if needed else found


def _agrees(bench: Bench, accepted: int) -> bool:
    try:
        bench.reset()
    except ConnectionClosed:
        bench.reconnect()
    bench.control.begin()
    try:
        return bench.control.accept_features(accepted)
    except ConnectionClosed:
        bench.reconnect()
        return False


@check("features.unoffered-are-refused", covers=["features.device.3"], hostile=True)
def unoffered_are_refused(bench: Bench) -> None:
    """FEATURES_OK does not stay when a feature was accepted that was not offered."""
    offered = bench.offered
    width = 128 if bench.carrier is Carrier.MMIO else 64
    unoffered = [bit for bit in range(width) if not offered >> bit & 1 and bit not in _BETWEEN_ENDS]
    if not unoffered:
        bench.not_applicable("every feature is offered")
    lowest_of_words = {bit // 32: bit for bit in reversed(unoffered)}.values()
    for bit in sorted({*lowest_of_words, unoffered[-1]}):
        _expect_refusal(bench, feature_mask(Feature.VERSION_1, bit))


@check("features.dependent-alone-is-refused", covers=["features.device.3"], hostile=True)
def dependent_alone_is_refused(bench: Bench) -> None:
    """FEATURES_OK does not stay when a feature was accepted without the one that it needs."""
    offered = offered_to_drivers(bench)
    dependent = [bit for bit in FEATURE_REQUIRES if offered >> bit & 1]
    if not dependent:
        bench.not_applicable("no feature is offered that needs another one")
    for bit in dependent:
        _expect_refusal(bench, 1 << bit)


def _expect_refusal(bench: Bench, accepted: int) -> None:
    has_agreed = _agrees(bench, accepted)
    if has_agreed and bench.carrier is Carrier.VHOST_USER and not bench.front_end.has(ProtocolFeature.STATUS):
        bench.inconclusive("without the protocol feature STATUS nobody can say whether the features were accepted")
    bench.expect(
        not has_agreed,
        "features.device.3",
        expected=f"FEATURES_OK refused for {names(accepted)}",
        observed="FEATURES_OK stayed set",
    )


@check(
    "features.agreed-again-after-reset",
    covers=["features.device.5", "reset.device.described.features"],
)
def agreed_again_after_reset(bench: Bench) -> None:
    """What was agreed once is agreed again after a reset, and so is another choice."""
    all_of_them = bench.offered & ~feature_mask(26)
    least = _least(bench)
    if not _agrees(bench, least):
        bench.not_applicable("the device does not agree to the least set, whatever came before")
    if not _agrees(bench, all_of_them):
        bench.not_applicable("the device does not agree to all that it offers")
    bench.expect(
        _agrees(bench, all_of_them),
        "features.device.5",
        expected="the same features agreed again after a reset",
        observed="they were refused",
    )
    bench.expect(
        _agrees(bench, least),
        "reset.device.described.features",
        expected="after a reset only what is accepted then counts, and the least set is agreed",
        observed="it was refused",
    )
