"""The vCPU as the host holds it: boot, restore, pause, run, verify, end; in a process, or in the host's own loop."""

from vdev.vcpu.loop import GuestCore, LoopExits, LoopVcpu
from vdev.vcpu.process import GuestProcess, ProcessVcpu, SharedRam
from vdev.vcpu.vcpu import GuestDied, GuestFault, Vcpu

__all__ = [
    "GuestCore",
    "GuestDied",
    "GuestFault",
    "GuestProcess",
    "LoopExits",
    "LoopVcpu",
    "ProcessVcpu",
    "SharedRam",
    "Vcpu",
]
