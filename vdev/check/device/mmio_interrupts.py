"""Checks of how a device behind virtio-mmio registers is notified, and notifies."""

from spec.device import Feature
from spec.mmio import Interrupt, Register
from vdev.check.bench.bench import Bench
from vdev.check.device.left_alone import LeftAlone, post_plain
from vdev.check.registry import BOTH, check
from vdev.devices.kind import Carrier

_MMIO = [Carrier.MMIO]
_STATUS = "mmio.device.registers.3"
_OTHERS = "mmio.device.registers.4"
_ACK = "mmio.device.described.interrupt-ack"


def _expect_causes(bench: Bench, expected: int, statement: str, when: str) -> None:
    found = bench.registers.read(Register.INTERRUPT_STATUS)
    bench.expect(
        found == expected,
        statement,
        expected=f"InterruptStatus {expected:#x} {when}",
        observed=f"{found:#x}",
    )


@check("mmio.interrupt-status-until-acknowledged", covers=[_STATUS], formats=BOTH, carriers=_MMIO)
def interrupt_status_until_acknowledged(bench: Bench) -> None:
    """A used buffer sets bit 0 of InterruptStatus, which stays until it is acknowledged."""
    bench.start()
    bench.registers.acknowledges = False
    bench.exchange(bench.ring())
    for when in ("after a used buffer", "as long as it is not acknowledged"):
        causes = bench.registers.read(Register.INTERRUPT_STATUS)
        bench.expect(
            bool(causes & Interrupt.USED_BUFFER),
            _STATUS,
            expected=f"bit 0 of InterruptStatus set {when}",
            observed=f"{causes:#x}",
        )
    bench.registers.write(Register.INTERRUPT_ACK, Interrupt.USED_BUFFER)
    causes = bench.registers.read(Register.INTERRUPT_STATUS)
    bench.expect(
        not causes & Interrupt.USED_BUFFER,
        _STATUS,
        expected="bit 0 of InterruptStatus clear once it is acknowledged",
        observed=f"{causes:#x}",
    )
    bench.exchange(bench.ring())
    causes = bench.registers.read(Register.INTERRUPT_STATUS)
    bench.expect(
        bool(causes & Interrupt.USED_BUFFER),
        _STATUS,
        expected="bit 0 of InterruptStatus set again by the next used buffer",
        observed=f"{causes:#x}",
    )


@check("mmio.interrupt-status-has-no-other-bits", covers=[_OTHERS], carriers=_MMIO)
def interrupt_status_has_no_other_bits(bench: Bench) -> None:
    """InterruptStatus shows what took place and nothing else."""
    _expect_causes(bench, 0, _OTHERS, "of a device that has done nothing")
    bench.start()
    _expect_causes(bench, 0, _OTHERS, "before any buffer was used")
    bench.registers.acknowledges = False
    bench.exchange(bench.ring())
    causes = bench.registers.read(Register.INTERRUPT_STATUS)
    bench.expect(
        not causes & ~int(Interrupt.USED_BUFFER),
        _OTHERS,
        expected="no bit but 0 set in InterruptStatus after a used buffer",
        observed=f"{causes:#x}",
    )


@check("mmio.acknowledging-takes-back-what-it-names", covers=[_ACK], carriers=_MMIO)
def acknowledging_takes_back_what_it_names(bench: Bench) -> None:
    """An acknowledgement of configuration changes leaves the cause of a used buffer pending."""
    bench.start()
    bench.registers.acknowledges = False
    bench.exchange(bench.ring())
    before = bench.registers.read(Register.INTERRUPT_STATUS)
    if not before & Interrupt.USED_BUFFER:
        bench.inconclusive("there is no used buffer notification pending")
    bench.registers.write(Register.INTERRUPT_ACK, Interrupt.CONFIGURATION_CHANGE)
    _expect_causes(bench, before & ~int(Interrupt.CONFIGURATION_CHANGE), _ACK, "after another cause was acknowledged")


@check("mmio.change-sets-bit-1", covers=[_STATUS], carriers=_MMIO, types=["balloon"])
def change_sets_bit_1(bench: Bench) -> None:
    """A change of configuration space sets bit 1 of InterruptStatus until it is acknowledged."""
    bench.start()
    bench.registers.acknowledges = False
    bench.host("inflate", pages=1)
    causes = bench.registers.read(Register.INTERRUPT_STATUS)
    bench.expect(
        bool(causes & Interrupt.CONFIGURATION_CHANGE),
        _STATUS,
        expected="bit 1 of InterruptStatus set after a change of configuration space",
        observed=f"{causes:#x}",
    )
    bench.registers.write(Register.INTERRUPT_ACK, Interrupt.CONFIGURATION_CHANGE)
    causes = bench.registers.read(Register.INTERRUPT_STATUS)
    bench.expect(
        not causes & Interrupt.CONFIGURATION_CHANGE,
        _STATUS,
        expected="bit 1 of InterruptStatus clear once it is acknowledged",
        observed=f"{causes:#x}",
    )


@check("mmio.queue-that-is-not-ready-is-left-alone", covers=["mmio.device.registers.7"], formats=BOTH, carriers=_MMIO)
def queue_that_is_not_ready_is_left_alone(bench: Bench) -> None:
    """While QueueReady is 0 a queue is not touched, whether the driver notifies or not."""
    bench.start()
    ring = bench.ring()
    bench.exchange(ring)
    bench.registers.write(Register.QUEUE_SEL, ring.number)
    bench.registers.write(Register.QUEUE_READY, 0)
    bench.registers.read(Register.QUEUE_READY)
    still = LeftAlone(bench, ring, post_plain(bench, ring))
    ring.kick()
    still.expect("mmio.device.registers.7", "while QueueReady is 0")


@check("mmio.notification-names-the-queue", covers=["mmio.device.described.notification"], formats=BOTH, carriers=_MMIO)
def notification_names_the_queue(bench: Bench) -> None:
    """Writing a queue's number to QueueNotify has its buffers used; the number of another does not do harm."""
    bench.start()
    ring = bench.ring()
    post_plain(bench, ring)
    bench.registers.write(Register.QUEUE_NOTIFY, 0x7FFF)
    bench.registers.write(Register.QUEUE_NOTIFY, ring.number)
    bench.expect(
        len(ring.used_now()) == 1,
        "mmio.device.described.notification",
        expected="the buffer used when its queue was notified",
        observed="no used buffer",
    )


@check(
    "mmio.notification-carries-data",
    covers=["mmio.device.described.notification-data"],
    formats=BOTH,
    carriers=_MMIO,
    features=[Feature.NOTIFICATION_DATA],
)
def notification_carries_data(bench: Bench) -> None:
    """With NOTIFICATION_DATA a kick names its queue in the low half, and where the driver goes on in the high one."""
    bench.start(features=[Feature.NOTIFICATION_DATA])
    ring = bench.ring()
    for turn in range(2 * ring.size):
        post_plain(bench, ring)
        ring.kick()
        bench.expect(
            len(ring.used_now()) == 1,
            "mmio.device.described.notification-data",
            expected=f"buffer {turn + 1} used after a kick with data",
            observed="no used buffer",
        )
