"""What a front end makes of a back end that answers wrongly, in every way and to every request."""

import contextlib
import gc
import os
import socket
import struct
from functools import partial

import pytest
from construct import Int32ul, Int64ul, Struct
from front_end_setup import MIB, open_fd_count, shared_memory
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_back_end import CONFIG_BYTES, STATE, Answer, R, reply, scripted, u64

from guest_agent.transport import DeviceRefused
from guest_agent.vhost_user import BackEndLost, BackEndNotResponding, BackEndRefused, VhostUserTransport
from guest_agent.vhost_user.ring import RING_STEPS, Ring, RingState, RingStep
from guest_agent.vhost_user.session import LEGAL, FrontEndSession
from guest_agent.virtqueue.split import SplitDriverQueue
from spec import vhost_user as spec
from spec.device import DeviceStatus, Feature, feature_mask
from spec.mmio import Interrupt
from spec.vhost_user import FRONT_END_REQUESTS, BackEndRequest
from vdev.errors import BackEndViolation, DeviceViolation, VdevError
from vdev.vhost_user.framing import encode

pytestmark = pytest.mark.usefixtures("no_garbage_of_others")

PATIENCE = 20.0
SHORT_PATIENCE = 0.2
LAYOUT = "config" / Struct("first" / Int64ul, "second" / Int32ul)
MEMORY = shared_memory((0, MIB), *((n << 32, MIB) for n in range(1, 9)))
"""More regions than a table has places for. Made once: an error that is kept for a look keeps its mappings open."""


@pytest.fixture(autouse=True, scope="module")
def nothing_of_other_tests():
    """Errors that were kept elsewhere keep mappings, and with them descriptors, until they are collected."""
    gc.collect()


def use_everything(sock, patience=PATIENCE):
    """Have a front end send every request that it knows, and return what it read."""
    transport = None
    try:
        transport = VhostUserTransport(MEMORY, sock, device_id=42, patience=patience, name="the back end")
        transport.acknowledge_device()
        features = transport.negotiate(feature_mask(Feature.VERSION_1))
        config = transport.read_config(LAYOUT)
        transport.write_config(LAYOUT, "second", 7)
        queue = SplitDriverQueue.create(MEMORY, 0, 8, 0x4000, features)
        transport.set_up_queue(0, queue.addresses)
        transport.drive()
        transport.start_write_log()
        transport.take_interrupt()
        transport.suspend()
        state = transport.save_device_state()
        transport.load_device_state(state)
        transport.resume()
        transport.stop_write_log()
        transport.reset()
    finally:
        if transport is not None:
            transport.close()
    return config, state


SENT = sorted(LEGAL.keys() - {R.SET_MEM_TABLE})
UNANSWERED = [R.SET_OWNER, R.SET_PROTOCOL_FEATURES]


def test_everything_is_used_of_a_back_end_that_does_it_right():
    before = open_fd_count()
    with scripted() as (sock, back_end):
        config, state = use_everything(sock)
    assert sorted(set(back_end.requests)) == SENT
    assert config == {"first": int.from_bytes(CONFIG_BYTES[:8], "little"), "second": 0x0B0A0908}
    assert back_end.written_config == [(8, struct.pack("<I", 7))]
    assert state == back_end.loaded == STATE
    assert open_fd_count() == before


# Every reply wrong in each way. A way makes the wrong answer from the right one.


def _with_header(answer, *, request=None, flags=None, size=None):
    fields = list(struct.unpack_from("<III", answer.data))
    for place, value in enumerate((request, flags, size)):
        if value is not None:
            fields[place] = value
    return Answer(struct.pack("<III", *fields) + answer.data[12:], answer.fds)


def _with_fds(answer, count):
    return Answer(answer.data, [*answer.fds, *(os.memfd_create("extra", os.MFD_CLOEXEC) for _ in range(count))])


