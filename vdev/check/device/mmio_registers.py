"""Checks of the virtio-mmio registers."""

from spec.device import DeviceStatus, Feature, feature_mask
from spec.mmio import ABSENT_SHARED_MEMORY, MAGIC_VALUE, READABLE, VERSION, WRITABLE, Register
from vdev.check.bench.bench import Bench
from vdev.check.registry import check
from vdev.devices.kind import Carrier

_MMIO = [Carrier.MMIO]
_ABSENT_QUEUE = 0x7FFF


def _expect_register(bench: Bench, register: Register, expected: int, statement: str, when: str = "") -> None:
    found = bench.registers.read(register)
    bench.expect(
        found == expected,
        statement,
        expected=f"{register.name} {expected:#x}{when}",
        observed=f"{found:#x}",
    )


@check("mmio.magic-and-version", covers=["mmio.device.registers.1", "mmio.device.registers.2"], carriers=_MMIO)
def magic_and_version(bench: Bench) -> None:
    """MagicValue is "virt" and Version is 2, before and after the device is brought up."""
    for _ in range(2):
        _expect_register(bench, Register.MAGIC_VALUE, MAGIC_VALUE, "mmio.device.registers.1")
        _expect_register(bench, Register.VERSION, VERSION, "mmio.device.registers.2")
        bench.start()


@check("mmio.device-id", covers=["mmio.device.described.device-id"], carriers=_MMIO)
def device_id(bench: Bench) -> None:
    """DeviceID is that of the type that the device is said to have."""
    if not bench.traffic.device_id:
        bench.not_applicable("the device's type is not known")
    _expect_register(bench, Register.DEVICE_ID, bench.traffic.device_id, "mmio.device.described.device-id")


@check("mmio.feature-words", covers=["mmio.device.described.feature-words"], carriers=_MMIO)
def feature_words(bench: Bench) -> None:
    """Each word of DeviceFeatures reads the same twice, in any order, and those past the last feature are 0."""
    selected = (0, 1, 4, 0x1_0000, 1, 0, 0xFFFF_FFFF)
    words: dict[int, int] = {}
    for word in selected:
        bench.registers.write(Register.DEVICE_FEATURES_SEL, word)
        found = bench.registers.read(Register.DEVICE_FEATURES)
        wanted = words.setdefault(word, found) if word < 4 else 0
        bench.expect(
            found == wanted,
            "mmio.device.described.feature-words",
            expected=f"word {word:#x} of the features {wanted:#x}",
            observed=f"{found:#x}",
        )


@check("mmio.absent-queue-has-size-0", covers=["mmio.device.described.queue-size-max"], carriers=_MMIO)
def absent_queue_has_size_0(bench: Bench) -> None:
    """QueueSizeMax is 0 where there is no queue, and not where the device needs one."""
    bench.registers.write(Register.QUEUE_SEL, _ABSENT_QUEUE)
    _expect_register(bench, Register.QUEUE_SIZE_MAX, 0, "mmio.device.described.queue-size-max", " for no queue")
    bench.registers.write(Register.QUEUE_SEL, bench.traffic.queue)
    most = bench.registers.read(Register.QUEUE_SIZE_MAX)
    bench.expect(
        0 < most <= 32768,
        "mmio.device.described.queue-size-max",
        expected=f"a size from 1 to 32768 for queue {bench.traffic.queue}",
        observed=f"{most}",
    )


@check("mmio.queue-ready-reads-back", covers=["mmio.device.described.queue-ready"], carriers=_MMIO)
def queue_ready_reads_back(bench: Bench) -> None:
    """QueueReady is 0 before a queue is set up, 1 afterwards, and 0 once the driver has stopped it."""
    statement = "mmio.device.described.queue-ready"
    bench.registers.write(Register.QUEUE_SEL, bench.traffic.queue)
    _expect_register(bench, Register.QUEUE_READY, 0, statement, " of a queue that nobody has set up")
    bench.start()
    bench.registers.write(Register.QUEUE_SEL, bench.traffic.queue)
    _expect_register(bench, Register.QUEUE_READY, 1, statement, " of a queue that is ready")
    bench.registers.write(Register.QUEUE_READY, 0)
    _expect_register(bench, Register.QUEUE_READY, 0, statement, " of a queue that was stopped")


