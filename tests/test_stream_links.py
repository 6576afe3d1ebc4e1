"""Links over real sockets: all bytes come, ends are noticed, and no thread is left behind."""

import socket
import threading

import numpy as np
import pytest
import trio
import trio.testing
from migration_setup import SourceGuest, TargetGuest, contents, make_memory, write_pages

from host_migrator.destination import Destination
from host_migrator.dirty_log import CooperativeDirtyLog
from host_migrator.errors import DestinationLost, DestinationRefused, LinkClosed, StreamError, Truncated
from host_migrator.link import LoopLink, SocketLink
from host_migrator.source import Source
from host_migrator.strategies import NoHints
from host_migrator.stream import BACKWARD, Failed, Ready, StreamParser, build_record
from vdev.memory import GuestMemory, MemfdBacking, Region
from vdev.schedule import FreeSchedule

MIB = 1 << 20


def unix_pair():
    return socket.socketpair()


def tcp_pair():
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = socket.create_connection(server.getsockname())
        there, _ = server.accept()
    return here, there


def busy_threads():
    """Threads that work; trio keeps idle ones for a while, which wait on a lock."""
    return [thread for thread in threading.enumerate() if thread.name.startswith(("populate", "vdev"))]


@pytest.fixture(params=[unix_pair, tcp_pair], ids=["unix", "tcp"])
def sockets(request):
    pair = request.param()
    yield pair
    for sock in pair:
        sock.close()


def ends(sockets, memory, target, **options):
    async def make_machine(header):
        return target

    guest = SourceGuest(memory)
    log = CooperativeDirtyLog(memory.page_marks)
    source = Source(guest, SocketLink(sockets[0]), log, NoHints(), FreeSchedule(), **options)
    return guest, source, Destination(SocketLink(sockets[1]), make_machine, FreeSchedule())


async def test_a_guest_moves_over_a_socket(sockets):
    memory, target = make_memory(16 * MIB, marks=True), TargetGuest(make_memory(16 * MIB))
    generator = np.random.default_rng(1)
    for region in memory.regions:
        region.backing.data[: 5 * MIB] = np.frombuffer(generator.bytes(5 * MIB), np.uint8)
    write_pages(memory, range(0, memory.page_count, 3), 9)
    _, source, destination = ends(sockets, memory, target)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(destination.run)
        figures = await source.run()
    assert figures.verdict == {"pages": memory.page_count, "mismatched": 0}
    assert np.array_equal(contents(memory), contents(target.memory))
    assert not busy_threads()


async def test_a_cold_destination_is_populated_only_as_far_as_the_stream_comes():
    sockets = unix_pair()
    memory = make_memory(16 * MIB, marks=True)
    write_pages(memory, range(64), 1)
    backings = [MemfdBacking(8 * MIB), MemfdBacking(8 * MIB)]
    regions = [Region(region.guest_address, backing) for region, backing in zip(memory.regions, backings, strict=True)]
    target = TargetGuest(GuestMemory(regions))
    _, source, destination = ends(sockets, memory, target)
    destination._populate_size = MIB
    async with trio.open_nursery() as nursery:
        nursery.start_soon(destination.run)
        await source.run()
    # Before anybody looks at the contents: reading a hole of a memfd fills it.
    assert 64 * 4096 <= target.memory.resident_size() <= 64 * 4096 + MIB + 64 * 4096
    assert np.array_equal(contents(memory), contents(target.memory))
    for backing in backings:
        backing.close()


async def test_the_refusal_of_a_destination_arrives_though_the_source_still_sends(sockets):
    memory, target = make_memory(64 * MIB, marks=True), TargetGuest(make_memory(2 * MIB))
    for region in memory.regions:
        region.backing.data[:] = 1
    guest, source, destination = ends(sockets, memory, target)

    async def run_destination():
        with pytest.raises(StreamError, match="guest RAM"):
            await destination.run()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_destination)
        with pytest.raises(DestinationRefused, match="guest RAM"):
            await source.run()
    assert guest.running
    assert target.calls == ["discard"]


