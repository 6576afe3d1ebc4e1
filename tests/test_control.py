"""The control socket: what a person asks of a served balloon, and what comes back."""

import json
import socket
from contextlib import asynccontextmanager

import pytest
import trio
from device_setup import BalloonPair

from spec.balloon import BalloonFeature, StatisticTag
from spec.device import Feature, feature_mask
from vdev.errors import DriverViolation, UserError
from vdev.events import EventStream
from vdev.run.balloon_operations import BalloonOperations
from vdev.run.control import ControlRefused, ask, serve_control

MIB = 1 << 20


class Served:
    """A balloon with its driver in this loop, and its operations; the guest acts whenever it is rung for."""

    def __init__(self, patience=30.0, **pair):
        self.pair = BalloonPair(listen=True, **pair)
        stream = EventStream(lambda: 0.0)
        self.pair.device._events = stream.emitter("balloon")
        for part in ("inflation", "memory_statistics", "hinting", "reporting"):
            getattr(self.pair.device, part)._events = self.pair.device._events
        self.operations = BalloonOperations(self.pair.device, stream, patience=patience)

    async def settle_for_ever(self):
        while True:
            self.pair.settle()
            await trio.lowlevel.checkpoint()


@asynccontextmanager
async def served(tmp_path, *, guest=True, **options):
    thing = Served(**options)
    path = str(tmp_path / "balloon.control")
    with trio.socket.socket(trio.socket.AF_UNIX) as listening:
        await listening.bind(path)
        listening.listen()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_control, [trio.SocketListener(listening)], thing.operations.operations())
            if guest:
                nursery.start_soon(thing.settle_for_ever)

            async def request(name, **fields):
                return await trio.to_thread.run_sync(lambda: ask(path, {"do": name, **fields}, patience=60))

            yield thing, request, path
            nursery.cancel_scope.cancel()


async def test_a_balloon_is_made_a_size_and_said_when_it_has_it(tmp_path):
    async with served(tmp_path) as (thing, request, _):
        answer = await request("inflate", size=4 * MIB, wait=True)
        assert answer["target_size"] == answer["actual_size"] == 4 * MIB
        assert thing.pair.device.actual == 1024
        answer = await request("inflate", size=0, wait=True)
        assert answer["actual_size"] == 0


async def test_statistics_are_those_of_now(tmp_path):
    async with served(tmp_path) as (thing, request, _):
        thing.pair.statistics[int(StatisticTag.FREE_MEMORY)] = 123
        # The buffer that waits was filled before.
        assert (await request("statistics"))["free_memory"] == 123
        thing.pair.statistics[int(StatisticTag.FREE_MEMORY)] = 456
        assert (await request("statistics"))["free_memory"] == 456


async def test_hints_are_counted_and_done_gives_the_memory_back(tmp_path):
    async with served(tmp_path) as (thing, request, _):
        free_count = thing.pair.guest.allocator.free_page_count
        answer = await request("hints-request")
        taken = free_count - thing.pair.guest.allocator.free_page_count
        assert answer["pages"] == taken > 0
        assert answer["hinted_size"] == taken * 4096
        assert answer["blocks"] * 1024 == taken
        await request("hints-stop")
        assert thing.pair.guest.allocator.free_page_count == free_count - taken
        assert (await request("hints-done"))["hints"] == "DONE"
        thing.pair.settle()
        assert thing.pair.guest.allocator.free_page_count == free_count


async def test_a_guest_that_does_not_answer_is_said_so(tmp_path):
    async with served(tmp_path, guest=False, patience=0.05) as (_, request, _path):
        with pytest.raises(ControlRefused, match=r"the guest did not make its balloon that size within 0\.05 s"):
            await request("inflate", size=MIB, wait=True)
        with pytest.raises(ControlRefused, match="did not come to the end of its hints"):
            await request("hints-request")


async def test_what_the_guest_did_not_negotiate_cannot_be_asked(tmp_path):
    features = feature_mask(Feature.VERSION_1, BalloonFeature.MUST_TELL_HOST)
    async with served(tmp_path, features=features) as (_, request, _path):
        with pytest.raises(ControlRefused, match="did not negotiate STATS_VQ"):
            await request("statistics")
        with pytest.raises(ControlRefused, match="did not negotiate FREE_PAGE_HINT"):
            await request("hints-request")


async def test_without_a_guest_nothing_is_asked(tmp_path):
    async with served(tmp_path, guest=False) as (thing, request, _):
        thing.pair.device.reset()
        for name in ("statistics", "hints-request", "hints-stop", "hints-done"):
            with pytest.raises(ControlRefused, match="no guest drives the balloon"):
                await request(name)


@pytest.mark.parametrize("size", [-4096, 1, 4097, "4096", None, True, 1 << 60])
async def test_a_size_that_no_balloon_has_is_refused(tmp_path, size):
    async with served(tmp_path, guest=False) as (_, request, _path):
        with pytest.raises(ControlRefused, match="not a multiple of 4096"):
            await request("inflate", size=size)


@pytest.mark.parametrize("line", [b"", b"nonsense", b"[]", b'"do"', b'{"do": []}', b'{"do": "fly"}', b"[" * 9000])
async def test_a_request_that_is_none_gets_the_list_of_those_there_are(tmp_path, line):
    async with served(tmp_path, guest=False) as (_, request, path):
        stream = await trio.open_unix_socket(path)
        async with stream:
            await stream.send_all(line + b"\n")
            answer = json.loads(await stream.receive_some())
        assert "hints-done, hints-request, hints-stop, inflate, statistics" in answer["refused"]
        with pytest.raises(ControlRefused):
            await request("inflate")  # still served


async def test_a_line_without_end_ends_the_connection(tmp_path):
    async with served(tmp_path, guest=False) as (_, _request, path):
        stream = await trio.open_unix_socket(path)
        async with stream:
            with pytest.raises(trio.BrokenResourceError):
                await stream.send_all(b"x" * (64 << 20))


def test_asking_where_nobody_serves_says_so(tmp_path):
    with pytest.raises(UserError, match="is `vdev serve` running"):
        ask(str(tmp_path / "nothing"), {"do": "status"}, patience=1)
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "deaf"))
        deaf.listen()
        with pytest.raises(UserError, match=r"did not answer within 0\.05 s"):
            ask(str(tmp_path / "deaf"), {"do": "status"}, patience=0.05)


@pytest.mark.parametrize(
    ("name", "fields", "what"),
    [
        ("inflate", {"size": 4 * MIB, "wait": True}, "make its balloon that size"),
        ("statistics", {}, "give statistics"),
        ("hints-request", {}, "come to the end of its hints"),
    ],
)
@pytest.mark.parametrize("broken", [False, True])
async def test_who_waits_for_a_guest_that_goes_away_is_told_at_once(tmp_path, name, fields, what, broken):
    async with served(tmp_path, guest=False) as (thing, request, _):
        device = thing.pair.device
        thing.pair.settle()
        answers = []

        async def wait():
            with pytest.raises(ControlRefused) as refused:
                await request(name, **fields)
            answers.append(str(refused.value))

        with trio.fail_after(10):  # far below what the operation waits for a guest
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                while thing.operations._moved.statistics().tasks_waiting == 0:
                    await trio.lowlevel.checkpoint()
                if broken:
                    device.needs_reset(DriverViolation("Virtqueues", "a bad one"))
                else:
                    device.reset()
        assert answers == [f"the guest did not {what}: {'its driver broke the rules' if broken else 'it went away'}"]
