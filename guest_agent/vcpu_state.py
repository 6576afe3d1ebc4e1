"""The vCPU state: the little of a guest that is not in its RAM."""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from vdev.errors import VdevError

__all__ = ["VcpuState", "VcpuStateBroken"]

_FORMAT = 2


class VcpuStateBroken(VdevError):
    """Bytes that should be a vCPU state are not one; the message says where they stop making sense."""


@dataclass(frozen=True)
class VcpuState:
    """All that a guest needs, beside its RAM, to go on. JSON as bytes; no absolute time in it.

    `config` is the guest's configuration; `random` the generator's state; `digest` that of the tables in RAM;
    `delay` the seconds from the save to the next operation; `resumed_at` the operation count of the latest restore,
    None for a guest that was never moved; `slots` the front ends of its vhost-user devices (SavedTransport).
    """

    config: dict[str, Any]
    random: dict[str, Any]
    digest: int
    operation_count: int
    delay: float
    resumed_at: int | None
    slots: list[dict[str, Any]]

    def to_bytes(self) -> bytes:
        """Return the state in its format."""
        return json.dumps({"format": _FORMAT, **asdict(self)}, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "VcpuState":
        """Return the state that `to_bytes` wrote. Raises VcpuStateBroken for anything else."""
        try:
            mapping = json.loads(data)
        except ValueError as error:
            raise VcpuStateBroken(f"the vCPU state is not JSON: {error}") from None
        if not isinstance(mapping, dict):
            raise VcpuStateBroken("the vCPU state is not a JSON object")
        if mapping.pop("format", None) != _FORMAT:
            raise VcpuStateBroken(f"the vCPU state is not of format {_FORMAT}")
        if unlike := set(mapping) ^ {field.name for field in fields(cls)}:
            raise VcpuStateBroken(f"the vCPU state lacks or does not know {', '.join(sorted(unlike))}")
        for name, kinds in _KINDS.items():
            if not isinstance(mapping[name], kinds) or isinstance(mapping[name], bool):
                raise VcpuStateBroken(f"the vCPU state has {name} = {mapping[name]!r}")
        if not 0 <= mapping["digest"] < 1 << 64 or mapping["operation_count"] < 0 or not 0 <= mapping["delay"] < 1e9:
            raise VcpuStateBroken("the vCPU state has a number out of range")
        return cls(**mapping)


_KINDS: dict[str, tuple[type, ...]] = {
    "config": (dict,),
    "random": (dict,),
    "digest": (int,),
    "operation_count": (int,),
    "delay": (int, float),
    "resumed_at": (int, type(None)),
    "slots": (list,),
}
