"""Let a guest prove that it lost nothing: it works on for a while, halts, and checks all it relies on."""

from typing import Any

from guest_agent.vcpu_state import VcpuState
from vdev.machine import Machine
from vdev.schedule import Schedule

__all__ = ["prove"]

_LOOKS = 100


async def prove(machine: Machine, schedule: Schedule, *, settle: float = 0.2, stayed: bool = False) -> dict[str, Any]:
    """Return the verdict of a running guest; it goes on running.

    It is looked at every `settle` seconds until it has done an operation since it was restored, at most 100 times: an
    idle guest is not waited for without end. A guest that `stayed` where it was, because its migration failed, is to do
    one from now on; the verdict's `resumed_operations` are then those since now.
    """
    verdict: dict[str, Any] = {}
    count_before = VcpuState.from_bytes(await machine.pause()).operation_count if stayed else None
    if stayed:
        await machine.resume()
    for _ in range(_LOOKS):
        await schedule.sleep("prover", settle)
        await machine.pause()
        verdict = await machine.vcpu.verify()
        await machine.resume()
        if count_before is not None:
            verdict["resumed_operations"] = verdict["operation_count"] - count_before
        if verdict["mismatched"] or verdict["resumed_operations"]:
            break
    return verdict
