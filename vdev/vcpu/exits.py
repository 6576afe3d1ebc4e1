"""What a guest process may send, and when: a datagram is checked before the host believes a word of it."""

import json
from dataclasses import dataclass
from enum import Enum
from typing import Any

from spec.exits import EXIT, MAX_MESSAGE_SIZE, ExitKind
from spec.layout import dtype_of
from vdev.errors import VdevError
from vdev.memory import PAGE_SIZE

__all__ = ["EXPECTED", "Exit", "ExitViolation", "Running", "parse_exit", "parse_ready", "parse_verdict"]

_EXIT_SIZE = dtype_of(EXIT).itemsize
_ACCESS_SIZES = (1, 2, 4)
_COUNTS = ("pages", "mismatched", "resumed_operations", "operation_count")


class ExitViolation(VdevError):
    """A guest process sent what no vCPU sends, or at the wrong moment. The message says what, as "it ..."."""


class Running(Enum):
    """How far a guest process is, as its host knows."""

    COMING_UP = "coming up"
    READY = "ready"
    STARTING = "starting"
    HALTED = "halted"
    RUNNING = "running"
    PAUSING = "asked to halt"
    VERIFYING = "verifying"
    VERIFIED = "verified"
    FAULTED = "at fault"


_Expected = dict[ExitKind, Running | None]

_FAULT: _Expected = {ExitKind.FAULT: Running.FAULTED}
_IN_GUEST: _Expected = {ExitKind.REGISTER_READ: None, ExitKind.REGISTER_WRITE: None, **_FAULT}

EXPECTED: dict[Running, _Expected] = {
    Running.COMING_UP: {ExitKind.READY: Running.READY, **_FAULT},
    Running.READY: {},
    Running.STARTING: {ExitKind.HALTED: Running.HALTED, **_IN_GUEST},
    Running.HALTED: {},
    Running.RUNNING: _IN_GUEST,
    Running.PAUSING: {ExitKind.HALTED: Running.HALTED, **_IN_GUEST},
    Running.VERIFYING: {ExitKind.VERDICT: Running.VERIFIED, **_FAULT},
    Running.VERIFIED: {ExitKind.HALTED: Running.HALTED, **_FAULT},
    Running.FAULTED: {},
}
"""State -> what may come in it -> the state after it, None for the same. A halted guest waits: it says nothing."""


@dataclass(frozen=True)
class Exit:
    """One exit, its fixed part checked."""

    kind: ExitKind
    size: int
    address: int
    value: int
    body: bytes


def parse_exit(message: bytes) -> Exit:
    """Return the exit in a datagram. Raises ExitViolation."""
    if len(message) > MAX_MESSAGE_SIZE:
        raise ExitViolation(f"it sent more than {MAX_MESSAGE_SIZE} bytes at once")
    if len(message) < _EXIT_SIZE:
        raise ExitViolation(f"it sent an exit of {len(message)} bytes, fewer than {_EXIT_SIZE}")
    fields, body = EXIT.parse(message[:_EXIT_SIZE]), message[_EXIT_SIZE:]
    try:
        kind = ExitKind(fields.kind)
    except ValueError:
        raise ExitViolation(f"it sent an exit of unknown kind {fields.kind}") from None
    if kind in (ExitKind.REGISTER_READ, ExitKind.REGISTER_WRITE):
        if fields.size not in _ACCESS_SIZES:
            raise ExitViolation(f"it sent {kind.name} of {fields.size} bytes, not 1, 2 or 4")
        if body:
            raise ExitViolation(f"it sent {kind.name} with {len(body)} bytes too many")
    return Exit(kind, fields.size, fields.address, fields.value, body)


def parse_ready(body: bytes, region_count: int) -> tuple[list[int], str | None]:
    """Return where the guest mapped each region, and why the kernel's dirty log cannot be had. Raises ExitViolation."""
    ready = _parse_object("READY", body)
    addresses, refused = ready.get("regions"), ready.get("write_protect_refused")
    if not isinstance(addresses, list) or len(addresses) != region_count:
        raise ExitViolation(f"its READY does not name {region_count} regions")
    if not all(type(each) is int and 0 < each < 1 << 63 and not each % PAGE_SIZE for each in addresses):
        raise ExitViolation("its READY names a region where no page can be")
    if refused is not None and not isinstance(refused, str):
        raise ExitViolation("its READY does not say why the kernel's dirty log cannot be had")
    return addresses, refused


def parse_verdict(body: bytes) -> dict[str, Any]:
    """Return the verdict. Raises ExitViolation for one that lacks a part."""
    verdict = _parse_object("VERDICT", body)
    for name in _COUNTS:
        if type(verdict.get(name)) is not int or verdict[name] < 0:
            raise ExitViolation(f"its VERDICT has no count {name!r}")
    bad = verdict.get("first_bad")
    if not isinstance(bad, list) or not all(isinstance(each, str) for each in bad):
        raise ExitViolation("its VERDICT does not list what is bad")
    return verdict


def _parse_object(name: str, body: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        raise ExitViolation(f"its {name} is not JSON") from None
    if not isinstance(parsed, dict):
        raise ExitViolation(f"its {name} is not a JSON object")
    return parsed