WAYS = {
    "closes instead": lambda answer: Answer(close=True),
    "closes inside the header": lambda answer: Answer(answer.data[:5], close=True),
    "closes inside the payload": lambda answer: Answer(answer.data[:-1], close=True),
    "is no reply": partial(_with_header, flags=spec.VERSION),
    "answers another request": partial(_with_header, request=R.NET_SET_MTU),
    "answers a request that does not exist": partial(_with_header, request=0xFFFF_FFFF),
    "has another version": partial(_with_header, flags=2 | spec.Flag.REPLY),
    "has unknown flags": partial(_with_header, flags=spec.VERSION | spec.Flag.REPLY | 1 << 31),
    "is too short": lambda answer: _with_header(Answer(answer.data[:-1], answer.fds), size=len(answer.data) - 13),
    "is too long": lambda answer: _with_header(Answer(answer.data + b"!" * 9, answer.fds), size=len(answer.data) - 3),
    "says that it is huge": partial(_with_header, size=0xFFFF_FFFF),
    "has two descriptors too many": partial(_with_fds, count=2),
    "has more descriptors than a message can": partial(_with_fds, count=9),
    "has more descriptors than a front end looks at": partial(_with_fds, count=40),
    "comes twice": lambda answer: Answer(answer.data * 2, answer.fds),
    "is garbage": lambda answer: Answer(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 3),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("request_", [request for request in SENT if request not in UNANSWERED], ids=lambda r: r.name)
def test_a_wrong_answer_ends_the_connection_and_leaves_nothing_open(request_, way):
    before = open_fd_count()
    with scripted({request_: WAYS[way]}) as (sock, _), pytest.raises(BackEndLost) as caught:
        use_everything(sock)
    assert str(caught.value).startswith("the back end: ")
    assert open_fd_count() == before


@pytest.mark.parametrize("request_", [request for request in SENT if request not in UNANSWERED], ids=lambda r: r.name)
def test_an_answer_that_does_not_come_is_named(request_):
    before = open_fd_count()
    with scripted({request_: lambda answer: Answer(fds=answer.fds)}) as (sock, _), pytest.raises(BackEndLost) as caught:
        use_everything(sock, SHORT_PATIENCE)
    assert isinstance(caught.value.cause, BackEndNotResponding)
    assert f"did not answer {request_.name} within 0.2 s" in str(caught.value)
    assert open_fd_count() == before


@pytest.mark.parametrize("request_", UNANSWERED, ids=lambda r: r.name)
def test_something_that_nobody_asked_for_is_a_violation(request_):
    with (
        scripted({request_: lambda _: Answer(reply(request_, u64(0)))}) as (sock, _),
        pytest.raises(BackEndLost, match=r"nothing was asked|the answer is a reply to"),
    ):
        use_everything(sock)


VALUES = {
    "no queue": (R.GET_QUEUE_NUM, u64(0), "0 queues"),
    "too many queues": (R.GET_QUEUE_NUM, u64(1 << 40), "queues"),
    "no memory slot": (R.GET_MAX_MEM_SLOTS, u64(0), "0 memory slots"),
    "a status of 9 bits": (R.GET_STATUS, u64(0x101), "more than 8 bits"),
    "a base of 17 bits": (R.GET_VRING_BASE, struct.pack("<II", 0, 1 << 16), "more than 16 bits"),
    "a base beyond what was made available": (R.GET_VRING_BASE, struct.pack("<II", 0, 1), "not between"),
    "another ring's base": (R.GET_VRING_BASE, struct.pack("<II", 1, 0), "asked for ring 0, got ring 1"),
    "configuration from elsewhere": (R.GET_CONFIG, struct.pack("<III", 4, 12, 0) + bytes(12), "got 12 at 4"),
    "less configuration": (R.GET_CONFIG, struct.pack("<III", 0, 4, 0) + bytes(4), "got 4 at 0"),
    "an area in flight beyond its file": (R.GET_INFLIGHT_FD, struct.pack("<QQHH", 4096, 1, 1, 8), "ends at 0x1001"),
    "an area in flight without size": (R.GET_INFLIGHT_FD, struct.pack("<QQHH", 0, 0, 1, 8), "no size"),
    "a descriptor for a state that is not there": (R.SET_DEVICE_STATE_FD, u64(0), "with 0 file descriptors"),
}


@pytest.mark.parametrize("value", VALUES)
def test_an_answer_that_cannot_be_true_is_a_violation(value):
    request, body, message = VALUES[value]
    before = open_fd_count()
    changes = {request: lambda answer: Answer(reply(request, body), answer.fds)}
    with scripted(changes) as (sock, _), pytest.raises(BackEndLost, match=message) as caught:
        use_everything(sock)
    assert isinstance(caught.value.cause, BackEndViolation)
    assert open_fd_count() == before


def test_an_area_in_flight_without_a_descriptor_is_a_violation():
    with (
        scripted({R.GET_INFLIGHT_FD: lambda answer: Answer(answer.data)}) as (sock, _),
        pytest.raises(BackEndLost, match="there is no file descriptor"),
    ):
        use_everything(sock)


ACKNOWLEDGED = [r for r in SENT if FRONT_END_REQUESTS[r].reply is None and r not in UNANSWERED]


@pytest.mark.parametrize("request_", ACKNOWLEDGED, ids=lambda r: r.name)
def test_a_refusal_is_an_error_that_names_the_request(request_):
    before = open_fd_count()
    with (
        scripted({request_: lambda _: Answer(reply(request_, u64(1)))}) as (sock, _),
        pytest.raises((BackEndRefused, DeviceRefused, BackEndLost), match=f"{request_.name}|refuses features"),
    ):
        use_everything(sock)
    assert open_fd_count() == before


@pytest.mark.parametrize("request_", [R.SET_DEVICE_STATE_FD, R.CHECK_DEVICE_STATE], ids=lambda r: r.name)
def test_a_back_end_that_cannot_give_its_state_says_so(request_):
    before = open_fd_count()
    with (
        scripted({request_: lambda _: Answer(reply(request_, u64(spec.NO_FD | 1)))}) as (sock, _),
        pytest.raises(BackEndRefused, match="its state"),
    ):
        use_everything(sock)
    assert open_fd_count() == before


def test_features_that_do_not_stay_set_are_refused():
    without = DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER
    answers = iter([0, without])
    changes = {R.GET_STATUS: lambda _: Answer(reply(R.GET_STATUS, u64(next(answers))))}
    with scripted(changes) as (sock, _), pytest.raises(DeviceRefused, match="refuses features 0x100000000"):
        use_everything(sock)


def test_a_status_that_stays_set_after_a_reset_is_a_violation():
    with (
        scripted({R.GET_STATUS: lambda _: Answer(reply(R.GET_STATUS, u64(4)))}) as (sock, _),
        pytest.raises(DeviceViolation, match="the status is 0x4 after reset"),
    ):
        use_everything(sock)


def fill(sock, data):
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.send(data)


class TestWorking:
    """A front end whose ring runs, and a back end that is there but does odd things."""

    @pytest.fixture
    def running(self):
        before = open_fd_count()
        with scripted() as (sock, back_end):
            transport = VhostUserTransport(MEMORY, sock, device_id=42, patience=PATIENCE, name="the back end")
            transport.acknowledge_device()
            features = transport.negotiate(feature_mask(Feature.VERSION_1))
            queue = SplitDriverQueue.create(MEMORY, 0, 8, 0x4000, features)
            transport.set_up_queue(0, queue.addresses)
            transport.drive()
            yield transport, back_end, queue
            transport.close()
        assert open_fd_count() == before

    def test_a_call_and_a_changed_configuration_are_told_apart(self, running):
        transport, back_end, _ = running
        assert transport.take_interrupt() == 0
        os.eventfd_write(back_end.calls[0], 3)
        assert transport.wait_interrupt(PATIENCE)
        assert transport.take_interrupt() == Interrupt.USED_BUFFER
        back_end.channel.send(encode(BackEndRequest.CONFIG_CHANGE_MSG))
        assert transport.wait_interrupt(PATIENCE)
        assert transport.take_interrupt() == Interrupt.CONFIGURATION_CHANGE
        assert transport.take_interrupt() == 0
        assert not transport.wait_interrupt(0)

    def test_a_request_of_the_back_end_is_answered_when_it_asks_for_that(self, running):
        transport, back_end, _ = running
        back_end.channel.send(encode(BackEndRequest.CONFIG_CHANGE_MSG, need_reply=True))
        assert transport.take_interrupt() == Interrupt.CONFIGURATION_CHANGE
        back_end.channel.settimeout(PATIENCE)
        assert back_end.channel.recv(100) == reply(BackEndRequest.CONFIG_CHANGE_MSG, u64(0))

    def test_it_is_answered_too_while_the_front_end_waits_itself(self, running):
        transport, back_end, _ = running

        def ask_first(answer):
            back_end.channel.send(encode(BackEndRequest.CONFIG_CHANGE_MSG, need_reply=True))
            back_end.channel.settimeout(PATIENCE)
            assert back_end.channel.recv(100) == reply(BackEndRequest.CONFIG_CHANGE_MSG, u64(0))
            return answer

        back_end._changes[R.GET_STATUS] = ask_first
        assert not transport.needs_reset
        assert transport.wait_interrupt(PATIENCE)
        assert transport.take_interrupt() == Interrupt.CONFIGURATION_CHANGE
        assert not transport.wait_interrupt(0)

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (encode(BackEndRequest.SHMEM_MAP, bytes(40)), "not negotiated"),
            (encode(BackEndRequest.VRING_CALL, bytes(8)), "not negotiated"),
            (encode(77), "not negotiated"),
            (reply(BackEndRequest.CONFIG_CHANGE_MSG, b""), "not negotiated"),
            (encode(BackEndRequest.CONFIG_CHANGE_MSG, b"x"), "where there is none"),
            (b"\xff" * 12, "version 3"),
        ],
    )
    def test_what_it_may_not_ask_ends_the_connection(self, running, data, message):
        transport, back_end, _ = running
        back_end.channel.send(data)
        assert transport.wait_interrupt(PATIENCE)
        assert transport.take_interrupt() == Interrupt.CONFIGURATION_CHANGE
        assert message in str(transport.lost)
        assert transport.needs_reset
        assert transport.filenos() == []

    def test_one_that_floods_the_channel_and_reads_no_answer_is_given_up(self, running):
        transport, back_end, _ = running
        back_end.channel.setblocking(False)
        message = encode(BackEndRequest.CONFIG_CHANGE_MSG, need_reply=True)
        while transport.lost is None:
            fill(back_end.channel, message)
            transport.take_interrupt()
        assert "does not read answers" in str(transport.lost)

    def test_one_that_closes_the_channel_goes_on_with_its_rings(self, running):
        transport, back_end, queue = running
        back_end.channel.shutdown(socket.SHUT_RDWR)
        assert transport.wait_interrupt(PATIENCE)
        assert transport.take_interrupt() == 0
        queue.add([(0x8000, 16)], [], 1)
        transport.publish(queue)
        assert os.eventfd_read(back_end.kicks[0]) == 1
        assert transport.lost is None

    def test_a_ring_in_error_needs_a_reset(self, running):
        transport, back_end, _ = running
        assert not transport.needs_reset
        os.eventfd_write(back_end.errs[0], 1)
        assert transport.wait_interrupt(PATIENCE)
        assert transport.take_interrupt() == Interrupt.CONFIGURATION_CHANGE
        assert transport.ring_error == "the back end: error on ring 0"
        assert transport.needs_reset
        transport.reset()
        assert not transport.needs_reset

    def test_one_that_fills_the_kick_counter_does_not_stop_the_driver(self, running):
        transport, back_end, queue = running
        os.eventfd_write(back_end.kicks[0], 0xFFFF_FFFF_FFFF_FFFE)
        queue.add([(0x8000, 16)], [], 1)
        transport.publish(queue)
        assert transport.lost is None

    def test_a_message_that_nobody_asked_for_is_found_by_the_next_look(self, running):
        transport, back_end, _ = running
        back_end._socket.send(reply(R.GET_STATUS, u64(0)))
        assert transport.wait_interrupt(PATIENCE)
        assert transport.take_interrupt() == Interrupt.CONFIGURATION_CHANGE
        assert "nothing was asked" in str(transport.lost)

    def test_an_answer_from_before_does_not_answer_the_next_request(self, running):
        transport, back_end, _ = running
        back_end._socket.send(reply(R.GET_STATUS, u64(DeviceStatus.DEVICE_NEEDS_RESET)))
        with pytest.raises(BackEndLost, match="nothing was asked"):
            _ = transport.status

    def test_rings_that_go_on_are_kicked_for_what_was_lost_meanwhile(self, running):
        transport, back_end, _ = running
        transport.suspend()
        transport.resume()
        assert os.eventfd_read(back_end.kicks[0]) == 1
        assert transport.take_interrupt() == Interrupt.USED_BUFFER | Interrupt.CONFIGURATION_CHANGE

    def test_the_end_of_the_connection_is_an_interrupt(self, running):
        transport, back_end, _ = running
        back_end._socket.shutdown(socket.SHUT_RDWR)
        assert transport.wait_interrupt(PATIENCE)
        assert transport.take_interrupt() == Interrupt.CONFIGURATION_CHANGE
        assert "closed the connection" in str(transport.lost)


