"""The vCPU as the host holds it: boot, restore, pause, run, verify, end; in a process, or in the host's own loop."""

from vdev.vcpu.exits import ExitViolation, parse_verdict
from vdev.vcpu.guest_process import GuestProcess, SharedRam
from vdev.vcpu.loop import GuestCore, LoopExits, LoopVcpu
from vdev.vcpu.process import ProcessVcpu
from vdev.vcpu.vcpu import GuestDied, GuestFault, GuestNotResponding, Vcpu

__all__ = [
    "ExitViolation",
    "GuestCore",
    "GuestDied",
    "GuestFault",
    "GuestNotResponding",
    "GuestProcess",
    "LoopExits",
    "LoopVcpu",
    "ProcessVcpu",
    "SharedRam",
    "Vcpu",
    "parse_verdict",
]
