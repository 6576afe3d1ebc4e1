"""Checks of a disk's offer: features that belong together."""

from typing import TYPE_CHECKING

from spec.block import BlockFeature
from spec.device import Feature
from vdev.check.device.block_disk import BLOCK, read_config
from vdev.check.registry import check

if TYPE_CHECKING:
    from vdev.check.bench.bench import Bench

NOT_ZONED = 0


@check("block-features.flush-is-offered", covers=["block.device.init.1"], types=BLOCK)
def flush_is_offered(bench: "Bench") -> None:
    """A disk offers FLUSH."""
    bench.expect(
        bench.offers(BlockFeature.FLUSH),
        "block.device.init.1",
        expected="FLUSH (bit 9) among the offered features",
        observed=f"features {bench.offered:#x}",
    )


@check(
    "block-features.cache-switch-comes-with-flush",
    covers=["block.device.init.2"],
    types=BLOCK,
    features=[BlockFeature.CONFIG_WCE],
)
def cache_switch_comes_with_flush(bench: "Bench") -> None:
    """A disk that offers CONFIG_WCE offers FLUSH."""
    bench.expect(
        bench.offers(BlockFeature.FLUSH),
        "block.device.init.2",
        expected="FLUSH (bit 9) offered with CONFIG_WCE (bit 11)",
        observed=f"features {bench.offered:#x}",
    )


@check("block-features.only-zoned-disks-offer-zones", covers=["block.device.init.5"], types=BLOCK)
def only_zoned_disks_offer_zones(bench: "Bench") -> None:
    """A disk without zones does not offer ZONED."""
    if not bench.offers(BlockFeature.ZONED):
        return
    bench.start(features=[BlockFeature.ZONED])
    model = int(read_config(bench)["model"])
    bench.expect(
        model != NOT_ZONED,
        "block.device.init.5",
        expected="ZONED not offered, or a zone model",
        observed="ZONED is offered, and the zone model is that of a disk without zones",
    )


@check(
    "block-features.legacy-disks-have-no-zones",
    covers=["block.device.init.6"],
    types=BLOCK,
)
def legacy_disks_have_no_zones(bench: "Bench") -> None:
    """A disk that is only a legacy device does not offer ZONED."""
    if bench.offers(Feature.VERSION_1):
        bench.not_applicable("the device offers VERSION_1: it is not a legacy device")
    bench.expect(
        not bench.offers(BlockFeature.ZONED),
        "block.device.init.6",
        expected="ZONED (bit 17) not offered",
        observed=f"features {bench.offered:#x}",
    )
