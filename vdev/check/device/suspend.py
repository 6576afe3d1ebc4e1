"""Checks of a device that can be suspended."""

from spec.device import DeviceStatus, Feature
from vdev.check.bench.bench import Bench
from vdev.check.device.configuration import read
from vdev.check.device.device_status import words
from vdev.check.device.left_alone import LeftAlone, post_plain
from vdev.check.registry import BOTH, check
from vdev.devices.kind import Carrier

_NEEDS = [Feature.SUSPEND]
_MMIO = [Carrier.MMIO]


@check("suspend.ignored-before-driver-ok", covers=["suspend.device.1"], carriers=_MMIO, features=_NEEDS)
def ignored_before_driver_ok(bench: Bench) -> None:
    """The SUSPEND bit has no effect before the driver is up."""
    bench.start(features=_NEEDS, drive=False)
    before = bench.control.status()
    bench.control.set_status(before | DeviceStatus.SUSPEND)
    status = bench.control.status()
    bench.expect(
        not status & DeviceStatus.SUSPEND,
        "suspend.device.1",
        expected="no SUSPEND before DRIVER_OK",
        observed=words(status),
    )


def _suspend(bench: Bench) -> bool:
    """Set SUSPEND; say whether the device is suspended rather than in need of a reset."""
    bench.done("suspend the device")
    bench.control.set_status(bench.control.status() | DeviceStatus.SUSPEND)
    status = bench.control.status()
    bench.expect(
        bool(status & (DeviceStatus.SUSPEND | DeviceStatus.DEVICE_NEEDS_RESET)),
        "suspend.device.6",
        expected="SUSPEND or DEVICE_NEEDS_RESET in the status",
        observed=words(status),
    )
    return bool(status & DeviceStatus.SUSPEND)


def _resume(bench: Bench) -> bool:
    bench.done("resume the device")
    bench.control.set_status(bench.control.status() | DeviceStatus.DRIVER_OK)
    status = bench.control.status()
    is_running = status & DeviceStatus.DRIVER_OK and not status & DeviceStatus.SUSPEND
    bench.expect(
        bool(is_running or status & DeviceStatus.DEVICE_NEEDS_RESET),
        "suspend.device.7",
        expected="DRIVER_OK without SUSPEND, or DEVICE_NEEDS_RESET",
        observed=words(status),
    )
    return not status & DeviceStatus.DEVICE_NEEDS_RESET


@check("suspend.suspends", covers=["suspend.device.6"], carriers=_MMIO, features=_NEEDS)
def suspends(bench: Bench) -> None:
    """A device that is asked to suspend shows SUSPEND, or asks for a reset."""
    bench.start(features=_NEEDS)
    _suspend(bench)


@check("suspend.queues-are-left-alone", covers=["suspend.device.3"], formats=BOTH, carriers=_MMIO, features=_NEEDS)
def queues_are_left_alone(bench: Bench) -> None:
    """A suspended device uses no buffer and interrupts nobody."""
    bench.start(features=_NEEDS)
    ring = bench.ring()
    bench.exchange(ring)
    if not _suspend(bench):
        bench.not_applicable("the device could not suspend")
    still = LeftAlone(bench, ring, post_plain(bench, ring))
    ring.kick()
    still.expect("suspend.device.3", "while the device is suspended")


@check("suspend.resumes", covers=["suspend.device.7"], formats=BOTH, carriers=_MMIO, features=_NEEDS)
def resumes(bench: Bench) -> None:
    """A device that is resumed carries requests out again."""
    bench.start(features=_NEEDS)
    ring = bench.ring()
    bench.exchange(ring)
    if not _suspend(bench):
        bench.not_applicable("the device could not suspend")
    if not _resume(bench):
        return
    post_plain(bench, ring)
    ring.kick()
    bench.expect(
        bool(ring.used_now()),
        "suspend.device.7",
        expected="a buffer used after DRIVER_OK was set again",
        observed=f"none, with status {words(bench.control.status())}",
    )


@check(
    "suspend.takes-no-configuration", covers=["suspend.device.2"], carriers=_MMIO, features=_NEEDS, types=["balloon"]
)
def takes_no_configuration(bench: Bench) -> None:
    """What is written to a suspended device's configuration space has no effect."""
    bench.start(features=_NEEDS)
    if not _suspend(bench):
        bench.not_applicable("the device could not suspend")
    before = read(bench)
    bench.control.write_config(4, b"\x07\0\0\0")
    bench.expect(
        read(bench) == before,
        "suspend.device.2",
        expected="the field actual as it was before",
        observed="another value",
    )


@check(
    "suspend.announces-changes-late",
    covers=["suspend.device.4", "suspend.device.5"],
    carriers=_MMIO,
    features=_NEEDS,
    types=["balloon"],
)
def announces_changes_late(bench: Bench) -> None:
    """A change that its host makes meanwhile is announced when the device is resumed, and not before."""
    bench.start(features=_NEEDS)
    if not _suspend(bench):
        bench.not_applicable("the device could not suspend")
    before = bench.registers.config_change_count
    bench.host("inflate", pages=3)
    told = bench.registers.config_change_count - before
    bench.expect(
        not told,
        "suspend.device.4",
        expected="no configuration change notification while the device is suspended",
        observed=f"{told} notifications",
    )
    if not _resume(bench):
        bench.not_applicable("the device could not resume")
    bench.expect(
        bench.registers.config_change_count > before,
        "suspend.device.5",
        expected="the change announced once the device was resumed",
        observed="no configuration change notification",
    )


@check("suspend.everything-taken-is-used", covers=["suspend.device.8"], formats=BOTH, carriers=_MMIO, features=_NEEDS)
def everything_taken_is_used(bench: Bench) -> None:
    """What a device had taken is used and announced when it shows itself suspended, and DRIVER_OK is clear."""
    bench.start(features=_NEEDS)
    ring = bench.ring()
    before = bench.control.call_count(ring.number)
    post_plain(bench, ring, 3)
    ring.kick()
    if not _suspend(bench):
        bench.not_applicable("the device could not suspend")
    used = len(ring.used_now())
    status = bench.control.status()
    bench.expect(
        not status & DeviceStatus.DRIVER_OK,
        "suspend.device.8",
        expected="SUSPEND without DRIVER_OK",
        observed=words(status),
    )
    told = bench.control.call_count(ring.number) - before
    bench.expect(
        not used or bool(told),
        "suspend.device.8",
        expected="the driver notified of what was used before",
        observed=f"{used} buffers used, and no notification",
    )
