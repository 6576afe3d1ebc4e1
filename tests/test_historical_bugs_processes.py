"""A historical bug between real processes: a migration that breaks off, and what its guest holds afterwards."""

import time
from contextlib import asynccontextmanager

import pytest
import trio
from historical_bugs_holding import NoDoneOnCancel, blocks_of
from historical_bugs_setup import MIB

from guest_agent.page_database import Owner
from vdev.events import EventStream
from vdev.run import processes
from vdev.run.options import MigrateOptions
from vdev.run.report import Outcome

pytestmark = pytest.mark.process


async def held_after_a_migration_that_broke_off(directory, monkeypatch):
    """Return how many hinted blocks the guest still holds when it has proved itself at the source."""
    memories = []
    open_host = processes.open_host

    @asynccontextmanager
    async def noted(*arguments, **named):
        async with open_host(*arguments, **named) as host:
            memories.append(host.memory)
            yield host

    monkeypatch.setattr(processes, "open_host", noted)
    path = directory / "nobody"
    with trio.socket.socket(trio.socket.AF_UNIX) as listening:
        await listening.bind(str(path))
        listening.listen()

        async def take_a_megabyte():
            connection, _ = await listening.accept()
            with connection:
                left = MIB
                while left > 0 and (data := await connection.recv(left)):
                    left -= len(data)

        options = MigrateOptions(ram_size=64 * MIB, rate=100.0, max_bandwidth=20 * MIB, to=f"unix:{path}")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take_a_megabyte)
            with trio.fail_after(60):
                report = await processes.migrate(
                    options, events=EventStream(time.monotonic), on_progress=lambda _: None
                )
            nursery.cancel_scope.cancel()
    assert report.outcome is Outcome.DESTINATION_LOST, report.error
    assert report.hints["applied_pages"] > 0
    assert report.verified_at == "source"
    return blocks_of(memories[0], Owner.HINTED)


async def test_after_a_migration_that_broke_off_the_guest_has_its_memory_back(tmp_path, monkeypatch):
    assert await held_after_a_migration_that_broke_off(tmp_path, monkeypatch) == 0


async def test_without_done_its_memory_stays_taken(tmp_path, monkeypatch):
    NoDoneOnCancel().put_back(monkeypatch)
    assert await held_after_a_migration_that_broke_off(tmp_path, monkeypatch) > 0
