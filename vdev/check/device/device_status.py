"""Checks of the device status field and of reset."""

from collections.abc import Callable, Iterator

from spec.device import DeviceStatus
from spec.mmio import Interrupt, Register
from vdev.check.bench.bench import Bench
from vdev.check.bench.ring import Segment
from vdev.check.device.left_alone import LeftAlone, expect_served, post_plain
from vdev.check.registry import BOTH, check
from vdev.devices.kind import Carrier

_RESET_READS = 1000
_NAMES = {bit: bit.name for bit in DeviceStatus}


def words(status: int) -> str:
    """Return a status for people.

    >>> words(3)
    'ACKNOWLEDGE|DRIVER (0x3)'
    """
    found = [str(name) for bit, name in _NAMES.items() if bit and status & bit]
    return f"{'|'.join(found) or 'RESET'} ({status:#x})"


@check("status.nothing-before-driver-ok", covers=["status.device.1"], formats=BOTH, carriers=[Carrier.MMIO])
def nothing_before_driver_ok(bench: Bench) -> None:
    """Before DRIVER_OK no buffer is used, whether or not the driver notifies."""
    bench.start(drive=False)
    ring = bench.ring()
    posted = post_plain(bench, ring)
    still = LeftAlone(bench, ring, posted)
    ring.kick()
    still.expect("status.device.1", "before DRIVER_OK")


@check("status.reads-back", covers=["mmio.device.described.status"], carriers=[Carrier.MMIO])
def reads_back(bench: Bench) -> None:
    """Each bit that the driver sets can be read back, and those before it stay."""
    wanted = 0
    for bit in (DeviceStatus.ACKNOWLEDGE, DeviceStatus.DRIVER):
        wanted |= bit
        bench.control.set_status(wanted)
        status = bench.control.status()
        bench.expect(
            status == wanted,
            "mmio.device.described.status",
            expected=words(wanted),
            observed=words(status),
        )
    bench.start()
    status = bench.control.status()
    running = wanted | DeviceStatus.FEATURES_OK | DeviceStatus.DRIVER_OK
    bench.expect(status == running, "mmio.device.described.status", expected=words(running), observed=words(status))


@check("reset.status-reads-zero", covers=["reset.device.1"])
def status_reads_zero(bench: Bench) -> None:
    """After a reset the status is 0, whether the device had a driver, was half way, or was new."""
    steps: tuple[Callable[[], None], ...] = (bench.reset, bench.control.begin, bench.start)
    for bring_up in steps:
        bring_up()
        bench.done("write 0 as device status, and read it back")
        bench.control.set_status(0)
        status = next((status for status in _reads(bench) if not status), bench.control.status())
        bench.expect(status == 0, "reset.device.1", expected="a status of 0", observed=words(status))
        bench.reset()


def _reads(bench: Bench) -> Iterator[int]:
    """Yield the status as often as a driver reads it until a reset is done."""
    for _ in range(_RESET_READS):
        yield bench.control.status()


@check("reset.queues-are-left-alone", covers=["reset.device.2"], formats=BOTH, carriers=[Carrier.MMIO])
def queues_are_left_alone(bench: Bench) -> None:
    """After a reset a buffer that is available is not used, and nobody is notified."""
    bench.start()
    ring = bench.ring()
    bench.exchange(ring)
    posted = post_plain(bench, ring)
    still = LeftAlone(bench, ring, posted)
    bench.reset()
    ring.kick()
    status = bench.registers.read(Register.INTERRUPT_STATUS)
    still.expect("reset.device.2", "after a reset")
    bench.expect(
        status == 0, "reset.device.2", expected="no interrupt pending after a reset", observed=f"causes {status:#x}"
    )


@check("reset.another-driver-starts-anew", covers=["reset.device.described.features"], formats=BOTH)
def another_driver_starts_anew(bench: Bench) -> None:
    """After a reset a driver with other rings brings the device up, and its requests are carried out."""
    for driver in ("first", "second", "third"):
        bench.start()
        ring = bench.ring()
        for turn in range(13):
            how = f"as request {turn + 1} of the {driver} driver"
            expect_served(bench, ring, "reset.device.described.features", how)
        bench.reset()


def _broken_ring(bench: Bench) -> None:
    """Have the driver's part of the ring say what cannot be: a chain that begins outside of guest RAM."""
    ring = bench.ring()
    ring.post(segments=[Segment(bench.memory.outside(), 64, True)])
    ring.publish()
    ring.kick()


@check(
    "status.an-error-asks-for-a-reset",
    covers=["status.device.2", "hostile.device.alive", "hostile.device.memory"],
    carriers=[Carrier.MMIO],
    hostile=True,
)
def an_error_asks_for_a_reset(bench: Bench) -> None:
    """A device that stops for what a ring says sets DEVICE_NEEDS_RESET."""
    bench.start()
    _broken_ring(bench)
    status = bench.control.status()
    if status & DeviceStatus.DEVICE_NEEDS_RESET:
        return
    ring = bench.ring()
    ring.used_now()
    post_plain(bench, ring)
    ring.kick()
    bench.expect(
        bool(ring.used_now()),
        "status.device.2",
        expected=f"{words(status | DeviceStatus.DEVICE_NEEDS_RESET)}, or a device that goes on",
        observed=f"{words(status)}, and the next request is not carried out",
    )
    bench.inconclusive("the device goes on after a chain that cannot be")


@check(
    "status.asking-for-a-reset-is-announced",
    covers=["status.device.3"],
    carriers=[Carrier.MMIO],
    hostile=True,
)
def asking_for_a_reset_is_announced(bench: Bench) -> None:
    """A device that sets DEVICE_NEEDS_RESET while a driver is up sends a configuration change notification."""
    bench.start()
    bench.registers.acknowledges = False
    _broken_ring(bench)
    status = bench.control.status()
    if not status & DeviceStatus.DEVICE_NEEDS_RESET:
        bench.not_applicable("the device does not ask for a reset for a chain outside of guest RAM")
    causes = bench.registers.read(Register.INTERRUPT_STATUS)
    bench.expect(
        bool(causes & Interrupt.CONFIGURATION_CHANGE) and bool(bench.registers.interrupts),
        "status.device.3",
        expected="an interrupt with bit 1 of InterruptStatus set",
        observed=f"{len(bench.registers.interrupts)} interrupts, InterruptStatus {causes:#x}",
    )
