"""The bench's raw front end: each message is answered, refused, or ends in a named error in time; nothing leaks."""

import gc
import os
import socket
import threading
from contextlib import contextmanager

import pytest
from bench_setup import entropy, entropy_bench, never_fill, open_descriptors

from spec.device import Feature
from spec.vhost_user import LOG_ALL, PROTOCOL_FEATURES, U64, BackEndRequest, FrontEndRequest, ProtocolFeature
from vdev.check.bench.bench import Bench
from vdev.check.bench.fate import Fate
from vdev.check.bench.inflight_area import InflightArea
from vdev.check.bench.request import Request
from vdev.check.bench.ring import Segment
from vdev.check.bench.traffic import traffic
from vdev.check.registry import BOTH, RingFormat
from vdev.check.target import ConnectionClosed
from vdev.check.target_registers import RegistersTarget
from vdev.check.target_thread import ThreadTarget
from vdev.check.verdict import Failed, NotApplicable, TargetCrashed, TargetHung
from vdev.devices.balloon import BalloonDevice
from vdev.devices.kind import Carrier
from vdev.vhost_user.framing import encode

SPLIT = RingFormat.SPLIT


@pytest.fixture(scope="module")
def target():
    target = ThreadTarget(entropy)
    yield target
    target.close()


@pytest.fixture(params=BOTH, ids=lambda ring_format: ring_format.value)
def bench(request, target):
    with entropy_bench(target, request.param) as bench:
        yield bench
        bench.quiesce()
        assert bench.memory.touched() == []


class ScriptedTarget:
    """A back end that answers each message with what `script` returns for its bytes; b"" closes the connection."""

    carrier = Carrier.VHOST_USER
    host = None

    def __init__(self, script, patience=0.1):
        self.patience = patience
        self._script = script
        self._threads = []

    def connect(self):
        ours, theirs = socket.socketpair()
        thread = threading.Thread(target=self._serve, args=(theirs,))
        thread.start()
        self._threads.append(thread)
        return ours

    def _serve(self, sock):
        with sock:
            while data := sock.recv(4096):
                answer = self._script(data)
                if answer == b"":
                    return
                if answer is not None:
                    sock.sendall(answer)

    def close(self):
        for thread in self._threads:
            thread.join(10)


@contextmanager
def scripted(script):
    target = ScriptedTarget(script)
    try:
        with entropy_bench(target, SPLIT) as bench:
            yield bench
    finally:
        target.close()


def test_a_silent_back_end_is_hung_within_its_patience():
    with scripted(lambda _: None) as bench, pytest.raises(TargetHung, match=r"did not answer GET_FEATURES within 0\.1"):
        bench.start()


def test_a_back_end_that_closes_is_named():
    with scripted(lambda _: b"") as bench, pytest.raises(ConnectionClosed, match="in answer to GET_FEATURES"):
        bench.start()


def test_a_back_end_that_is_gone_is_named_by_who_sends():
    with scripted(lambda _: b"") as bench:
        bench.front_end.send(FrontEndRequest.SET_OWNER)
        bench.front_end.wait_closed()
        with pytest.raises(ConnectionClosed, match="before it had SET_OWNER"):
            bench.front_end.send(FrontEndRequest.SET_OWNER)


@pytest.mark.parametrize(
    ("answer", "statement"),
    [
        (encode(2, U64.build({"value": 0}), is_reply=True), "vhost-user.back-end.reply.1"),
        (encode(1, U64.build({"value": 0})), "vhost-user.back-end.reply.1"),
        (bytes([1, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0]), "vhost-user.back-end.reply.1"),
        (encode(1, bytes(7), is_reply=True), "vhost-user.back-end.reply.3"),
        (encode(1, bytes(9), is_reply=True), "vhost-user.back-end.reply.3"),
    ],
)
def test_an_answer_that_is_none_breaks_a_statement(answer, statement):
    with scripted(lambda _: answer) as bench, pytest.raises(Failed) as failed:
        bench.front_end.ask_fields(FrontEndRequest.GET_FEATURES)
    assert failed.value.statement == statement


def test_a_back_end_that_does_not_read_is_hung():
    ours, theirs = socket.socketpair()
    with theirs:
        target = ScriptedTarget(lambda _: None)
        target.connect = lambda: ours
        with entropy_bench(target, SPLIT) as bench, pytest.raises(TargetHung, match="did not read bytes"):
            bench.front_end.send_bytes(bytes(16 << 20))


