"""The session's table: what each message does where it is legal, and what it gets where it is not."""

import os
import socket

import pytest
from construct import Int32ul, Struct
from vhost_user_setup import MIB, USER_BASE, R, assert_open_fds, open_fds, state, u64

from spec import vhost_user as spec
from spec.device import DeviceStatus, Feature, feature_mask
from spec.vhost_user import FRONT_END_REQUESTS, FrontEndRequest, ProtocolFeature
from vdev.device import RING_FEATURES, Device
from vdev.errors import FrontEndViolation
from vdev.memory import GuestMemory, MemfdBacking, Region
from vdev.vhost_user.framing import Message, encode
from vdev.vhost_user.phases import RULES, Phase, Refusal
from vdev.vhost_user.session import Session

pytestmark = pytest.mark.usefixtures("no_garbage_of_others")

P = ProtocolFeature
VERSION_1 = feature_mask(Feature.VERSION_1)
NEED_REPLY = int(spec.VERSION | spec.Flag.NEED_REPLY)


class Echo(Device):
    """Gives buffers back as they are."""

    device_id = 63
    name = "echo"
    queue_sizes = (64, 64)
    config_layout = "config" / Struct("size" / Int32ul, "colour" / Int32ul)
    writable_config = frozenset({"colour"})

    def handle_queue(self, number):
        for chain in self.chains(number):
            self.queues[number].push(chain.head, 0)


class Talk:
    """A session without a socket."""

    def __init__(self, device=None):
        self.device = device or Echo(GuestMemory.absent())
        self.session = Session(self.device)
        self.violations = []
        self.session.on_violation = self.violations.append
        self.memory = GuestMemory([Region(0, MemfdBacking(MIB))])

    def tell(self, request, body=b"", fds=(), *, flags=NEED_REPLY):
        """Send a message; return the answer, None if there is none."""
        return self.session.handle(Message(request, flags, body, [os.dup(fd) for fd in fds]))

    def number(self, request, body=b"", fds=()):
        return spec.U64.parse(self.tell(request, body, fds).body).value

    def agree(self, *, protocol_features=None, features=VERSION_1):
        wanted = self.number(R.GET_PROTOCOL_FEATURES) if protocol_features is None else protocol_features
        self.tell(R.SET_PROTOCOL_FEATURES, u64(wanted))
        assert self.number(R.SET_FEATURES, u64(features | 1 << spec.PROTOCOL_FEATURES)) == 0

    @property
    def table(self):
        region = {"guest_address": 0, "size": MIB, "user_address": USER_BASE, "mmap_offset": 0}
        return spec.MEMORY_TABLE.build({"region_count": 1, "regions": [region]})

    def share(self):
        assert self.number(R.SET_MEM_TABLE, self.table, [self.memory.regions[0].backing.fd]) == 0

    @staticmethod
    def address(index=0, at=0x1000, *, flags=0, log=0):
        base = USER_BASE + at
        return spec.VRING_ADDRESS.build(
            {
                "index": index,
                "flags": flags,
                "descriptor": base,
                "available": base + 0x1000,
                "used": base + 0x2000,
                "log": log,
            }
        )

    def start(self, index=0, at=0x1000, *, enable=True):
        assert self.number(R.SET_VRING_NUM, state(index, 64)) == 0
        assert self.number(R.SET_VRING_BASE, state(index, 0)) == 0
        assert self.number(R.SET_VRING_ADDR, self.address(index, at)) == 0
        kick = os.eventfd(0)
        assert self.number(R.SET_VRING_KICK, u64(index), [kick]) == 0
        os.close(kick)
        if enable:
            assert self.number(R.SET_VRING_ENABLE, state(index, 1)) == 0

    def run(self):
        self.agree()
        self.share()
        self.start()

    def close(self):
        self.session.close()
        self.memory.regions[0].backing.close()
        # A mapping has a descriptor of its own as long as somebody looks at it.
        self.memory = self.session = None


@pytest.fixture
def talk():
    before = open_fds()
    talking = Talk()
    yield talking
    talking.close()
    assert_open_fds(before)


