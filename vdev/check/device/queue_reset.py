"""Checks of queue reset: one queue is stopped for good, and set up again."""

from spec.device import Feature
from spec.mmio import Register
from vdev.check.bench.bench import Bench
from vdev.check.bench.ring import Ring
from vdev.check.device.left_alone import LeftAlone, expect_served, post_plain
from vdev.check.registry import BOTH, check
from vdev.devices.kind import Carrier

_NEEDS = [Feature.RING_RESET]
_MMIO = [Carrier.MMIO]
_RESET_READS = 1000


@check("queue-reset.requests-are-dropped", covers=["queue-reset.device.reset.1"], formats=BOTH, features=_NEEDS)
def requests_are_dropped(bench: Bench) -> None:
    """What is available in a queue that was reset is not carried out, nor is the driver notified for it."""
    bench.start(features=_NEEDS)
    ring = bench.ring()
    bench.exchange(ring)
    bench.control.reset_queue(ring.number)
    still = LeftAlone(bench, ring, post_plain(bench, ring))
    ring.kick()
    still.expect("queue-reset.device.reset.1", "after the queue was reset")


@check("queue-reset.begins-anew", covers=["queue-reset.device.reset.2"], formats=BOTH, features=_NEEDS)
def begins_anew(bench: Bench) -> None:
    """A queue that was reset begins at its first position again, with nothing of before left."""
    bench.start(features=_NEEDS)
    ring = bench.ring()
    for _ in range(ring.size + 3):
        bench.exchange(ring)
    bench.control.reset_queue(ring.number)
    again = _enable_again(bench, ring.number, ring.size)
    expect_served(bench, again, "queue-reset.device.reset.2", "at its first position")


@check(
    "queue-reset.another-size-and-place",
    covers=["queue-reset.device.re-enable.1"],
    formats=BOTH,
    features=_NEEDS,
)
def another_size_and_place(bench: Bench) -> None:
    """A queue that was reset works with another size at other addresses, over several laps."""
    bench.start(features=_NEEDS)
    ring = bench.ring()
    bench.control.reset_queue(ring.number)
    smaller = max(4, ring.size // 2)
    again = _enable_again(bench, ring.number, smaller)
    for turn in range(2 * smaller + 1):
        expect_served(bench, again, "queue-reset.device.re-enable.1", f"as request {turn + 1} of a ring of {smaller}")


def _enable_again(bench: Bench, number: int, size: int) -> Ring:
    bench.done(f"set queue {number} up again with {size} descriptors in other memory")
    ring = bench.set_up(number, size)
    if bench.carrier is Carrier.VHOST_USER:
        bench.front_end.set_kick(number)
        bench.front_end.enable(number)
    return ring


@check(
    "queue-reset.registers-read-zero",
    covers=["mmio.device.registers.8", "mmio.device.registers.9", "mmio.device.registers.12"],
    carriers=_MMIO,
    features=_NEEDS,
)
def registers_read_zero(bench: Bench) -> None:
    """QueueReset is 0 after a device reset, after a queue was enabled, and with QueueReady after its reset."""
    bench.start(features=_NEEDS)
    number = bench.ring().number
    _expect_register(bench, number, Register.QUEUE_RESET, "mmio.device.registers.9", "after the queue was enabled")
    bench.registers.select_queue(number)
    bench.registers.write(Register.QUEUE_RESET, 1)
    if not any(bench.registers.read(Register.QUEUE_RESET) == 0 for _ in range(_RESET_READS)):
        bench.inconclusive("the reset of the queue has not come to its end")
    for register in (Register.QUEUE_RESET, Register.QUEUE_READY):
        _expect_register(bench, number, register, "mmio.device.registers.12", "after the queue was reset")
    bench.reset()
    _expect_register(bench, number, Register.QUEUE_RESET, "mmio.device.registers.8", "after the device was reset")


@check("queue-reset.register-resets", covers=["mmio.device.registers.10"], carriers=_MMIO, features=_NEEDS)
def register_resets(bench: Bench) -> None:
    """Writing 1 to QueueReset stops the queue that is selected, and none else."""
    bench.start(features=_NEEDS)
    others = [number for number in bench.rings if number != bench.ring().number]
    bench.registers.select_queue(bench.ring().number)
    bench.registers.write(Register.QUEUE_RESET, 1)
    ready = bench.registers.read(Register.QUEUE_READY)
    bench.expect(
        not ready,
        "mmio.device.registers.10",
        expected="a queue that is not ready after 1 was written to QueueReset",
        observed=f"QueueReady {ready}",
    )
    for number in others:
        bench.registers.select_queue(number)
        ready = bench.registers.read(Register.QUEUE_READY)
        bench.expect(
            ready == 1,
            "mmio.device.registers.10",
            expected=f"queue {number} ready as before, as another one was reset",
            observed=f"QueueReady {ready}",
        )


def _expect_register(bench: Bench, number: int, register: Register, statement: str, when: str) -> None:
    bench.registers.select_queue(number)
    found = bench.registers.read(register)
    bench.expect(not found, statement, expected=f"{register.name} 0 {when}", observed=f"{found}")