def test_a_ring_that_is_not_started_ends_in_hung():
    target = ThreadTarget(entropy, patience=0.3)
    try:
        with entropy_bench(target, SPLIT) as bench:
            bench.start(drive=False)
            ring = bench.ring()
            ring.post(bench.traffic.plain(bench))
            ring.publish()
            ring.kick()
            with pytest.raises(TargetHung, match=r"did not use 1 buffer of queue 0 \(1 missing\) within 0\.3 s"):
                ring.wait_used()
            with pytest.raises(TargetHung, match="call for queue 0"):
                bench.control.wait_call(0, than=0)
    finally:
        target.close()


def test_a_target_that_closes_while_a_ring_is_waited_for_is_named(bench):
    bench.start()
    bench.barrier(bench.ring())
    bench.front_end.send_bytes(b"\xff" * 12)
    with pytest.raises(ConnectionClosed, match="while queue 0 was waited for"):
        bench.ring().wait_used()
    assert bench.survives() is Fate.CLOSED
    bench.is_alive()


def test_a_back_end_that_serves_nobody_any_more_has_crashed(target, monkeypatch):
    with entropy_bench(target, SPLIT) as bench:
        bench.start()
        ours, theirs = socket.socketpair()
        theirs.close()
        monkeypatch.setattr(target, "connect", lambda: ours)
        with pytest.raises(TargetCrashed, match="a new driver is not served"):
            bench.is_alive()


def test_what_is_refused_is_told_from_what_is_obeyed_and_what_closes(bench):
    bench.start()
    front_end = bench.front_end
    assert front_end.set_base(0, 5) is False
    assert front_end.set_size(99, 4) is False
    assert front_end.enable(0, False) is True
    assert front_end.acknowledged(FrontEndRequest.GET_VRING_BASE, bytes(3)) is None
    assert front_end.is_closed()


def test_without_acknowledgements_a_later_answer_shows_that_a_message_was_obeyed(target):
    with entropy_bench(target, SPLIT) as bench:
        bench.front_end.negotiate_protocol_features(1 << ProtocolFeature.STATUS)
        bench.start()
        assert not bench.front_end.has(ProtocolFeature.REPLY_ACK)
        bench.exchange(bench.ring())
        bench.front_end.need(ProtocolFeature.STATUS)
        with pytest.raises(NotApplicable, match="CONFIG"):
            bench.control.read_config(0, 4)


def test_without_protocol_features_the_rings_are_enabled_by_themselves(target):
    with entropy_bench(target, SPLIT) as bench:
        bench.front_end.negotiate_protocol_features(0)
        bench.start()
        bench.exchange(bench.ring())
        with pytest.raises(NotApplicable, match="STATUS"):
            bench.control.status()


def test_a_stopped_ring_goes_on_from_its_base(bench):
    bench.start(size=4)
    ring = bench.ring()
    for _ in range(6):
        bench.exchange(ring)
    base = ring.stop()
    assert base == ring.base
    ring.resume(base)
    bench.exchange(ring)


def test_a_ring_begins_at_any_base(bench):
    base = 2 if bench.format is RingFormat.PACKED else 65534
    bench.start(size=4, bases={0: base})
    ring = bench.ring()
    for _ in range(9):
        bench.exchange(ring)
    assert ring.stop() == ring.base


def test_rings_go_on_over_a_new_connection(bench):
    bench.start(size=4)
    ring = bench.ring()
    for _ in range(3):
        bench.exchange(ring)
    bench.reconnect()
    bench.start(again=True)
    assert bench.ring() is ring
    for _ in range(6):
        bench.exchange(ring)


def test_a_call_descriptor_is_changed_under_way(bench):
    bench.start()
    bench.exchange(bench.ring())
    assert bench.control.wait_call(0, than=0) == 1
    assert bench.front_end.set_call(0)
    assert bench.control.call_count(0) == 0
    bench.exchange(bench.ring())
    assert bench.control.wait_call(0, than=0) == 1
    assert bench.front_end.errors(0) == 0


def test_a_hostile_chain_is_told_at_the_error_descriptor(bench):
    bench.start()
    ring = bench.ring()
    ring.post(Request(readable=b"nobody reads this"))
    ring.publish()
    ring.kick()
    assert bench.survives() in (Fate.ERROR, Fate.NEEDS_RESET)
    assert bench.front_end.errors(0) == 1


