"""A device in this process behind its virtio-mmio registers: all that it does, it does in a register access."""

import signal
import socket
import threading
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, TypeVar

from vdev.check.target import DEFAULT_PATIENCE, Ending, HostAction, MakeDevice
from vdev.check.verdict import Judgement, TargetCrashed, TargetHung
from vdev.device import Device
from vdev.devices.kind import Carrier
from vdev.memory import GuestMemory
from vdev.mmio import MmioRegisters

__all__ = ["RegistersTarget"]

_T = TypeVar("_T")


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
        self._guard = _Guard(patience)

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
            return self._guard.do(lambda: act(action, arguments), "the host's {}", action)

        return do

    def connect(self) -> socket.socket:
        """Raise TypeError: there is no socket."""
        raise TypeError("a device in this process has registers, and no socket")

    def plug_in(self, memory: GuestMemory) -> MmioRegisters:
        """Return the registers of a new device over `memory`; the one before is closed."""
        self.close()
        self._guard.open()
        device = self._device = self._guard.do(lambda: self._make(memory), "being made")
        return _JudgedRegisters(device, self._guard)

    def settle(self) -> Ending | None:
        """Return None: a device lives as long as its driver, and has died in an access if at all."""
        return None

    def restart(self) -> bool:
        """Return true: the next driver has a new device."""
        return True

    def close(self) -> None:
        """Close the device that there is."""
        self._guard.close()
        if self._device is not None:
            self._device.close()
            self._device = None


class _JudgedRegisters(MmioRegisters):
    """Registers whose device is not trusted."""

    def __init__(self, device: Device, guard: "_Guard") -> None:
        super().__init__(device)
        self._guard = guard

    def read(self, offset: int, size: int) -> int:
        return self._guard.do(
            lambda: MmioRegisters.read(self, offset, size), "a read of {1} bytes at {0:#x}", offset, size
        )

    def write(self, offset: int, size: int, value: int) -> None:
        self._guard.do(
            lambda: MmioRegisters.write(self, offset, size, value),
            "a write of {2:#x}, {1} bytes, at {0:#x}",
            offset,
            size,
            value,
        )


class _Guard:
    """What is done with a judged device: its exceptions become TargetCrashed, too long a time TargetHung."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._is_inside = False
        self._what: tuple[str, tuple[object, ...]] = ("", ())
        self._handler_before: Any = None

    def do(self, act: Callable[[], _T], what: str, *values: object) -> _T:
        """Return what `act` returns; `what` it is, a format for `values`, is for the judgement."""
        if self._is_inside:
            # The bench's own code, called by the device's interrupt, looks at a register.
            return act()
        has_timer = self._handler_before is not None and threading.current_thread() is threading.main_thread()
        self._is_inside = True
        if has_timer:
            self._what = what, values
            signal.setitimer(signal.ITIMER_REAL, self._patience)
        try:
            return act()
        except Judgement:
            raise
        except Exception as error:
            # Whatever a judged device raises is what is judged.
            raise TargetCrashed(
                f"the device raised {type(error).__name__} in {what.format(*values)}: {error}"
            ) from error
        finally:
            if has_timer:
                signal.setitimer(signal.ITIMER_REAL, 0)
            self._is_inside = False

    def open(self) -> None:
        """Have the timer's signal raise, if this is the thread that signals reach."""
        if self._handler_before is None and threading.current_thread() is threading.main_thread():
            self._handler_before = signal.signal(signal.SIGALRM, self._expire)

    def close(self) -> None:
        """Have the signal do what it did before."""
        if self._handler_before is not None:
            signal.signal(signal.SIGALRM, self._handler_before)
            self._handler_before = None

    def _expire(self, _number: int, _frame: FrameType | None) -> None:
        what, values = self._what
        raise TargetHung(f"{what.format(*values)} did not return within {self._patience:g} s")