@check("mmio.reset-clears-queues-and-interrupts", covers=["mmio.device.registers.5"], carriers=_MMIO)
def reset_clears_queues_and_interrupts(bench: Bench) -> None:
    """After a reset InterruptStatus is 0 and no queue is ready."""
    bench.start()
    bench.registers.acknowledges = False
    bench.exchange(bench.ring())
    bench.reset()
    statement = "mmio.device.registers.5"
    _expect_register(bench, Register.INTERRUPT_STATUS, 0, statement, " after a reset")
    for number in bench.traffic.queues(bench):
        bench.registers.write(Register.QUEUE_SEL, number)
        _expect_register(bench, Register.QUEUE_READY, 0, statement, f" of queue {number} after a reset")


@check("mmio.absent-shared-memory", covers=["mmio.device.described.shared-memory"], carriers=_MMIO)
def absent_shared_memory(bench: Bench) -> None:
    """A shared memory region that there is not has a length of all ones."""
    bench.registers.write(Register.SHM_SEL, 0xFF)
    statement = "mmio.device.described.shared-memory"
    for register in (Register.SHM_LEN_LOW, Register.SHM_LEN_HIGH):
        _expect_register(bench, register, ABSENT_SHARED_MEMORY, statement, " for no region")


@check("mmio.odd-accesses-are-survived", covers=["hostile.device.alive"], carriers=_MMIO, hostile=True)
def odd_accesses_are_survived(bench: Bench) -> None:
    """Accesses where no register is, of other widths, or against a register's direction do no harm."""
    bench.start()
    harmless = {Register.QUEUE_SEL, Register.QUEUE_NOTIFY, Register.INTERRUPT_ACK, Register.SHM_SEL}
    for offset in range(0, 0x100, 4):
        bench.registers.read(offset, 4)
        if offset not in WRITABLE:
            bench.registers.write(offset, 0xFFFF_FFFF, 4)
    for offset in sorted(READABLE | harmless):
        for width in (1, 2, 8):
            bench.registers.read(offset, width)
            bench.registers.write(offset + 1, (1 << 8 * width) - 1, width)
    bench.exchange(bench.ring())


@check("mmio.odd-values-are-survived", covers=["hostile.device.alive"], carriers=_MMIO, hostile=True)
def odd_values_are_survived(bench: Bench) -> None:
    """Values that no register takes do no harm, and leave a device that can be reset."""
    bench.start()
    write = bench.registers.write
    for value in (0xFFFF_FFFF, 0x8000_0000, 0xFFFF, 2):
        for register in (Register.QUEUE_NOTIFY, Register.INTERRUPT_ACK, Register.QUEUE_SEL, Register.QUEUE_READY):
            write(register, value)
        for register in (
            Register.QUEUE_SIZE,
            Register.QUEUE_DESC_LOW,
            Register.QUEUE_DEVICE_HIGH,
            Register.QUEUE_RESET,
        ):
            write(register, value)
        write(Register.DRIVER_FEATURES_SEL, value)
        write(Register.DRIVER_FEATURES, value)
    write(Register.STATUS, 0xFFFF_FF00)
    bench.reset()
    bench.start()
    bench.exchange(bench.ring())


@check(
    "mmio.queue-of-no-size-is-survived",
    covers=["hostile.device.alive", "hostile.device.memory"],
    carriers=_MMIO,
    hostile=True,
)
def queue_of_no_size_is_survived(bench: Bench) -> None:
    """A queue with a size or an address that cannot be is refused, and the device can be reset."""
    outside = bench.memory.outside()
    for size, address in ((0, 0x1000), (0x8001, 0x1000), (3, 0x1001), (8, outside), (8, (1 << 64) - 16)):
        bench.reset()
        bench.control.begin()
        bench.control.accept_features(bench.offered & feature_mask(Feature.VERSION_1))
        bench.registers.write(Register.QUEUE_SEL, bench.traffic.queue)
        bench.registers.write(Register.QUEUE_SIZE, size)
        for low in (Register.QUEUE_DESC_LOW, Register.QUEUE_DRIVER_LOW, Register.QUEUE_DEVICE_LOW):
            bench.registers.write(low, address & 0xFFFF_FFFF)
            bench.registers.write(low + 4, address >> 32)
        bench.registers.write(Register.QUEUE_READY, 1)
        bench.control.set_status(bench.control.status() | DeviceStatus.DRIVER_OK)
        bench.registers.write(Register.QUEUE_NOTIFY, bench.traffic.queue)
    bench.reset()
    bench.start()
    bench.exchange(bench.ring())