def test_without_acknowledgements_an_answer_shows_that_the_configuration_was_taken():
    without = ~(1 << spec.ProtocolFeature.REPLY_ACK) & (1 << 64) - 1
    with scripted(protocol_features=without) as (sock, back_end):
        transport = VhostUserTransport(MEMORY, sock, device_id=42, patience=PATIENCE)
        transport.write_config(LAYOUT, "second", 7)
        assert back_end.requests[-2:] == [R.SET_CONFIG, R.GET_FEATURES]
        assert back_end.written_config == [(8, struct.pack("<I", 7))]
        transport.close()


def test_a_back_end_that_does_not_read_is_given_up():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with theirs:
        ours.setblocking(False)
        fill(ours, bytes(4096))
        ours.setblocking(True)
        with pytest.raises(BackEndLost, match=r"did not read SET_OWNER within 0.2 s"):
            VhostUserTransport(MEMORY, ours, device_id=1, patience=SHORT_PATIENCE)


def test_a_state_that_never_ends_is_given_up():
    kept = []

    def keep_open(answer):
        read_end, write_end = os.pipe()
        kept.append(write_end)
        return Answer(reply(R.SET_DEVICE_STATE_FD, u64(0)), [read_end])

    with scripted({R.SET_DEVICE_STATE_FD: keep_open}) as (sock, _):
        with pytest.raises(BackEndLost, match=r"did not send its state within 0.2 s"):
            use_everything(sock, SHORT_PATIENCE)
        os.close(kept.pop())


