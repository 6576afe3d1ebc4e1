"""A schedule made to happen between processes: each actor is delayed before each of its acts until it is its turn.

The host, with the source and the handler of hints, is this process. The guest is a process beside it, its second vCPU
a thread of that; both ask here before each act. The destination is a third process, with a fresh guest process.
"""

import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import trio

from guest_agent.lane import LaneMisfit
from host_migrator.link import SocketLink
from host_migrator.source import Source
from spec.exits import MAX_MESSAGE_SIZE, GateWord
from vdev.errors import VdevError
from vdev.events import EventStream
from vdev.machine import Machine
from vdev.memory import PAGE_SIZE
from vdev.race.combination import Bound, Combination
from vdev.race.replay import (
    VCPUS,
    Actors,
    KickExits,
    Outcome,
    dirty_log_of,
    guest_settings,
    machine_shape,
    outcome_of_verdict,
    strategy_of,
)
from vdev.race.replay_gate import ActGate, ScheduleMisfit
from vdev.race.verdict import Act
from vdev.run.host import ProcessHost, open_host
from vdev.run.interruption import cancel_on_signal
from vdev.run.local_destination import LocalDestination, start_destination

__all__ = ["replay_in_processes"]


async def replay_in_processes(
    combination: Combination,
    bound: Bound,
    acts: Sequence[Act],
    *,
    patience: float = 30.0,
    on_act: Callable[[Act], None] | None = None,
) -> Outcome:
    """Make `acts` happen and return what the guest says of itself at the destination.

    Each act is waited for `patience` seconds; `on_act` is told when it was made. All processes have ended when this
    returns, raises or is cancelled.

    Raises UserError for acts that only the lab can make, ScheduleMisfit when they cannot be made in this order, what
    the guest or the migration raise (GuestDied, MigrationFailed), and KeyboardInterrupt for SIGINT and SIGTERM.
    """
    return await _Replay(combination, bound, acts, patience, on_act).run()