def legal(talk, request):
    """Return a well-formed message of this kind, as body and descriptors that are closed afterwards."""
    shape = FRONT_END_REQUESTS[request]
    sized = shape.payload not in (None, spec.CONFIG, spec.MEMORY_TABLE)
    body = bytes(shape.payload.sizeof()) if sized else b""
    match request:
        case R.SET_FEATURES:
            body = u64(VERSION_1 | 1 << spec.PROTOCOL_FEATURES)
        case R.SET_PROTOCOL_FEATURES:
            body = u64(talk.session.offered_protocol_features)
        case R.SET_MEM_TABLE:
            body = talk.table
        case R.ADD_MEM_REG | R.REM_MEM_REG:
            region = {"guest_address": 4 * MIB, "size": MIB, "user_address": 4 * MIB, "mmap_offset": 0}
            body = spec.SINGLE_REGION.build({"region": region})
        case R.GET_CONFIG | R.SET_CONFIG:
            body = spec.CONFIG.build({"offset": 0, "size": 8, "flags": 0, "payload": bytes(8)})
        case R.GET_INFLIGHT_FD | R.SET_INFLIGHT_FD:
            body = spec.INFLIGHT.build({"mmap_size": 4096, "mmap_offset": 0, "queue_count": 1, "queue_size": 64})
        case R.SET_VRING_NUM:
            body = state(1, 64)
        case R.SET_VRING_ADDR:
            body = talk.address(1, 0x8000)
        case R.SET_VRING_BASE | R.SET_VRING_ENABLE | R.GET_VRING_BASE:
            body = state(1, 0)
        case R.SET_LOG_BASE:
            body = spec.LOG.build({"size": 4096, "offset": 0})
        case R.SET_VRING_KICK | R.SET_VRING_CALL | R.SET_VRING_ERR:
            body = u64(1)
    return body


def descriptors(talk, request):
    match request:
        case R.SET_MEM_TABLE | R.ADD_MEM_REG | R.SET_INFLIGHT_FD | R.SET_LOG_BASE:
            return [os.dup(talk.memory.regions[0].backing.fd)]
        case R.SET_VRING_KICK | R.SET_VRING_CALL | R.SET_VRING_ERR:
            return [os.eventfd(0)]
        case R.SET_BACKEND_REQ_FD:
            ours, theirs = socket.socketpair()
            ours.close()
            return [theirs.detach()]
        case R.SET_DEVICE_STATE_FD:
            ours, theirs = os.pipe()
            os.close(ours)
            return [theirs]
    return []


def bring_to(talk, phase):
    if phase is not Phase.CONNECTED:
        talk.agree()
        talk.share()
    else:
        talk.tell(R.SET_PROTOCOL_FEATURES, u64(talk.session.offered_protocol_features))
        talk.share()
    if phase is Phase.RUNNING:
        talk.start()
    assert talk.session.phase is phase


NEEDS_MORE = {R.REM_MEM_REG, R.CHECK_DEVICE_STATE}
"""Legal by the table, and refused for what went before."""


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("request_", RULES, ids=lambda request: request.name)
def test_a_message_is_taken_in_the_phases_of_the_table_and_refused_in_the_others(talk, request_, phase):
    bring_to(talk, phase)
    rule = RULES[request_]
    body, fds = legal(talk, request_), descriptors(talk, request_)
    message = Message(request_, NEED_REPLY, body, fds)
    if phase in rule.phases and request_ not in NEEDS_MORE:
        answer = talk.session.handle(message)
        assert talk.violations == []
        assert answer.request == request_
        for fd in answer.fds:
            os.close(fd)
        if FRONT_END_REQUESTS[request_].reply is None:
            assert answer.body == u64(0)
        return
    if rule.refusal is Refusal.CLOSED:
        with pytest.raises(FrontEndViolation):
            talk.session.handle(message)
    else:
        answer = talk.session.handle(message)
        assert answer.request == request_
        assert spec.U64.parse(answer.body).value & 0xFF != 0
    [violation] = talk.violations
    assert violation.request == request_.name
    assert violation.state == phase.value