def its_own_pipe(answer):
    """Give the read end of a pipe that has a short state in it: right for saving, wrong for loading."""
    read_end, write_end = os.pipe()
    os.write(write_end, b"short")
    os.close(write_end)
    return Answer(reply(R.SET_DEVICE_STATE_FD, u64(0)), [read_end])


def test_a_state_may_come_through_a_channel_of_the_back_end():
    with scripted({R.SET_DEVICE_STATE_FD: its_own_pipe}) as (sock, _):
        transport = VhostUserTransport(MEMORY, sock, device_id=42, patience=PATIENCE)
        transport.acknowledge_device()
        transport.negotiate(feature_mask(Feature.VERSION_1))
        assert transport.save_device_state() == b"short"
        transport.close()


def test_a_channel_that_does_not_do_is_a_violation():
    before = open_fd_count()
    with (
        scripted({R.SET_DEVICE_STATE_FD: its_own_pipe}) as (sock, _),
        pytest.raises(BackEndLost, match="its state cannot be written: Bad file descriptor"),
    ):
        use_everything(sock)
    assert open_fd_count() == before


@given(request=st.sampled_from(SENT), place=st.integers(0, 40), value=st.integers(0, 255))
@settings(max_examples=150, deadline=None)
def test_any_byte_of_an_answer_may_be_wrong(request, place, value):
    before = open_fd_count()

    def spoil(answer):
        data = bytearray(answer.data)
        if place < len(data):
            data[place] = value
        return Answer(bytes(data), answer.fds)

    with scripted({request: spoil}) as (sock, _), contextlib.suppress(VdevError):
        use_everything(sock, SHORT_PATIENCE)
    assert open_fd_count() == before


