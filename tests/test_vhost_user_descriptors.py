"""Descriptors that a front end sends: of every kind, full, and made blocking after they were sent."""

import os
import signal
import socket
from contextlib import ExitStack, contextmanager, suppress

import pytest
import trio
from vhost_user_setup import R, assert_open_fds, open_fds, served, u64

from spec import vhost_user as spec
from spec.device import DeviceId
from vdev.devices.balloon import BalloonDevice
from vdev.errors import UserError
from vdev.memory import GuestMemory
from vdev.run.drive import DriveOptions, attach
from vdev.vhost_user import at_once
from vdev.vhost_user.at_once import read_at_once, write_at_once
from vdev.vhost_user.event_fd import EventFd
from vdev.vhost_user.server import listen

pytestmark = pytest.mark.usefixtures("no_garbage_of_others")

FULL = (1 << 64) - 2


@contextmanager
def without_waiting():
    """Fail, and do not hang, where a system call waits."""

    def fail(*_):
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, 5)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(params=["a kernel of today", "a kernel that does not know RWF_NOWAIT"])
def kernel(request, monkeypatch):
    if request.param != "a kernel of today":

        def refuse(*_):
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr(at_once.os, "preadv", refuse)
        monkeypatch.setattr(at_once.os, "pwritev", refuse)


def test_an_event_is_taken_once_and_never_waited_for_whatever_its_sender_does_to_the_flag(kernel):
    event = EventFd(os.eventfd(0))
    try:
        with without_waiting():
            assert not event.take()
            event.signal()
            os.set_blocking(event.fileno(), False)
            assert event.take()
            os.set_blocking(event.fileno(), True)
            assert not event.take()
            os.eventfd_write(event.fileno(), FULL)
            event.signal()
            assert os.eventfd_read(event.fileno()) == FULL
    finally:
        event.close()


def test_a_blocking_pipe_is_written_as_far_as_there_is_room_and_read_as_far_as_there_is_something(kernel):
    reading, writing = os.pipe()
    sent = 0
    with without_waiting():
        with pytest.raises(BlockingIOError):
            read_at_once(reading, 10)
        with suppress(BlockingIOError):
            while True:
                sent += write_at_once(writing, bytes(1 << 20))
        assert sent >= 4096
        os.close(writing)
        received = 0
        while piece := read_at_once(reading, 1 << 20):
            received += len(piece)
    os.close(reading)
    assert received == sent


async def test_a_front_end_that_makes_its_descriptors_blocking_stops_nobody():
    device = BalloonDevice(GuestMemory.absent())
    ours, theirs = socket.socketpair()
    state_out, state_in = os.pipe()
    with ours, theirs:
        async with served(device) as front_end:
            await front_end.negotiate()
            await front_end.share_memory()
            with without_waiting():
                save = spec.DEVICE_STATE_TRANSFER.build({"direction": spec.TransferDirection.LOAD, "phase": 0})
                assert await front_end.ask_u64(R.SET_DEVICE_STATE_FD, save, [state_out]) == spec.NO_FD
                os.set_blocking(state_out, True)
                os.write(state_in, b"v")
                await front_end.settle()
                assert await front_end.ask_u64(R.SET_BACKEND_REQ_FD, b"", [theirs.fileno()]) == 0
                theirs.setblocking(True)
                with suppress(BlockingIOError):
                    while True:
                        theirs.send(bytes(4096), socket.MSG_DONTWAIT)
                front_end.queue(0)
                await front_end.start_ring(0)
                os.set_blocking(front_end.kicks[0], True)
                front_end.kick(0)
                await front_end.settle()
                device.set_target(100)
                for _ in range(20):
                    await trio.lowlevel.checkpoint()
                await front_end.settle()
    os.close(state_out)
    os.close(state_in)


UNUSABLE = {
    "a kick": (R.SET_VRING_KICK, u64(0), "device"),
    "a call": (R.SET_VRING_CALL, u64(0), "device"),
    "a channel": (R.SET_BACKEND_REQ_FD, b"", "socket"),
    "a state to load": (
        R.SET_DEVICE_STATE_FD,
        spec.DEVICE_STATE_TRANSFER.build({"direction": spec.TransferDirection.LOAD, "phase": 0}),
        "fifo",
    ),
    "a state to save": (
        R.SET_DEVICE_STATE_FD,
        spec.DEVICE_STATE_TRANSFER.build({"direction": spec.TransferDirection.SAVE, "phase": 0}),
        "fifo",
    ),
}


@pytest.mark.parametrize(("request_code", "body", "kind"), UNUSABLE.values(), ids=UNUSABLE)
async def test_a_descriptor_that_is_only_a_path_is_refused_or_of_no_use_and_is_closed(
    request_code, body, kind, tmp_path
):
    places = {"device": "/dev/null", "socket": str(tmp_path / "socket"), "fifo": str(tmp_path / "fifo")}
    os.mkfifo(places["fifo"])
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(places["socket"])
        before = open_fds()
        async with served(BalloonDevice(GuestMemory.absent())) as front_end:
            await front_end.negotiate()
            await front_end.share_memory()
            path = os.open(places[kind], os.O_PATH)
            assert await front_end.ask_u64(request_code, body, [path]) is not None
            os.close(path)
            assert await front_end.ask_u64(R.GET_FEATURES)
        del front_end
        assert_open_fds(before)


def test_a_socket_whose_owner_accepts_nobody_is_taken_and_not_waited_for(tmp_path):
    path = tmp_path / "socket"
    with listen(path) as listener, ExitStack() as waiting:
        listener.listen(0)
        with suppress(BlockingIOError):
            while True:
                sock = waiting.enter_context(socket.socket(socket.AF_UNIX))
                sock.setblocking(False)
                sock.connect(str(path))
        with without_waiting(), pytest.raises(UserError, match="Address already in use"):
            listen(path)
        with without_waiting(), pytest.raises(UserError, match=r"nobody accepted within 0\.2 s"):
            attach(DriveOptions(str(path), timeout=0.2), DeviceId.ENTROPY, 1 << 20).__enter__()