class _Replay:
    def __init__(
        self,
        combination: Combination,
        bound: Bound,
        acts: Sequence[Act],
        patience: float,
        on_act: Callable[[Act], None] | None,
    ) -> None:
        self._combination = combination
        self._bound = bound
        self._patience = patience
        self._on_act = on_act
        self._actors = Actors(combination, bound, acts)
        self._gate = ActGate(
            acts,
            self._actors.looks,
            patience=patience,
            slow=frozenset({"migrator", *VCPUS}),
            on_made=self._was_made,
        )
        self._gate.hold()
        self._events = EventStream(self._gate.now)
        self._error: VdevError | None = None
        self._scope = trio.CancelScope()

    async def run(self) -> Outcome:
        try:
            return await self._run()
        except BaseExceptionGroup as group:
            raise _only_error(group) from None

    async def _run(self) -> Outcome:
        outcome: Outcome | None = None
        async with AsyncExitStack() as stack:
            stack.enter_context(self._scope)
            local = await stack.enter_async_context(start_destination(self._events))
            gates = [self._open_gate(stack) for _ in range(int(self._combination.vcpus))]
            # The gate grants turns to the machine's tasks from the start, so it runs around them.
            nursery = await stack.enter_async_context(trio.open_nursery())
            nursery.start_soon(self._guard, self._gate.run)
            nursery.start_soon(cancel_on_signal, self._scope)
            # Errors are kept out of the nurseries that hold guest and destination: those would wrap them.
            try:
                host = await stack.enter_async_context(
                    open_host(
                        machine_shape(self._combination, self._bound),
                        self._gate,
                        self._events,
                        name="source",
                        trace=False,
                        kicks=self._kicks,
                        gates=[theirs.fileno() for _, theirs in gates],
                    )
                )
                outcome = await self._migrate(host, local, gates)
            except VdevError as error:
                self._error = self._error or error
            nursery.cancel_scope.cancel()
        if self._error is not None:
            raise self._error
        if outcome is None:
            raise KeyboardInterrupt
        return outcome

    @staticmethod
    def _open_gate(stack: AsyncExitStack) -> tuple[socket.socket, socket.socket]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        stack.enter_context(ours)
        stack.enter_context(theirs)
        return ours, theirs

    def _was_made(self, act: Act) -> None:
        self._actors.was_made(act)
        if self._on_act is not None:
            self._on_act(act)

    def _kicks(self, machine: Machine) -> KickExits:
        return KickExits(machine, self._actors, on_exit=lambda: self._gate.report(VCPUS[0]))

    async def _guard(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run a task; what it raises ends the replay."""
        try:
            await task()
        except VdevError as error:
            self._error = self._error or error
            self._scope.cancel()

    async def _migrate(
        self, host: ProcessHost, local: LocalDestination, gates: Sequence[tuple[socket.socket, socket.socket]]
    ) -> Outcome:
        for _, theirs in gates:
            theirs.close()
        await local.wait_up()
        lanes = [self._actors.lanes[vcpu].acts for vcpu in VCPUS[: len(gates)]]
        settings = guest_settings(host.machine, self._combination, self._bound)
        await host.machine.boot({**settings, "lanes": lanes})
        self._actors.hold()
        await host.machine.resume()
        source = Source(
            host.machine,
            SocketLink(local.connection),
            dirty_log_of(self._combination, host.marks),
            strategy_of(self._combination, host.balloon),
            self._gate,
            resolve=local.resolve,
            window_size=PAGE_SIZE,
            patience=self._patience,
            look_for_hints=host.balloon.poll_hints,
            divided=True,
            sync_limit=self._bound.syncs,
            discards=self._combination.effect == "discard",
        )
        self._actors.begin(source, host.balloon)
        self._gate.begin()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._guard, source.serve_hints)
            nursery.start_soon(self._guard, partial(self._watch, host))
            for vcpu, (ours, _) in zip(VCPUS, gates, strict=False):
                nursery.start_soon(self._guard, partial(self._serve_gate, vcpu, trio.socket.from_stdlib_socket(ours)))
            verdict = await self._run_source(source)
            nursery.cancel_scope.cancel()
        return outcome_of_verdict(self._actors.made, verdict)

    async def _run_source(self, source: Source) -> Mapping[str, Any]:
        """Return the guest's verdict; an error is kept, for the nursery would wrap it."""
        try:
            await source.run()
        except VdevError as error:
            self._error = self._error or error
            self._scope.cancel()
        self._gate.conclude()
        if source.figures.verdict is not None:
            return source.figures.verdict
        self._error = self._error or ScheduleMisfit(f"the guest gave no verdict: {source.figures.verdict_missing}")
        self._scope.cancel()
        return await trio.sleep_forever()

    async def _watch(self, host: ProcessHost) -> None:
        await host.vcpu.wait_ended()
        host.vcpu.raise_if_gone()

    async def _serve_gate(self, vcpu: str, gate: trio.socket.SocketType) -> None:
        """Let one vCPU of the guest act when it is its turn, until the guest is gone."""
        lane = self._actors.lanes[vcpu]
        try:
            while await self._hear(gate, GateWord.ASK):
                await self._gate.turn(vcpu)
                await gate.send(bytes([GateWord.GO]))
                if not await self._hear(gate, GateWord.MADE):
                    break
                lane.position += 1
                self._gate.report(vcpu)
        except BrokenPipeError:
            pass
        # The guest is gone: its host sees the end of the exit socket, once no exit is under way any more.
        self._actors.end_exit()

    async def _hear(self, gate: trio.socket.SocketType, expected: GateWord) -> bool:
        """Wait for this word; false when the guest is gone. Raises LaneMisfit with the guest's words for any other."""
        try:
            message = await gate.recv(MAX_MESSAGE_SIZE)
        except ConnectionResetError:
            return False
        if message[:1] == bytes([GateWord.FAULT]):
            raise LaneMisfit(" ".join(message[1:].decode(errors="replace").split()))
        if message and message != bytes([expected]):
            raise LaneMisfit(f"the guest said {message[:16]!r} at its gate instead of {expected.name}")
        return bool(message)


def _only_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return what a process raised while it came up, inside of nurseries; the group, if there is anything else."""
    ours, others = group.split(VdevError)
    if ours is None or others is not None:
        return group
    error: BaseException = ours
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