class TestTables:
    @pytest.mark.parametrize("request_", LEGAL, ids=lambda r: r.name)
    def test_a_request_at_the_wrong_time_is_a_bug_here(self, request_):
        session = FrontEndSession()
        if request_ is not R.SET_OWNER:
            with pytest.raises(RuntimeError, match=f"{request_.name} while connected"):
                session.request(request_)
        session.request(R.SET_OWNER)
        needs = FRONT_END_REQUESTS[request_].needs
        if needs is not None:
            session.state = max(LEGAL[request_], key=lambda state: state.value)
            with pytest.raises(RuntimeError, match=f"{request_.name} without {needs.name}"):
                session.request(request_)

    def test_one_request_at_a_time(self):
        session = FrontEndSession()
        session.request(R.SET_OWNER)
        session.request(R.GET_FEATURES)
        with pytest.raises(RuntimeError, match="GET_FEATURES is not answered"):
            session.request(R.GET_PROTOCOL_FEATURES)

    def test_a_ring_goes_by_its_table(self):
        for state in RingState:
            for step in RingStep:
                ring = Ring(3, None, 0)
                ring.state = state
                if step in RING_STEPS[state]:
                    ring.step(step)
                    assert ring.state is RING_STEPS[state][step]
                else:
                    with pytest.raises(RuntimeError, match=f"ring 3 is {state.value}"):
                        ring.step(step)
