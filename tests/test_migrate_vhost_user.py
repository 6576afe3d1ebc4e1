"""A guest whose balloon is served over vhost-user moves as one with a register file does: rings, hints and all."""

import json
import time
from dataclasses import replace
from functools import partial

import pytest
import trio
from test_failures import SLOW, CuttingProxy, Killer, run, start_receiver

from vdev.events import EventStream
from vdev.run.options import MigrateOptions
from vdev.run.processes import migrate
from vdev.run.report import Outcome

pytestmark = pytest.mark.process

MIB = 1 << 20
OPTIONS = MigrateOptions(ram_size=64 * MIB, rate=1000.0, transport="vhost-user")


@pytest.mark.parametrize("in_order", [False, True], ids=["any order", "in order"])
@pytest.mark.parametrize("ring", ["split", "packed"])
async def test_a_guest_moves_with_its_hints(ring, in_order):
    report = await run(replace(OPTIONS, ring=ring, in_order=in_order))
    assert report.outcome is Outcome.COMPLETED
    assert (report.transport, report.ring) == ("vhost-user", ring)
    assert report.pages.skipped > report.pages.total // 10
    assert (report.verified.mismatched, report.verified_at) == (0, "destination")
    assert report.verified.resumed_operations > 0


@pytest.mark.parametrize("dirty_log", ["cooperative", "kernel"])
async def test_an_inflated_balloon_and_reported_pages_move_in_either_dirty_log(dirty_log):
    options = replace(OPTIONS, dirty_log=dirty_log, inflate_size=16 * MIB, free_page_reporting=True)
    report = await run(options)
    assert report.outcome is Outcome.COMPLETED
    assert report.verified.mismatched == 0
    assert report.verified.resumed_operations > 0


async def test_without_hints_everything_is_sent():
    report = await run(replace(OPTIONS, strategy="none"))
    assert (report.outcome, report.pages.skipped) == (Outcome.COMPLETED, 0)


@pytest.mark.parametrize("sent_count", [0, 2000])
async def test_a_killed_destination_leaves_the_guest_and_its_rings_at_the_source(sent_count):
    killer = Killer("destination_process", lambda progress: progress.sent_count >= sent_count)
    report = await run(replace(SLOW, transport="vhost-user"), killer)
    assert killer.killed is not None
    assert report.outcome is Outcome.DESTINATION_LOST
    assert (report.verified_at, report.verified.mismatched) == ("source", 0)
    assert report.verified.resumed_operations > 0


async def test_a_link_cut_at_the_very_end_leaves_the_guest_with_its_rings_started_again(tmp_path):
    """By then its rings have been stopped, and the device's state was sent."""
    whole = CuttingProxy(tmp_path)
    (tmp_path / "again").mkdir()
    reports = []
    for proxy in (whole, CuttingProxy(tmp_path / "again", back=1)):
        receiver = await trio.to_thread.run_sync(start_receiver, proxy)
        options = MigrateOptions(ram_size=16 * MIB, rate=1000.0, to=str(proxy.front), transport="vhost-user")
        async with trio.open_nursery() as nursery:
            await nursery.start(proxy.serve)
            reports.append(await run_to_the_end(options))
            output, _ = await trio.to_thread.run_sync(partial(receiver.communicate, timeout=60))
            nursery.cancel_scope.cancel()
        received = json.loads(output)
    assert reports[0].outcome is Outcome.COMPLETED
    assert reports[1].outcome is Outcome.DESTINATION_LOST
    assert received["outcome"] == "destination-lost"
    assert (reports[1].verified_at, reports[1].verified.mismatched) == ("source", 0)
    assert reports[1].verified.resumed_operations > 0


async def run_to_the_end(options):
    with trio.fail_after(60):
        return await migrate(options, events=EventStream(time.monotonic), on_progress=lambda _: None)
