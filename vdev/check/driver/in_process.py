"""A driver and the judging device in one process, over registers: no thread, no waiting, the same each time."""

from collections.abc import Callable
from typing import Protocol

from vdev.bus import MMIO_BASE
from vdev.check.driver.judge import Judge
from vdev.check.driver.plan import Start
from vdev.check.driver.registers import JudgedRegisters
from vdev.devices.kind import Carrier
from vdev.errors import VdevError
from vdev.memory import GuestMemory

__all__ = ["JudgedDriver", "Window", "judge_in_process"]

_ROUND = 0.01
"""Seconds of the judge's clock that pass with each round in which nothing happens."""
_ROUNDS = 20_000
"""A driver that is never done is left after so many rounds."""


class JudgedDriver(Protocol):
    """A driver that was started."""

    @property
    def gave_up(self) -> str | None:
        """Why it uses the device no more."""
        ...

    def handle_interrupt(self) -> None:
        """Do what an interrupt makes it do."""
        ...

    def step(self) -> bool:
        """Do the next thing; false if there is nothing to do before an interrupt."""
        ...


class Window:
    """The device's registers at MMIO_BASE, for a driver's accesses by guest-physical address."""

    def __init__(self, registers: JudgedRegisters) -> None:
        self._registers = registers

    def read(self, address: int, size: int) -> int:
        """Return a register's value."""
        return self._registers.read(address - MMIO_BASE, size)

    def write(self, address: int, size: int, value: int) -> None:
        """Write a register."""
        self._registers.write(address - MMIO_BASE, size, value)


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def judge_in_process(
    judge: Judge,
    start_driver: Callable[[Window, GuestMemory], JudgedDriver | None],
    *,
    memory_size: int,
    can_stop: Callable[[JudgedDriver], None] = lambda _: None,
) -> None:
    """Have `judge` sit over a driver that `start_driver` starts anew for each start of the plan.

    It raises a VdevError if the driver does not take the device, and returns None if it finds none. `can_stop` removes
    the driver at the end.
    """
    for start in judge.plan.starts:
        _sit(judge, start, start_driver, memory_size, can_stop)


def _sit(
    judge: Judge,
    start: Start,
    start_driver: Callable[[Window, GuestMemory], JudgedDriver | None],
    memory_size: int,
    stop: Callable[[JudgedDriver], None],
) -> None:
    clock = _Clock()
    memory = GuestMemory.private(memory_size)
    sitting = judge.sit(start, memory, Carrier.MMIO, clock)
    window = Window(JudgedRegisters(sitting))
    interrupts = 0

    def interrupt() -> None:
        nonlocal interrupts
        interrupts += 1

    sitting.device.interrupt = interrupt
    sitting.wrap_calls()
    driver: JudgedDriver | None = None
    try:
        driver = start_driver(window, memory)
        if driver is None:
            sitting.note_passed_over()
    except VdevError as error:
        sitting.note_refusal(str(error))
    for _ in range(_ROUNDS):
        if sitting.is_over:
            break
        busy = False
        if driver is not None and driver.gave_up is None:
            if interrupts:
                interrupts = 0
                driver.handle_interrupt()
            busy = driver.step() or bool(interrupts)
        if driver is not None and driver.gave_up is not None:
            sitting.note_refusal(driver.gave_up)
        if not busy:
            sitting.note_silence(certain=True)
            clock.now += _ROUND
        sitting.turn()
    if driver is not None and driver.gave_up is None:
        stop(driver)
    sitting.close()
    sitting.device.close()
