"""Checks of a disk's configuration space."""

from typing import TYPE_CHECKING

from spec.block import CONFIG, SECTOR_SIZE, BlockFeature
from spec.layout import offset_of
from vdev.check.device.block_disk import BLOCK, Disk
from vdev.check.evidence import Shown
from vdev.check.registry import check

if TYPE_CHECKING:
    from vdev.check.bench.bench import Bench

_PADDING = (
    ("unused0", BlockFeature.CONFIG_WCE, offset_of(CONFIG, "writeback") + 1, 1),
    ("unused1", BlockFeature.WRITE_ZEROES, offset_of(CONFIG, "write_zeroes_may_unmap") + 1, 3),
)

_LIMITS = (
    (BlockFeature.SIZE_MAX, "size_max"),
    (BlockFeature.SEG_MAX, "seg_max"),
    (BlockFeature.DISCARD, "max_discard_sectors"),
    (BlockFeature.DISCARD, "max_discard_seg"),
    (BlockFeature.WRITE_ZEROES, "max_write_zeroes_sectors"),
    (BlockFeature.WRITE_ZEROES, "max_write_zeroes_seg"),
    (BlockFeature.SECURE_ERASE, "max_secure_erase_sectors"),
    (BlockFeature.SECURE_ERASE, "max_secure_erase_seg"),
)


@check("block-config.padding-is-zero", covers=["block.device.init.4"], types=BLOCK)
def padding_is_zero(bench: "Bench") -> None:
    """The bytes between the fields are 0."""
    bench.start()
    seen = False
    for name, feature, offset, size in _PADDING:
        if bench.offers(feature):
            seen = True
            raw = bench.control.read_config(offset, size)
            bench.expect(
                not any(raw),
                "block.device.init.4",
                expected=f"{name} all 0",
                observed=f"{name} reads {raw.hex()}",
                shown=[Shown(name, raw)],
            )
    if not seen:
        bench.not_applicable("no feature is offered that brings padding into the configuration space")


@check("block-config.limits-can-be-kept", covers=["block.device.described.limits"], types=BLOCK)
def limits_can_be_kept(bench: "Bench") -> None:
    """Each limit that is offered leaves room for a request."""
    disk = Disk(bench)
    for feature, field in _LIMITS:
        if disk.has(feature):
            bench.expect(
                int(disk.config[field]) > 0,
                "block.device.described.limits",
                expected=f"{field} at least 1, as {feature.name} is offered",
                observed=f"{field} 0",
            )
    if disk.has(BlockFeature.BLK_SIZE):
        blk_size = int(disk.config["blk_size"])
        bench.expect(
            blk_size >= SECTOR_SIZE and not blk_size & (blk_size - 1),
            "block.device.described.limits",
            expected=f"blk_size a power of two from {SECTOR_SIZE} on",
            observed=f"blk_size {blk_size}",
        )


@check(
    "block-config.no-flush-no-writeback",
    covers=["block.device.init.3"],
    types=BLOCK,
    features=[BlockFeature.CONFIG_WCE],
)
def no_flush_no_writeback(bench: "Bench") -> None:
    """A driver with CONFIG_WCE that cannot flush finds writeback 0."""
    disk = Disk(bench, BlockFeature.CONFIG_WCE)
    writeback = int(disk.config["writeback"])
    bench.expect(
        writeback == 0,
        "block.device.init.3",
        expected="writeback 0 after CONFIG_WCE was negotiated without FLUSH",
        observed=f"writeback {writeback}",
        shown=[Shown("writeback", bytes([writeback]))],
    )


@check(
    "block-config.writeback-is-kept",
    covers=["block.device.described.writeback"],
    types=BLOCK,
    features=[BlockFeature.FLUSH, BlockFeature.CONFIG_WCE],
)
def writeback_is_kept(bench: "Bench") -> None:
    """The cache mode reads as the driver chose it."""
    disk = Disk(bench, BlockFeature.FLUSH, BlockFeature.CONFIG_WCE)
    before = int(disk.config["writeback"])
    bench.expect(
        before in (0, 1),
        "block.device.described.writeback",
        expected="writeback 0 or 1",
        observed=f"writeback {before}",
    )
    for wanted in (1 - before, before):
        bench.control.write_config(offset_of(CONFIG, "writeback"), bytes([wanted]))
        bench.done(f"wrote {wanted} to writeback")
        found = int(disk.read_config()["writeback"])
        bench.expect(
            found == wanted,
            "block.device.described.writeback",
            expected=f"writeback {wanted}",
            observed=f"writeback {found}",
        )
