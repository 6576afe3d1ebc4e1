"""Checks of a device's state on its way from one back end to another."""

import os
import select
from time import monotonic

from spec.vhost_user import (
    DEVICE_STATE_TRANSFER,
    NO_FD,
    FrontEndRequest,
    MigrationPhase,
    ProtocolFeature,
    TransferDirection,
)
from vdev.check.bench.bench import Bench
from vdev.check.device.left_alone import expect_served
from vdev.check.device.vhost_steps import VHOST
from vdev.check.registry import BOTH, check
from vdev.check.verdict import TargetHung

_R = FrontEndRequest
_S = "vhost-user.back-end."
_STATE = [ProtocolFeature.DEVICE_STATE]
_PART = 65536
_LEAST_STATE = 16
"""Bytes; of a shorter state it may not be possible to see that half is missing."""


def _begin(bench: Bench, direction: TransferDirection) -> int:
    """Begin a transfer; returns our end of the channel, which is the caller's to close."""
    bench.done(f"begin to {direction.name.lower()} the device's state")
    reading, writing = os.pipe2(os.O_CLOEXEC)
    ours, theirs = (reading, writing) if direction is TransferDirection.SAVE else (writing, reading)
    body = DEVICE_STATE_TRANSFER.build({"direction": direction, "phase": MigrationPhase.STOPPED})
    reply = bench.front_end.ask(_R.SET_DEVICE_STATE_FD, body, [theirs])
    os.close(theirs)
    fds = reply.take_fds()
    value = int.from_bytes(reply.body, "little")
    has_error, has_none = bool(value & 0xFF), bool(value & NO_FD)
    try:
        bench.expect(
            not (has_error and fds),
            _S + "state.2",
            expected="no file descriptor beside an error",
            observed=f"{value:#x} and {len(fds)} file descriptors",
        )
        bench.expect(
            not has_error and has_none == (not fds),
            _S + "state.1",
            expected="0 in bits 0 to 7, and bit 8 as there is a file descriptor or not",
            observed=f"{value:#x} and {len(fds)} file descriptors",
        )
    except BaseException:
        for fd in (ours, *fds):
            os.close(fd)
        raise
    if not fds:
        return ours
    os.close(ours)
    return fds[0]


def _save(bench: Bench) -> bytes:
    fd = _begin(bench, TransferDirection.SAVE)
    deadline = monotonic() + bench.target.patience
    parts: list[bytes] = []
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    try:
        while True:
            remaining = deadline - monotonic()
            if remaining <= 0 or not poll.poll(remaining * 1000):
                bench.fail(
                    _S + "state.3",
                    expected="the end of the state",
                    observed=f"{len(b''.join(parts))} bytes, and no end within {bench.target.patience:g} s",
                )
            part = os.read(fd, _PART)
            if not part:
                return b"".join(parts)
            parts.append(part)
    finally:
        os.close(fd)


def _load(bench: Bench, state: bytes) -> None:
    fd = _begin(bench, TransferDirection.LOAD)
    os.set_blocking(fd, False)
    deadline = monotonic() + bench.target.patience
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    rest = memoryview(state)
    try:
        while rest:
            remaining = deadline - monotonic()
            if remaining <= 0 or not poll.poll(remaining * 1000):
                raise TargetHung(f"the target did not read the state within {bench.target.patience:g} s")
            rest = rest[os.write(fd, rest[:_PART]) :]
    except BrokenPipeError:
        pass  # what the back end makes of it, CHECK_DEVICE_STATE says
    finally:
        os.close(fd)


def _result(bench: Bench) -> int:
    reply = bench.front_end.ask(_R.CHECK_DEVICE_STATE)
    return int.from_bytes(reply.body, "little")


def _stop_all(bench: Bench) -> None:
    for ring in bench.rings.values():
        ring.stop()


@check(
    "state.saved-to-its-end",
    covers=[_S + "state.1", _S + "state.2", _S + "state.3"],
    carriers=VHOST,
    protocol_features=_STATE,
)
def saved_to_its_end(bench: Bench) -> None:
    """A stopped device's state is written up to its end, CHECK_DEVICE_STATE is 0, and the device goes on."""
    bench.start()
    ring = bench.ring()
    bench.exchange(ring)
    bases = {number: each.stop() or 0 for number, each in bench.rings.items()}
    _save(bench)
    result = _result(bench)
    bench.expect(result == 0, _S + "state.5", expected="CHECK_DEVICE_STATE 0", observed=f"{result:#x}")
    for number, base in bases.items():
        bench.rings[number].resume(base)
    expect_served(bench, ring, _S + "state.3", "after the state was saved")


@check(
    "state.loaded-and-goes-on",
    covers=[_S + "state.4", _S + "state.5"],
    formats=BOTH,
    carriers=VHOST,
    protocol_features=_STATE,
)
def loaded_and_goes_on(bench: Bench) -> None:
    """Another session loads the state, and rings go on from their bases."""
    bench.start()
    for _ in range(3):
        bench.exchange(bench.ring())
    _stop_all(bench)
    state = _save(bench)
    bench.reconnect()
    bench.control.begin()
    _load(bench, state)
    result = _result(bench)
    bench.expect(result == 0, _S + "state.5", expected="CHECK_DEVICE_STATE 0", observed=f"{result:#x}")
    bench.start(again=True)
    for turn in range(3):
        expect_served(bench, bench.ring(), _S + "state.4", f"as request {turn + 1} after the state was loaded")


@check(
    "state.half-is-not-success",
    covers=[_S + "state.5", _S + "error.1", "hostile.device.alive"],
    carriers=VHOST,
    protocol_features=_STATE,
    hostile=True,
)
def half_is_not_success(bench: Bench) -> None:
    """Of a state that ends in its middle CHECK_DEVICE_STATE does not say that it was processed."""
    bench.start()
    bench.exchange(bench.ring())
    _stop_all(bench)
    state = _save(bench)
    if len(state) < _LEAST_STATE:
        bench.not_applicable(f"the state has only {len(state)} bytes")
    bench.reconnect()
    bench.control.begin()
    _load(bench, state[: len(state) // 2])
    result = _result(bench)
    bench.expect(result != 0, _S + "state.5", expected="CHECK_DEVICE_STATE other than 0 for half a state", observed="0")