@pytest.mark.parametrize("request_", RULES, ids=lambda request: request.name)
def test_a_request_of_a_protocol_feature_needs_that_feature(talk, request_):
    needs = FRONT_END_REQUESTS[request_].needs
    if needs is None or request_ is R.GET_QUEUE_NUM:
        return
    talk.tell(R.SET_PROTOCOL_FEATURES, u64(1 << P.REPLY_ACK))
    message = Message(request_, NEED_REPLY, legal(talk, request_), descriptors(talk, request_))
    if RULES[request_].refusal is Refusal.CLOSED:
        with pytest.raises(FrontEndViolation, match=f"needs {needs.name}, which is not agreed"):
            talk.session.handle(message)
    else:
        assert talk.session.handle(message).body == u64(1)
    assert f"needs {needs.name}, which is not agreed" in str(talk.violations[0])


@pytest.mark.parametrize(
    "request_", [each for each in FrontEndRequest if each not in RULES] + [0, 45, 0xFFFF_FFFF], ids=str
)
def test_what_is_not_spoken_is_refused_or_ends_the_connection(talk, request_):
    talk.agree()
    assert talk.tell(request_).body == u64(1)
    with pytest.raises(FrontEndViolation, match="not spoken here"):
        talk.tell(request_, flags=spec.VERSION)


def test_without_reply_ack_a_refusal_ends_the_connection(talk):
    with pytest.raises(FrontEndViolation, match="no region"):
        talk.tell(R.SET_VRING_ADDR, talk.address())


def test_no_reply_is_sent_before_reply_ack_is_agreed(talk):
    assert talk.tell(R.SET_OWNER) is None


def test_a_reply_to_nothing_ends_the_connection(talk):
    talk.agree()
    with pytest.raises(FrontEndViolation, match="nothing was asked"):
        talk.tell(R.GET_FEATURES, flags=NEED_REPLY | spec.Flag.REPLY)


def test_session_bits_are_offered_and_the_device_does_not_see_them(talk):
    offered = talk.number(R.GET_FEATURES)
    assert offered == RING_FEATURES | 1 << spec.LOG_ALL | 1 << spec.PROTOCOL_FEATURES
    talk.agree(features=VERSION_1 | 1 << spec.LOG_ALL)
    assert talk.device.features == VERSION_1
    assert talk.device.status == DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER | DeviceStatus.FEATURES_OK


def test_access_platform_is_not_offered():
    device = Echo(GuestMemory.absent())
    device.offered_features |= feature_mask(Feature.ACCESS_PLATFORM)
    talk = Talk(device)
    assert not talk.number(R.GET_FEATURES) >> Feature.ACCESS_PLATFORM & 1
    talk.close()


@pytest.mark.parametrize(
    ("features", "what"),
    [(VERSION_1 | 1 << 50, "were not offered"), (0, "VERSION_1 was not accepted"), (1 << 33, "were not offered")],
)
def test_features_that_do_not_go_are_refused_and_nothing_has_changed(talk, features, what):
    talk.agree()
    assert talk.number(R.SET_FEATURES, u64(features)) == 1
    assert what in str(talk.violations[-1])
    assert talk.device.features == VERSION_1


def test_the_driver_is_up_when_the_first_ring_is_started_and_enabled(talk):
    talk.agree()
    talk.share()
    talk.start(enable=False)
    assert not talk.device.running
    talk.number(R.SET_VRING_ENABLE, state(0, 1))
    assert talk.device.running
    assert list(talk.device.queues) == [0]


def test_without_protocol_features_rings_start_enabled(talk):
    talk.tell(R.SET_FEATURES, u64(VERSION_1))
    talk.tell(R.SET_MEM_TABLE, talk.table, [talk.memory.regions[0].backing.fd])
    talk.tell(R.SET_VRING_NUM, state(0, 64))
    talk.tell(R.SET_VRING_ADDR, talk.address())
    talk.tell(R.SET_VRING_KICK, u64(spec.NO_FD))
    assert talk.device.running
    assert talk.session.rings.all[0].is_polled
    with pytest.raises(FrontEndViolation, match="protocol features were not negotiated"):
        talk.tell(R.SET_VRING_ENABLE, state(0, 1))


