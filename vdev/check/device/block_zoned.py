"""Checks of what a zoned disk says of itself."""

from typing import TYPE_CHECKING

from spec.block import CONFIG, BlockFeature
from spec.device import Feature, feature_mask
from spec.layout import offset_of
from vdev.check.device.block_disk import BLOCK, read_config
from vdev.check.evidence import Shown
from vdev.check.registry import check

if TYPE_CHECKING:
    from vdev.check.bench.bench import Bench

_NONE, _HOST_MANAGED, _HOST_AWARE = 0, 1, 2
_CHARACTERISTICS = ("zone_sectors", "max_open_zones", "max_active_zones", "max_append_sectors", "write_granularity")
_ZONED = [BlockFeature.ZONED]


@check("block-zoned.model-is-known", covers=["block.device.init.9"], types=BLOCK, features=_ZONED)
def model_is_known(bench: "Bench") -> None:
    """With ZONED, the model is one of the three that there are."""
    bench.start(features=_ZONED)
    model = int(read_config(bench)["model"])
    bench.expect(
        model in (_NONE, _HOST_MANAGED, _HOST_AWARE),
        "block.device.init.9",
        expected="model 0, 1 or 2",
        observed=f"model {model}",
    )


@check(
    "block-zoned.zones-have-a-size",
    covers=["block.device.init.10", "block.device.init.17"],
    types=BLOCK,
    features=_ZONED,
)
def zones_have_a_size(bench: "Bench") -> None:
    """A disk with zones says how large they are, and what writes to them are made of."""
    bench.start(features=_ZONED)
    config = read_config(bench)
    if int(config["model"]) == _NONE:
        bench.not_applicable("the zone model is that of a disk without zones")
    for field, statement in (("zone_sectors", "block.device.init.10"), ("write_granularity", "block.device.init.17")):
        bench.expect(
            int(config[field]) > 0, statement, expected=f"{field} not 0", observed=f"{field} {int(config[field])}"
        )


@check("block-zoned.appends-keep-the-limits", covers=["block.device.init.15"], types=BLOCK, features=_ZONED)
def appends_keep_the_limits(bench: "Bench") -> None:
    """max_append_sectors is not more than all the segments of a request hold."""
    if not (bench.offers(BlockFeature.SEG_MAX) and bench.offers(BlockFeature.SIZE_MAX)):
        bench.not_applicable("SEG_MAX and SIZE_MAX are not both offered")
    bench.start(features=_ZONED)
    config = read_config(bench)
    most = int(config["seg_max"]) * int(config["size_max"])
    sectors = int(config["max_append_sectors"])
    bench.expect(
        sectors <= most,
        "block.device.init.15",
        expected=f"max_append_sectors up to seg_max * size_max, {most}",
        observed=f"max_append_sectors {sectors}",
    )


@check("block-zoned.padding-is-zero", covers=["block.device.init.18"], types=BLOCK, features=_ZONED)
def padding_is_zero(bench: "Bench") -> None:
    """The bytes behind model are 0."""
    bench.start(features=_ZONED)
    raw = bench.control.read_config(offset_of(CONFIG, "model") + 1, 3)
    bench.expect(
        not any(raw),
        "block.device.init.18",
        expected="unused2 all 0",
        observed=f"unused2 reads {raw.hex()}",
        shown=[Shown("unused2", raw)],
    )


@check("block-zoned.unaware-driver-sees-no-zones", covers=["block.device.init.7"], types=BLOCK, features=_ZONED)
def unaware_driver_sees_no_zones(bench: "Bench") -> None:
    """A disk that works without ZONED shows a driver that did not take it no zones."""
    if _model_before_negotiation(bench) == _HOST_MANAGED:
        bench.not_applicable("the zone model is host-managed: the disk is not for such a driver")
    bench.start()
    config = read_config(bench)
    told = {field: int(config[field]) for field in _CHARACTERISTICS}
    bench.expect(
        not any(told.values()),
        "block.device.init.7",
        expected="every characteristic of zones 0",
        observed=", ".join(f"{field} {value}" for field, value in told.items() if value),
    )


@check("block-zoned.host-managed-needs-zoned", covers=["block.device.init.8"], types=BLOCK, features=_ZONED)
def host_managed_needs_zoned(bench: "Bench") -> None:
    """A host-managed disk does not let FEATURES_OK stand without ZONED."""
    if _model_before_negotiation(bench) != _HOST_MANAGED:
        bench.not_applicable("the zone model is not host-managed")
    bench.control.begin()
    mask = bench.offered & feature_mask(Feature.VERSION_1)
    bench.done("accept features without ZONED")
    bench.expect(
        not bench.control.accept_features(mask),
        "block.device.init.8",
        expected="FEATURES_OK not to stand",
        observed="it stands",
    )


def _model_before_negotiation(bench: "Bench") -> int:
    """Return the model that a driver with ZONED finds."""
    bench.start(features=_ZONED)
    model = int(read_config(bench)["model"])
    bench.reset()
    return model
