"""Let a guest prove that it lost nothing: it works on for a while, halts, and checks all it relies on."""

from typing import Any

from vdev.machine import Machine
from vdev.schedule import Schedule

__all__ = ["prove"]

_LOOKS = 100


async def prove(machine: Machine, schedule: Schedule, *, settle: float = 0.2, operations: int = 1) -> dict[str, Any]:
    """Return the verdict of a running guest; it goes on running.

    It is looked at every `settle` seconds until it has done `operations` since it was restored, at most 100 times: an
    idle guest is not waited for without end.
    """
    verdict: dict[str, Any] = {}
    for _ in range(_LOOKS):
        await schedule.sleep("prover", settle)
        await machine.pause()
        verdict = await machine.vcpu.verify()
        await machine.resume()
        if verdict["mismatched"] or verdict["resumed_operations"] >= operations:
            break
    return verdict