def test_a_second_set_features_toggles_the_log_and_resets_nothing(talk):
    talk.run()
    queue = talk.device.queues[0]
    bits = VERSION_1 | 1 << spec.PROTOCOL_FEATURES
    assert talk.number(R.SET_FEATURES, u64(bits | 1 << spec.LOG_ALL)) == 0
    assert talk.number(R.SET_FEATURES, u64(bits)) == 0
    assert talk.device.queues[0] is queue
    assert talk.number(R.SET_FEATURES, u64(bits | 1 << Feature.EVENT_IDX)) == 1
    assert "only LOG_ALL may change" in str(talk.violations[-1])


def test_a_started_ring_cannot_be_moved_or_resized(talk):
    talk.run()
    assert talk.number(R.SET_VRING_NUM, state(0, 32)) == 1
    assert talk.number(R.SET_VRING_BASE, state(0, 1)) == 1
    assert talk.number(R.SET_VRING_ADDR, talk.address(0, 0x9000)) == 1
    assert talk.number(R.SET_VRING_ADDR, talk.address(0)) == 0
    assert [str(each.queue) for each in talk.violations] == ["0", "0", "0"]
    assert talk.device.running


def test_disabling_a_ring_leaves_it_where_it_stands(talk):
    talk.run()
    talk.number(R.SET_VRING_ENABLE, state(0, 0))
    assert talk.device.queues == {}
    assert talk.session.phase is Phase.RUNNING
    talk.number(R.SET_VRING_ENABLE, state(0, 1))
    assert list(talk.device.queues) == [0]


def test_get_vring_base_stops_the_ring_whatever_it_was(talk):
    talk.run()
    base = spec.VRING_STATE.parse(talk.tell(R.GET_VRING_BASE, state(0, 0)).body)
    assert (base.index, base.num) == (0, 0)
    assert talk.session.phase is Phase.READY
    assert talk.device.queues == {}
    talk.number(R.SET_VRING_BASE, state(1, 77))
    assert spec.VRING_STATE.parse(talk.tell(R.GET_VRING_BASE, state(1, 0)).body).num == 77


def test_reset_owner_disables_all_rings(talk):
    talk.run()
    assert talk.number(R.RESET_OWNER) == 0
    assert talk.device.queues == {}
    assert talk.session.rings.all[0].state == "started, disabled"


def test_reset_device_keeps_the_front_end(talk):
    talk.run()
    assert talk.number(R.RESET_DEVICE) == 0
    assert talk.device.status == 0
    assert talk.session.phase is Phase.CONNECTED
    assert talk.number(R.SET_FEATURES, u64(VERSION_1 | 1 << spec.PROTOCOL_FEATURES)) == 0
    talk.start()
    assert talk.device.running


def test_queue_and_slot_counts_are_told(talk):
    assert talk.number(R.GET_QUEUE_NUM) == 2  # before anything was agreed: the offer suffices
    talk.agree()
    assert talk.number(R.GET_MAX_MEM_SLOTS) == 32


# Status


def test_features_ok_is_there_once_the_device_agreed(talk):
    talk.tell(R.SET_PROTOCOL_FEATURES, u64(talk.session.offered_protocol_features))
    talk.number(R.SET_STATUS, u64(11))
    assert talk.number(R.GET_STATUS) == 3
    talk.agree()
    talk.number(R.SET_STATUS, u64(8))
    assert talk.number(R.GET_STATUS) == 8
    assert talk.number(R.SET_STATUS, u64(0x100)) == 1


def test_status_0_stops_the_rings(talk):
    talk.run()
    talk.number(R.SET_STATUS, u64(0))
    assert talk.device.queues == {}
    assert talk.number(R.GET_STATUS) == 0


# Configuration space


