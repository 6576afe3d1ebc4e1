"""A device in this process behind its virtio-mmio registers: all that it does, it does in a register access."""

import contextlib
import signal
import threading
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

from vdev.check.target import DEFAULT_PATIENCE, Ending, HostAction, MakeDevice
from vdev.check.verdict import Judgement, TargetCrashed, TargetHung
from vdev.device import Device
from vdev.devices.kind import Carrier
from vdev.memory import GuestMemory
from vdev.mmio import MmioRegisters

__all__ = ["RegistersTarget"]


class RegistersTarget:
    """A new device that `make` makes for each driver.

    What it raises in a register access is a crash; an access that does not return in time hangs, if this is the main
    thread, which a signal reaches.
    """

    carrier = Carrier.MMIO

    def __init__(self, make: MakeDevice, *, patience: float = DEFAULT_PATIENCE) -> None:
        self.patience = patience
        self._make = make
        self._device: Device | None = None

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return "in this process"

    @property
    def host(self) -> HostAction | None:
        """What has the device's host act."""
        from vdev.check.balloon_host import host_of_device

        act = None if self._device is None else host_of_device(self._device)
        if act is None:
            return None

        def do(action: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
            with judged(self.patience, f"the host's {action}"):
                return act(action, arguments)

        return do

    def connect(self) -> "Any":
        """Raise TypeError: there is no socket."""
        raise TypeError("a device in this process has registers, and no socket")

    def plug_in(self, memory: GuestMemory) -> MmioRegisters:
        """Return the registers of a new device over `memory`; the one before is closed."""
        self.close()
        with judged(self.patience, "making the device"):
            self._device = self._make(memory)
        return _JudgedRegisters(self._device, self.patience)

    def settle(self) -> Ending | None:
        """Return None: a device lives as long as its driver, and has died in an access if at all."""
        return None

    def restart(self) -> bool:
        """Return true: the next driver has a new device."""
        return True

    def close(self) -> None:
        """Close the device that there is."""
        if self._device is not None:
            self._device.close()
            self._device = None


class _JudgedRegisters(MmioRegisters):
    """Registers whose device is not trusted."""

    def __init__(self, device: Device, patience: float) -> None:
        super().__init__(device)
        self._patience = patience

    def read(self, offset: int, size: int) -> int:
        with judged(self._patience, f"a read of {size} bytes at {offset:#x}"):
            return super().read(offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        with judged(self._patience, f"a write of {value:#x}, {size} bytes, at {offset:#x}"):
            super().write(offset, size, value)


@contextlib.contextmanager
def judged(patience: float, what: str) -> Iterator[None]:
    """Do `what` with a device that is judged: its exceptions become TargetCrashed, too long a time TargetHung."""
    try:
        with _limited(patience, what):
            yield
    except (Judgement, KeyboardInterrupt):
        raise
    except Exception as error:
        # Whatever a judged device raises is what is judged.
        raise TargetCrashed(f"the device raised {type(error).__name__} in {what}: {error}") from error


@contextlib.contextmanager
def _limited(patience: float, what: str) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def expire(_number: int, _frame: FrameType | None) -> None:
        raise TargetHung(f"{what} did not return within {patience:g} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, patience)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
