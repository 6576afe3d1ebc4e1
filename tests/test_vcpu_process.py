"""What a host makes of a guest process that breaks the protocol of exits, dies, or does not answer."""

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager

import pytest
import trio

from spec.exits import EXIT, REPLY, ExitKind, ReplyKind
from vdev.notify import EventfdDoorbell
from vdev.vcpu import GuestDied, GuestFault, GuestNotResponding, GuestProcess, ProcessVcpu

pytestmark = pytest.mark.process

READY = json.dumps({"regions": [0x7F00_0000_0000], "write_protect_refused": None}).encode()


def datagram(kind: int, body: bytes = b"", *, size: int = 0, address: int = 0, value: int = 0) -> bytes:
    return EXIT.build({"kind": kind, "size": size, "address": address, "value": value}) + body


@asynccontextmanager
async def vcpu_and_its_guest(**options):
    """A vCPU whose guest is a process that sleeps, and whose exits the test sends in its place."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", "import time; time.sleep(600)"], stdin=subprocess.DEVNULL
    )
    accesses: list[tuple[int, ...]] = []
    vcpu = ProcessVcpu(
        GuestProcess(process, ours),
        EventfdDoorbell(),
        EventfdDoorbell(),
        1,
        lambda address, size: accesses.append((address, size)) or 7,
        lambda address, size, value: accesses.append((address, size, value)),
        **options,
    )
    with theirs, trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(vcpu.serve_exits)
            yield vcpu, trio.socket.from_stdlib_socket(theirs), accesses
            process.kill()
            await vcpu.end()
            nursery.cancel_scope.cancel()


async def run_to_first_halt(vcpu: ProcessVcpu, guest: trio.socket.SocketType) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(vcpu.boot, {})
        await guest.send(datagram(ExitKind.READY, READY))
        assert REPLY.parse(await guest.recv(100)).kind == ReplyKind.BOOT
        await guest.send(datagram(ExitKind.HALTED, b"state"))
    assert await vcpu.pause() == b"state"


async def test_register_accesses_are_answered_while_the_guest_runs():
    async with vcpu_and_its_guest() as (vcpu, guest, accesses):
        await run_to_first_halt(vcpu, guest)
        vcpu.run()
        assert REPLY.parse(await guest.recv(100)).kind == ReplyKind.RUN
        await guest.send(datagram(ExitKind.REGISTER_READ, size=4, address=0x70))
        assert REPLY.parse(await guest.recv(100)).value == 7
        await guest.send(datagram(ExitKind.REGISTER_WRITE, size=2, address=2**64 - 1, value=5))
        assert REPLY.parse(await guest.recv(100)).kind == ReplyKind.VALUE
        assert accesses == [(0x70, 4), (2**64 - 1, 2, 5)]


HOSTILE = {
    "a short datagram": b"x",
    "an unknown exit": datagram(200),
    "a register access of 3 bytes": datagram(ExitKind.REGISTER_READ, size=3),
    "a register access of 0 bytes": datagram(ExitKind.REGISTER_WRITE),
    "a register access with a body": datagram(ExitKind.REGISTER_READ, b"body", size=4),
    "READY when it runs": datagram(ExitKind.READY, READY),
    "HALTED when nobody asked": datagram(ExitKind.HALTED, b"state"),
    "a verdict when nobody asked": datagram(ExitKind.VERDICT, b"{}"),
    "UP a second time": datagram(ExitKind.UP),
    "a datagram beyond all bounds": b"x" * 70_000,
}


@pytest.mark.parametrize("message", HOSTILE.values(), ids=HOSTILE.keys())
async def test_a_guest_that_breaks_the_protocol_is_killed_and_named(message):
    async with vcpu_and_its_guest() as (vcpu, guest, _):
        await run_to_first_halt(vcpu, guest)
        vcpu.run()
        await guest.send(message)
        await vcpu.wait_ended()
        assert vcpu.process.returncode == -signal.SIGKILL
        with pytest.raises(GuestDied, match="broke the protocol of exits: it sent"):
            await vcpu.pause()


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"{}", b'{"regions": []}', b'{"regions": ["x"]}', b'{"regions": [1]}', b"\xff"]
)
async def test_a_ready_that_makes_no_sense_ends_the_guest(body):
    async with vcpu_and_its_guest() as (vcpu, guest, _):
        await guest.send(datagram(ExitKind.READY, body))
        with pytest.raises(GuestDied, match="its READY"):
            await vcpu.boot({})


@pytest.mark.parametrize("body", [b"", b"{}", b'{"pages": -1}', b'{"pages": 1, "mismatched": "0"}', b"null"])
async def test_a_verdict_that_makes_no_sense_ends_the_guest(body):
    async with vcpu_and_its_guest() as (vcpu, guest, _):
        await run_to_first_halt(vcpu, guest)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_send_verdict, guest, body)
            with pytest.raises(GuestDied, match="its VERDICT"):
                await vcpu.verify()


async def _send_verdict(guest: trio.socket.SocketType, body: bytes) -> None:
    assert REPLY.parse(await guest.recv(100)).kind == ReplyKind.VERIFY
    await guest.send(datagram(ExitKind.VERDICT, body))


async def test_a_fault_is_told_in_the_guests_own_words():
    async with vcpu_and_its_guest() as (vcpu, guest, _):
        await run_to_first_halt(vcpu, guest)
        vcpu.run()
        assert REPLY.parse(await guest.recv(100)).kind == ReplyKind.RUN
        await guest.send(datagram(ExitKind.FAULT, b"page 7 is not\nmine"))
        vcpu.process.kill()
        guest.close()
        await vcpu.wait_ended()
        with pytest.raises(GuestFault, match=r"^page 7 is not mine$"):
            await vcpu.pause()


async def test_a_killed_guest_is_said_to_be_killed():
    async with vcpu_and_its_guest() as (vcpu, guest, _):
        await run_to_first_halt(vcpu, guest)
        vcpu.run()
        assert REPLY.parse(await guest.recv(100)).kind == ReplyKind.RUN
        os.kill(vcpu.process.pid, signal.SIGKILL)
        guest.close()
        with pytest.raises(GuestDied, match="was killed by SIGKILL"):
            await vcpu.pause()


async def test_a_guest_that_does_not_halt_is_named_and_goes_on_when_it_does():
    async with vcpu_and_its_guest(halt_patience=0.05) as (vcpu, guest, _):
        await run_to_first_halt(vcpu, guest)
        vcpu.run()
        assert REPLY.parse(await guest.recv(100)).kind == ReplyKind.RUN
        with pytest.raises(GuestNotResponding, match="did not halt"):
            await vcpu.pause()
        await guest.send(datagram(ExitKind.HALTED, b"late"))
        assert REPLY.parse(await guest.recv(100)).kind == ReplyKind.RUN


async def test_a_pause_that_is_cancelled_lets_the_guest_go_on():
    async with vcpu_and_its_guest() as (vcpu, guest, _):
        await run_to_first_halt(vcpu, guest)
        vcpu.run()
        assert REPLY.parse(await guest.recv(100)).kind == ReplyKind.RUN
        with trio.move_on_after(0):
            await vcpu.pause()
        await guest.send(datagram(ExitKind.HALTED, b"late"))
        assert REPLY.parse(await guest.recv(100)).kind == ReplyKind.RUN
        async with trio.open_nursery() as nursery:
            nursery.start_soon(guest.send, datagram(ExitKind.REGISTER_READ, size=4))
            assert REPLY.parse(await guest.recv(100)).value == 7