def config(offset, size, *, flags=0, payload=None):
    payload = bytes(size) if payload is None else payload
    return spec.CONFIG.build({"offset": offset, "size": size, "flags": flags, "payload": payload})


def test_config_is_read_and_behind_its_end_all_is_0(talk):
    talk.agree()
    talk.device.store_config(size=0x11223344)
    answer = spec.CONFIG.parse(talk.tell(R.GET_CONFIG, config(2, 12)).body)
    assert (answer.offset, answer.size, answer.payload) == (2, 12, b"\x22\x11" + bytes(10))


@pytest.mark.parametrize("body", [config(8, 4), config(0, 0), config(0, 257), config(0, 4, flags=2)])
def test_a_range_that_there_is_not_is_answered_without_content(talk, body):
    talk.agree()
    assert spec.CONFIG.parse(talk.tell(R.GET_CONFIG, body).body).size == 0
    assert talk.number(R.SET_CONFIG, body) == 1


def test_the_driver_s_field_is_stored_and_an_old_copy_of_the_device_s_is_not(talk):
    talk.run()
    talk.device.store_config(size=7)
    assert talk.number(R.SET_CONFIG, config(0, 8, payload=b"\1\0\0\0\2\0\0\0")) == 0
    assert talk.device.config.tolist() == (7, 2)
    assert talk.number(R.SET_CONFIG, config(0, 4, payload=b"\1\0\0\0")) == 1
    assert "size is not the driver's to write" in str(talk.violations[-1])


def test_a_move_stores_every_field(talk):
    talk.agree()
    assert talk.number(R.SET_CONFIG, config(0, 8, flags=1, payload=b"\1\0\0\0\2\0\0\0")) == 0
    assert talk.device.config.tolist() == (1, 2)


def test_what_the_driver_wrote_before_its_features_came_is_stored_with_them(talk):
    talk.tell(R.SET_PROTOCOL_FEATURES, u64(talk.session.offered_protocol_features))
    assert talk.number(R.SET_CONFIG, config(0, 8, payload=b"\0\0\0\0\2\0\0\0")) == 0
    talk.run()
    assert talk.device.config.tolist() == (0, 2)


# Memory


def single(guest, size=MIB, user=None, offset=0):
    region = {"guest_address": guest, "size": size, "user_address": user or USER_BASE + guest, "mmap_offset": offset}
    return spec.SINGLE_REGION.build({"region": region})


def test_regions_come_and_go_one_by_one_while_a_ring_is_served(talk):
    talk.run()
    fd = talk.memory.regions[0].backing.fd
    assert talk.number(R.ADD_MEM_REG, single(4 * MIB), [fd]) == 0
    assert talk.device.memory.page_count == 512
    assert talk.number(R.REM_MEM_REG, single(4 * MIB, offset=99), [fd]) == 0
    assert talk.device.memory.page_count == 256
    assert talk.device.running
    assert not talk.device.status & DeviceStatus.DEVICE_NEEDS_RESET


def test_a_region_under_a_ring_that_goes_is_an_error_of_the_ring(talk):
    talk.run()
    err = os.eventfd(0)
    talk.number(R.SET_VRING_ERR, u64(0), [err])
    assert talk.number(R.REM_MEM_REG, single(0)) == 0
    assert os.eventfd_read(err) == 1
    os.close(err)
    assert talk.number(R.GET_STATUS) == DeviceStatus.DEVICE_NEEDS_RESET
    assert "not wholly in RAM" in talk.session.rings.all[0].last_error


def test_more_slots_than_were_told_are_refused(talk):
    talk.agree()
    fd = talk.memory.regions[0].backing.fd
    for slot in range(32):
        assert talk.number(R.ADD_MEM_REG, single(slot * MIB), [fd]) == 0
    assert talk.number(R.ADD_MEM_REG, single(32 * MIB), [fd]) == 1


def test_messages_are_encoded_as_they_are_parsed():
    assert encode(R.SET_VRING_NUM, state(1, 2))[:12] == spec.HEADER.build({"request": 8, "flags": 1, "size": 8})
