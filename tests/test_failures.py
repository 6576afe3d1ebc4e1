"""Real processes die and real links break in the middle of a migration: the guest lives on in exactly one place."""

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from vdev.events import EventStream
from vdev.run.options import MigrateOptions
from vdev.run.processes import migrate
from vdev.run.report import Outcome, Progress, Report

pytestmark = pytest.mark.process

MIB = 1 << 20
SLOW = MigrateOptions(ram_size=32 * MIB, rate=100.0, max_bandwidth=20 * MIB)


def descendants(word: str) -> list[int]:
    """Return the pids of this test's child processes, and theirs, whose command line has `word`."""
    found, parents = [], {os.getpid()}
    for entry in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            command = Path(f"/proc/{entry}/cmdline").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        if int(fields[1]) in parents and fields[0] != "Z":
            parents.add(entry)
            if word in command:
                found.append(entry)
    return found


async def run(options: MigrateOptions, on_progress: Callable[[Progress], None] = lambda _: None) -> Report:
    gc.collect()
    open_files = len(os.listdir("/proc/self/fd"))
    with trio.fail_after(60):
        report = await migrate(options, events=EventStream(time.monotonic), on_progress=on_progress)
    assert descendants("guest_agent") == []
    assert descendants("destination_process") == []
    gc.collect()  # a mapping of RAM has a descriptor of its own until nothing refers to it
    assert len(os.listdir("/proc/self/fd")) == open_files
    return report


class Killer:
    """Kills the first process that matches, once, when the migration has come far enough."""

    def __init__(self, word: str, when: Callable[[Progress], bool]) -> None:
        self._word = word
        self._when = when
        self.killed: int | None = None

    def __call__(self, progress: Progress) -> None:
        if self.killed is None and self._when(progress):
            self.killed = descendants(self._word)[0]
            os.kill(self.killed, signal.SIGKILL)


@pytest.mark.parametrize("sent_count", [0, 100, 2000, 3500])
async def test_a_killed_destination_leaves_the_guest_at_the_source(sent_count):
    killer = Killer("destination_process", lambda progress: progress.sent_count >= sent_count)
    report = await run(SLOW, killer)
    assert killer.killed is not None
    assert report.outcome is Outcome.DESTINATION_LOST
    assert report.exit_status == 3
    assert (report.verified_at, report.verified.mismatched) == ("source", 0)
    assert report.verified.pages > 0
    assert report.verified.resumed_operations > 0


@pytest.mark.parametrize("sent_count", [0, 100, 2000, 3500])
async def test_a_killed_guest_is_said_to_have_died(sent_count):
    killer = Killer("guest_agent", lambda progress: progress.sent_count >= sent_count)
    report = await run(SLOW, killer)
    assert report.outcome is Outcome.GUEST_DIED
    assert report.exit_status == 4
    assert "SIGKILL" in (report.error or "")


async def test_a_guest_killed_at_the_destination_before_it_ran_leaves_the_one_at_the_source():
    def when(progress: Progress) -> bool:
        # The destination's guest process is the younger of the two.
        return progress.sent_count >= 100 and len(descendants("guest_agent")) == 2

    class Younger(Killer):
        def __call__(self, progress: Progress) -> None:
            if self.killed is None and self._when(progress):
                self.killed = descendants(self._word)[-1]
                os.kill(self.killed, signal.SIGKILL)

    report = await run(SLOW, Younger("guest_agent", when))
    assert report.outcome is Outcome.DESTINATION_LOST
    assert (report.verified_at, report.verified.mismatched) == ("source", 0)