async def test_a_source_that_is_cancelled_while_its_thread_sends_leaves_no_thread_and_the_guest_runs(sockets):
    memory = make_memory(16 * MIB, marks=True)
    for region in memory.regions:
        region.backing.data[:] = 1
    guest, source, _ = ends(sockets, memory, TargetGuest(make_memory(16 * MIB)))
    limiter = trio.CancelScope()

    async def run():
        with limiter:
            await source.run()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        # Nobody reads: the thread gets stuck in the system call once the buffers are full.
        await trio.lowlevel.wait_readable(sockets[1])
        await trio.testing.wait_all_tasks_blocked()
        limiter.cancel()
    assert limiter.cancelled_caught
    assert guest.running
    assert source.phase == "failed"


async def test_the_other_ends_death_is_noticed_while_sending(sockets):
    memory = make_memory(16 * MIB, marks=True)
    for region in memory.regions:
        region.backing.data[:] = 1
    guest, source, _ = ends(sockets, memory, TargetGuest(make_memory(16 * MIB)))
    sockets[1].close()
    with pytest.raises(DestinationLost, match=r"phase (set-up|bulk)"):
        await source.run()
    assert guest.running


async def test_receiving_is_cancelled_without_a_trace(sockets):
    link = SocketLink(sockets[0])
    with trio.move_on_after(0) as scope:
        await link.receive(StreamParser(BACKWARD, preamble=False))
    assert scope.cancelled_caught
    await link.close()
    with pytest.raises(LinkClosed, match="this end"):
        await link.send([[b"x"]])
    await link.close()


async def test_half_a_record_and_then_nothing_is_truncated(sockets):
    link = SocketLink(sockets[0])
    record = b"".join(build_record(Failed("because")))
    sockets[1].sendall(record[:-3])
    sockets[1].close()
    assert link.pending()
    with pytest.raises(Truncated, match="FAILED"):
        await link.receive(StreamParser(BACKWARD, preamble=False))
    await link.close()


async def test_cancelling_in_the_middle_of_a_record_ends_the_thread(sockets):
    link = SocketLink(sockets[0])
    sockets[1].sendall(b"".join(build_record(Ready({})))[:-3])

    async def receive(task_status):
        with trio.CancelScope() as scope:
            task_status.started(scope)
            await link.receive(StreamParser(BACKWARD, preamble=False))
        assert scope.cancelled_caught

    async with trio.open_nursery() as nursery:
        scope = await nursery.start(lambda task_status: receive(task_status))
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
    assert sockets[1].recv(1) == b""
    await link.close()


async def test_pending_tells_bytes_and_the_end_from_nothing(sockets):
    link = SocketLink(sockets[0])
    assert not link.pending()
    sockets[1].sendall(b"x")
    with trio.fail_after(5):
        await trio.lowlevel.wait_readable(sockets[0])
    assert link.pending()
    await link.close()


async def test_a_loop_link_carries_as_fast_as_it_is_told(autojump_clock):
    here, there = LoopLink.pair(FreeSchedule(), bandwidth=1000.0)
    record = build_record(Failed("x" * 476))
    assert sum(map(len, record)) == 500
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.send, [record])
        assert await there.receive(StreamParser(BACKWARD, preamble=False)) == Failed("x" * 476)
    assert trio.current_time() - began == pytest.approx(0.5)


async def test_a_loop_link_makes_the_sender_wait_when_it_is_full():
    here, there = LoopLink.pair(FreeSchedule(), capacity=100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.send, [[bytes(90)], [bytes(90)], [bytes(90)]])
        await trio.testing.wait_all_tasks_blocked()
        assert here.sent_size == 180
        there._drop_incoming()
        await trio.testing.wait_all_tasks_blocked()
        assert here.sent_size == 270
