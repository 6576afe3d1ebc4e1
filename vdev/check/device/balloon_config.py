"""Checks of the balloon's configuration space."""

from typing import TYPE_CHECKING

from spec.balloon import BalloonFeature
from vdev.check.device.balloon_bench import BALLOON, Balloon
from vdev.check.registry import BOTH, check
from vdev.devices.kind import Carrier

if TYPE_CHECKING:
    from vdev.check.bench.bench import Bench

_POISON = 0xA5A5_A5A5


@check("balloon-config.actual-is-kept", covers=["balloon.device.described.actual"], types=BALLOON)
def actual_is_kept(bench: "Bench") -> None:
    """Actual is 0 at first, and then what the driver wrote."""
    balloon = Balloon(bench)
    for wanted in (0, 1, 0x1234, 0):
        if wanted or balloon.field("actual"):
            balloon.write_field("actual", wanted)
        found = balloon.field("actual")
        bench.expect(
            found == wanted,
            "balloon.device.described.actual",
            expected=f"actual {wanted}",
            observed=f"actual {found}",
        )


@check(
    "balloon-config.poison-is-kept",
    covers=["balloon.device.described.poison-writable"],
    types=BALLOON,
    features=[BalloonFeature.PAGE_POISON],
)
def poison_is_kept(bench: "Bench") -> None:
    """poison_val reads as the driver wrote it before DRIVER_OK."""
    balloon = Balloon(bench, BalloonFeature.PAGE_POISON, drive=False)
    balloon.write_field("poison_val", _POISON)
    balloon.drive()
    found = balloon.field("poison_val")
    bench.expect(
        found == _POISON,
        "balloon.device.described.poison-writable",
        expected=f"poison_val {_POISON:#x}",
        observed=f"poison_val {found:#x}",
    )


@check("balloon-config.target-is-told", covers=["balloon.device.described.target"], formats=BOTH, types=BALLOON)
def target_is_told(bench: "Bench") -> None:
    """When the host wants another size, num_pages says so, the larger as the smaller one."""
    balloon = Balloon(bench)
    for wanted in (300, 5, 0):
        before = bench.control.config_generation()
        bench.host("inflate", pages=wanted)
        balloon.wait_field("num_pages", wanted.__eq__, "balloon.device.described.target", expected=f"{wanted}")
        if bench.carrier is Carrier.MMIO:
            bench.expect(
                bench.control.config_generation() != before,
                "balloon.device.described.target",
                expected="another ConfigGeneration",
                observed=f"{before} as before",
            )