class CuttingProxy:
    """Stands between source and receiver, and cuts the first connection after so many bytes one way."""

    def __init__(self, directory: Path, *, forward: int | None = None, back: int | None = None) -> None:
        self.front, self.behind = directory / "front", directory / "behind"
        self._limits = {"forward": forward, "back": back}
        self.carried = {"forward": 0, "back": 0}
        self._is_first = True

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        with trio.socket.socket(socket.AF_UNIX) as listening:
            await listening.bind(str(self.front))
            listening.listen()
            task_status.started()
            async with trio.open_nursery() as nursery:
                while True:
                    nursery.start_soon(self._carry, (await listening.accept())[0])

    async def _carry(self, front: trio.socket.SocketType) -> None:
        limits = self._limits if self._is_first else {"forward": None, "back": None}
        self._is_first = False
        with front, trio.socket.socket(socket.AF_UNIX) as behind:
            try:
                await behind.connect(str(self.behind))
            except OSError:
                return
            async with trio.open_nursery() as nursery:
                for way, source, sink in (("forward", front, behind), ("back", behind, front)):
                    nursery.start_soon(self._carry_one_way, way, source, sink, limits[way], nursery.cancel_scope)

    async def _carry_one_way(self, way, source, sink, limit, scope) -> None:
        carried = 0
        try:
            while data := await source.recv(1 << 16):
                data = data if limit is None else data[: limit - carried]
                await trio.SocketStream(sink).send_all(data)
                carried += len(data)
                self.carried[way] += len(data)
                if limit is not None and carried >= limit:
                    scope.cancel()
            sink.shutdown(socket.SHUT_WR)
        except (OSError, trio.BrokenResourceError):
            scope.cancel()


def start_receiver(proxy: CuttingProxy) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "vdev", "receive", "--exit-when-verified", "--json", "-"]
    receiver = subprocess.Popen(
        [*command, "--listen", str(proxy.behind)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 30
    while not proxy.behind.exists():
        assert receiver.poll() is None, receiver.stderr.read()
        assert time.monotonic() < deadline
    return receiver


async def move_through(proxy: CuttingProxy) -> tuple[Report, dict, int]:
    receiver = await trio.to_thread.run_sync(start_receiver, proxy)
    options = MigrateOptions(ram_size=16 * MIB, rate=1000.0, to=str(proxy.front))
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.serve)
        with trio.fail_after(60):
            report = await migrate(options, events=EventStream(time.monotonic), on_progress=lambda _: None)
            output, _ = await trio.to_thread.run_sync(partial(receiver.communicate, timeout=60))
        nursery.cancel_scope.cancel()
    assert descendants("guest_agent") == []
    return report, json.loads(output), receiver.returncode


@pytest.mark.parametrize("forward", [1, 30, 100, 10_000, 300_000, 1 << 20, 3 << 20, 5 << 20, 7 << 20])
async def test_a_cut_link_leaves_the_guest_at_the_source(tmp_path, forward):
    report, received, status = await move_through(CuttingProxy(tmp_path, forward=forward))
    assert report.outcome is Outcome.DESTINATION_LOST
    assert (report.verified_at, report.verified.mismatched) == ("source", 0)
    assert report.verified.pages > 0
    assert report.verified.resumed_operations > 0
    assert (received["outcome"], status) == ("destination-lost", 3)
    assert received["error"]


async def test_a_link_cut_before_the_destination_could_report_leaves_the_guest_at_the_source(tmp_path):
    proxy = CuttingProxy(tmp_path, back=1)
    report, received, _ = await move_through(proxy)
    assert proxy.carried["back"] == 1
    assert report.outcome is Outcome.DESTINATION_LOST
    assert (report.verified_at, report.verified.mismatched) == ("source", 0)
    assert received["outcome"] == "destination-lost"


async def test_a_link_cut_after_the_report_leaves_the_guest_in_one_place(tmp_path):
    whole = CuttingProxy(tmp_path)
    moved, _, _ = await move_through(whole)
    assert moved.outcome is Outcome.COMPLETED
    (tmp_path / "again").mkdir()
    # The first answer is READY: a header and a short body. RESUMED and the verdict do not get through any more.
    report, received, _ = await move_through(
        CuttingProxy(tmp_path / "again", back=24 + len('{"page_count": 4096}') + 1)
    )
    runs_there = received["outcome"] == "completed"
    runs_here = report.verified_at == "source" and report.outcome is Outcome.DESTINATION_LOST
    assert runs_there != runs_here
    assert runs_there
    assert received["verified"]["mismatched"] == 0
    assert report.outcome is Outcome.IN_DOUBT
    assert "moved" in (report.error or "")