def test_pages_that_are_written_are_in_the_dirty_log(bench):
    bench.control.open_session()
    log = bench.front_end.dirty_log(offset=4096)
    bench.start(features=(LOG_ALL,))
    posted = bench.ring().post(Request(writable_size=64))
    bench.ring().publish()
    bench.ring().kick()
    bench.ring().wait_used()
    bench.ring().stop()
    assert posted.segments[0].address >> 12 in log.pages()
    log.clear()
    assert log.pages() == set()
    assert not any(log.content()[:4096])


def test_an_inflight_area_is_made_and_given_back(bench):
    bench.start(drive=False)
    area = bench.front_end.get_inflight(1, 64)
    assert area.mmap_size == len(area.data)
    assert bench.front_end.set_inflight(area)
    bench.drive()
    bench.exchange(bench.ring())
    assert any(area.data)
    area.close()
    own = InflightArea.make(4096, 1, 64)
    own.data[0] = 1
    own.close()


def test_one_more_region_is_told_of_and_taken_away(bench):
    bench.start()
    region = bench.memory.add_region(4 << 20)
    assert bench.front_end.add_memory(region)
    buffer = bench.memory.allocate(16, what="a buffer", region=region)
    ring = bench.ring()
    ring.post(segments=[Segment(buffer.address, 16, True)])
    ring.publish()
    ring.kick()
    assert ring.wait_used().length == 16
    assert bench.memory.read(buffer.address, 16) == never_fill(16)
    assert bench.front_end.remove_memory(region)


def test_the_channel_brings_changes_of_configuration_space():
    target = ThreadTarget(BalloonDevice)
    try:
        with Bench(target, traffic("balloon"), SPLIT) as bench:
            bench.start()
            assert bench.front_end.channel.waiting() == []
            bench.host("inflate", pages=16)
            message = bench.front_end.channel.receive(after="a change")
            assert message.request == BackEndRequest.CONFIG_CHANGE_MSG
            assert bench.control.read_config(0, 4) == (16).to_bytes(4, "little")
            assert bench.control.config_generation() is None
    finally:
        target.close()


def test_each_carrier_has_its_own_raw_end(bench):
    with pytest.raises(NotApplicable, match="registers"):
        _ = bench.registers
    registers = RegistersTarget(entropy)
    with entropy_bench(registers, SPLIT) as other:
        with pytest.raises(NotApplicable, match="vhost-user"):
            _ = other.front_end
        with pytest.raises(NotApplicable, match="beginning"):
            other.start(bases={0: 1})
    registers.close()


def test_session_features_are_told_with_the_others(bench):
    assert bench.offers(PROTOCOL_FEATURES)
    assert bench.offers(Feature.VERSION_1)
    assert not bench.offers(Feature.SR_IOV)


def test_no_file_descriptor_is_left():
    gc.collect()
    before = len(open_descriptors())
    target = ThreadTarget(entropy)
    for ring_format in BOTH:
        with entropy_bench(target, ring_format) as bench:
            bench.control.open_session()
            bench.front_end.dirty_log()
            bench.start()
            bench.front_end.get_inflight(1, 64).close()
            bench.memory.add_region(1 << 22)
            bench.exchange(bench.ring())
            bench.reconnect()
            bench.start(again=True)
            bench.survives()
            bench.is_alive()
            bench.front_end.send(FrontEndRequest.GET_INFLIGHT_FD, bytes(12))
    target.close()
    gc.collect()
    assert len(open_descriptors()) == before, open_descriptors()


def test_an_answer_with_file_descriptors_is_closed_with_the_bench():
    gc.collect()
    before = len(open_descriptors())
    ours, theirs = socket.socketpair()
    with theirs, open(os.devnull) as file:
        target = ScriptedTarget(None)
        target.connect = lambda: ours
        with entropy_bench(target, SPLIT) as bench:
            front_end = bench.front_end
            socket.send_fds(theirs, [encode(1, bytes(8), is_reply=True)[:14]], [file.fileno()] * 3)
            socket.send_fds(theirs, [encode(1, bytes(8), is_reply=True)[14:]], [file.fileno()])
            socket.send_fds(theirs, [encode(1, bytes(8), is_reply=True)], [file.fileno()] * 2)
            message = front_end.receive()
            assert len(message.fds) >= 3
            message.close()
            front_end.is_closed()
    assert len(open_descriptors()) == before
