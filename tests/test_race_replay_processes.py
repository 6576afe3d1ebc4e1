"""What the lab finds happens between real processes, too: the guest at the destination itself reports a stale page."""

import gc
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest
import trio
from race_losses import read_losses
from test_race_replay_loop import acts_of, random_schedule

from host_migrator.errors import MigrationFailed
from vdev.errors import VdevError
from vdev.race.combination import Bound, Combination
from vdev.race.replay_gate import ScheduleMisfit
from vdev.race.replay_processes import replay_in_processes
from vdev.vcpu import GuestDied

pytestmark = pytest.mark.process

LOSSES = read_losses()


def children():
    """Processes that this one started, as pid -> command line."""
    ours = {}
    for task in Path("/proc/self/task").iterdir():
        for pid in (task / "children").read_text().split():
            ours[int(pid)] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ours


@pytest.fixture(autouse=True)
def nothing_is_left():
    """No process, no descriptor, no file in shared memory."""

    def left():
        gc.collect()  # A mapping keeps its file open.
        return children(), len(os.listdir("/proc/self/fd")), sorted(os.listdir("/dev/shm"))

    before = left()
    yield
    assert left() == before


def replay(combination, acts, bound=None, patience=60.0):
    return trio.run(partial(replay_in_processes, combination, bound or Bound(), acts, patience=patience))


@pytest.mark.parametrize("label", ["filter-on-ready", "drain-in-exit-sync-first", "command-id+deferred-clear"])
def test_a_loss_of_the_lab_is_reported_by_the_guest_itself_at_the_destination(label):
    combination, acts = LOSSES[label]
    outcome = replay(combination, acts)
    assert outcome.made == acts
    assert outcome.lost == (0,)
    (stale,) = outcome.stale
    assert stale.found < stale.wanted
    assert outcome.verdict["first_bad"] == [f"page 0: version {stale.found} instead of {stale.wanted}"]
    assert outcome.status == 7


def test_what_loses_nothing_in_the_lab_loses_nothing_between_processes():
    combination, bound = Combination("command-id"), Bound(pages=2, writes=3, hints=3)
    outcome = replay(combination, random_schedule(combination, bound, 1), bound)
    assert outcome.lost == ()
    assert outcome.verdict["mismatched"] == 0
    assert outcome.status == 0


def test_acts_that_do_not_fit_end_with_one_line_that_names_the_act():
    acts = acts_of("migrator: start", "handler: handle")
    with pytest.raises(ScheduleMisfit, match=r"act 2 of 2, 'handler: handle': nobody is at it, but at .* within 1 s$"):
        replay(Combination("none"), acts, patience=1.0)


@pytest.mark.parametrize("actor", ["vcpu 0", "vcpu 1"])
def test_an_act_that_the_guest_cannot_do_is_named(actor):
    with pytest.raises(VdevError, match="the guest cannot free 0 now; it can write 0"):
        replay(Combination("none"), acts_of("migrator: start", f"{actor}: free 0"))


def kill_child(word):
    """Kill the process of ours that has `word` in its command line, once there is one."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = [pid for pid, command in children().items() if word in command]
        if found:
            os.kill(found[0], signal.SIGKILL)
            return
        time.sleep(0.01)
    raise AssertionError(f"no child has {word} in its command line")


KILLED_AT = {
    "between two acts": (Combination("none"), "vcpu 1: write 0"),
    "inside an exit": (Combination("drain-in-exit-sync-first"), "vcpu 0: announce"),
}


@pytest.mark.parametrize(("combination", "at"), KILLED_AT.values(), ids=KILLED_AT)
def test_a_guest_that_is_killed_while_it_takes_part_ends_the_replay(combination, at):
    driver = [] if combination.strategy == "none" else ["vcpu 0: look"]
    acts = acts_of("migrator: start", *driver, at, "vcpu 1: write 0", "vcpu 1: free 0")
    made = []

    def kill_when_made(act):
        made.append(act)
        if str(act) == at:
            kill_child("guest_agent")

    with pytest.raises(GuestDied, match="was killed by SIGKILL"):
        trio.run(partial(replay_in_processes, combination, Bound(), acts, patience=60.0, on_act=kill_when_made))
    assert str(made[-1]) == at


def test_a_guest_that_does_not_come_up_ends_the_replay():
    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, kill_child, "guest_agent")
            await replay_in_processes(Combination("none"), Bound(), acts_of("migrator: start"))

    with pytest.RaisesGroup(GuestDied):
        trio.run(main, strict_exception_groups=True)


def test_a_destination_that_is_killed_ends_the_replay():
    acts = acts_of("migrator: start", "migrator: take 0", "migrator: send 0", "vcpu 1: write 0", "migrator: sync")

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, kill_child, "destination_process")
            await replay_in_processes(Combination("none"), Bound(), acts, patience=60.0)

    with pytest.RaisesGroup(MigrationFailed):
        trio.run(main, strict_exception_groups=True)
