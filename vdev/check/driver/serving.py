"""The judging device at a vhost-user socket: real guests come here. One start of the driver after the other."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import trio

from vdev.check.driver.judge import Judge
from vdev.check.driver.messages import JudgedSession
from vdev.check.driver.plan import Start
from vdev.check.driver.sitting import BOOT_PATIENCE, DeviceMaker, Sitting
from vdev.check.result import CaseResult, Report
from vdev.check.target_process import TargetProcess
from vdev.devices.kind import Carrier
from vdev.errors import UserError
from vdev.events import KickHandled, Record
from vdev.memory import GuestMemory
from vdev.vhost_user.server import BackEnd, listen

__all__ = ["judge_driver"]

_TURN = 0.01
"""Seconds between two looks whether a game has something to do."""
_MOST_IN_VAIN = 3
"""Starts in a row to which no driver comes, only its front end; then the rest is left."""


def judge_driver(
    device_type: str,
    path: Path,
    *,
    spawn: str | None = None,
    again: bool = False,
    offered: int = -1,
    only: Iterable[str] = (),
    options: Mapping[str, Any] | None = None,
    make_device: DeviceMaker | None = None,
    patience: float = 5.0,
    boot_patience: float = BOOT_PATIENCE,
    seed: int = 0,
    repeat: Callable[[str], str] = lambda _: "",
    on_start: Callable[[int, int, str], None] = lambda number, count, games: None,
    on_result: Callable[[CaseResult], None] = lambda _: None,
) -> Report:
    """Be the device at `path` for the front end of a guest, and judge the guest's driver.

    `spawn` is a command that starts the guest ({socket} stands for `path`); it is started anew, and ended, for each
    start that the plan has. Without it only the first start is judged, and what needs another one is N/A; with `again`
    somebody else sees to it that the driver comes once more whenever its connection was closed.
    `patience` and `boot_patience` are seconds: how long the driver may be silent, and how long a guest may take until
    it connects. `on_start` is told the number of a start, how many there are, and the games in words; `on_result` each
    game's result. The rest is as `Judge` has it.

    Ctrl-C ends it; the report has what was seen by then.

    Raises UserError for arguments that cannot be, and where nobody connects.
    """
    judge = Judge(
        device_type,
        Carrier.VHOST_USER,
        offered=offered,
        only=only,
        options=options,
        make_device=make_device,
        patience=patience,
        seed=seed,
        repeat=repeat,
    )
    judge.ledger.on_game = on_result
    began, is_interrupted = time.monotonic(), False
    try:
        trio.run(_judge_all, judge, path, spawn, again, boot_patience, on_start)
    except* KeyboardInterrupt:
        is_interrupted = True
    except* UserError as refusals:
        raise _leaf(refusals) from None
    subject = {"socket": str(path), **({"spawn": spawn} if spawn is not None else {})}
    report = judge.report(subject, time.monotonic() - began)
    return replace(report, stopped="interrupted before all was played", interrupted=True) if is_interrupted else report


def _leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _judge_all(
    judge: Judge,
    path: Path,
    spawn: str | None,
    again: bool,
    boot_patience: float,
    on_start: Callable[[int, int, str], None],
) -> None:
    starts = judge.plan.starts
    in_vain = 0
    for number, start in enumerate(starts):
        if number and spawn is None and not again:
            for kind in start.games:
                judge.ledger.note_unplayed(kind, start.variant, "needs --spawn: the driver must start anew for it")
            continue
        if in_vain >= _MOST_IN_VAIN:
            for kind in start.games:
                judge.ledger.note_unplayed(
                    kind, start.variant, f"no driver came to {in_vain} starts in a row, only its front end"
                )
            continue
        on_start(number + 1, len(starts), ", ".join(kind.name for kind in start.games))
        has_come = await _judge_start(judge, start, path, spawn, boot_patience)
        in_vain = 0 if has_come else in_vain + 1
        if in_vain and not number:
            raise UserError("a front end connected, and no driver came: no feature was agreed, no queue set up")


async def _judge_start(judge: Judge, start: Start, path: Path, spawn: str | None, boot_patience: float) -> bool:
    """Play one start; returns whether a driver came. Raises UserError if not even a front end did."""
    sitting = judge.sit(start, GuestMemory.absent(), Carrier.VHOST_USER, trio.current_time)
    sitting.boot_patience = boot_patience
    sitting.stream.subscribe(partial(_note_kick, sitting))
    back_end = BackEnd(sitting.device, events=sitting.emitter, make_session=partial(JudgedSession, sitting))
    listener = listen(path)
    process = TargetProcess(spawn, str(path)) if spawn is not None else None
    try:
        if process is not None:
            process.start()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(back_end.serve, listener)
            why_not = await _take_turns(sitting, back_end, process, boot_patience)
            nursery.cancel_scope.cancel()
        if why_not:
            raise UserError(why_not)
        return sitting.is_begun or sitting.picture.features is not None
    finally:
        with trio.CancelScope(shield=True):
            if process is not None:
                await trio.to_thread.run_sync(process.stop)
        listener.close()
        path.unlink(missing_ok=True)  # noqa: ASYNC240 - a name in a directory of this machine
        sitting.close()
        sitting.device.close()


def _note_kick(sitting: Sitting, record: Record) -> None:
    if isinstance(record.event, KickHandled):
        sitting.note_kick(record.event.queue, None)


async def _take_turns(sitting: Sitting, back_end: BackEnd, process: TargetProcess | None, boot_patience: float) -> str:
    """Have the games act until they are over or the guest is gone for good.

    Returns why nobody came, empty if somebody did.
    """
    with trio.move_on_after(boot_patience):
        while not back_end.statistics.front_end_count:
            if process is not None and not process.is_running:
                ending = process.take_ending()
                return f"--spawn: {ending.why}, and no front end came: {ending.last_words}".rstrip(": ")
            await trio.sleep(_TURN)
    if not back_end.statistics.front_end_count:
        return f"nobody connected within {boot_patience:g} s"
    gone_at = math.inf
    while not sitting.is_over:
        await trio.sleep(_TURN)
        sitting.turn()
        if process is not None and not process.is_running:
            ending = process.take_ending()
            sitting.driver_gone(f"{ending.why}: {ending.last_words}", crashed=ending.is_crash)
            break
        # Some front ends connect more than once before they stay.
        if back_end.statistics.is_connected:
            gone_at = math.inf
        else:
            gone_at = min(gone_at, trio.current_time() + boot_patience)
            if trio.current_time() > gone_at:
                why = f"its front end went away, and did not come back within {boot_patience:g} s"
                sitting.driver_gone(why, crashed=False)
                break
    return ""
