"""Messages cut out of a stream, whatever the pieces it comes in."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vhost_user_setup import assert_open_fds, open_fds

from spec import vhost_user as spec
from spec.vhost_user import BACK_END_REQUESTS, FRONT_END_REQUESTS, FrontEndRequest
from vdev.errors import BackEndViolation, FrontEndViolation
from vdev.vhost_user.framing import Message, MessageDecoder, encode, parse_payload

pytestmark = pytest.mark.usefixtures("no_garbage_of_others")

MESSAGES = st.lists(
    st.tuples(
        st.integers(0, 2**32 - 1),
        st.binary(max_size=300),
        st.booleans(),
        st.booleans(),
    ),
    max_size=6,
)


@given(MESSAGES, st.lists(st.integers(1, 40), min_size=1))
def test_what_was_encoded_comes_out_however_the_stream_is_cut(messages, cuts):
    stream = b"".join(encode(request, body, is_reply=reply, need_reply=need) for request, body, reply, need in messages)
    decoder, found = MessageDecoder(FrontEndViolation), []
    turn = 0
    while stream:
        cut = cuts[turn % len(cuts)]
        turn += 1
        found += decoder.feed(stream[:cut])
        stream = stream[cut:]
    decoder.end()
    assert [(each.request, each.body, each.is_reply, each.needs_reply) for each in found] == messages


@given(st.binary(max_size=200), st.lists(st.integers(1, 40), min_size=1))
def test_any_bytes_are_messages_or_a_named_violation(stream, cuts):
    whole, pieces = MessageDecoder(FrontEndViolation), MessageDecoder(FrontEndViolation)

    def feed(decoder, parts):
        found = []
        try:
            for part in parts:
                found += [each.body for each in decoder.feed(part)]
        except FrontEndViolation as violation:
            return str(violation)
        return found

    expected = feed(whole, [stream])
    parts = []
    for turn in range(len(stream)):
        cut = cuts[turn % len(cuts)]
        parts.append(stream[:cut])
        stream = stream[cut:]
    assert feed(pieces, parts) == expected


@pytest.mark.parametrize(
    ("header", "what"),
    [
        ({"flags": 0}, "version 0, not 1"),
        ({"flags": 2}, "version 2, not 1"),
        ({"flags": 0x11}, "unknown flags 0x10"),
        ({"size": spec.MAX_PAYLOAD_SIZE + 1}, "more than 4096"),
        ({"size": 0xFFFF_FFFF}, "more than 4096"),
    ],
)
def test_a_header_that_no_message_can_have_is_named(header, what):
    decoder = MessageDecoder(FrontEndViolation, FrontEndRequest)
    with pytest.raises(FrontEndViolation, match=what) as raised:
        decoder.feed(spec.HEADER.build({"request": 1, "flags": 1, "size": 0} | header))
    assert raised.value.request == "GET_FEATURES"
    assert "front end's fault: GET_FEATURES: " in str(raised.value)
    assert "[vhost-user, Message Specification / Header]" in str(raised.value)


def test_the_other_end_s_fault_has_the_other_name():
    with pytest.raises(BackEndViolation, match="back end's fault"):
        MessageDecoder(BackEndViolation).feed(bytes(12))


def test_a_stream_that_ends_inside_a_message_is_named():
    decoder = MessageDecoder(FrontEndViolation)
    decoder.feed(encode(5, b"12345678")[:15])
    with pytest.raises(FrontEndViolation, match="5 bytes before a message did"):
        decoder.end()


def test_descriptors_belong_to_the_message_in_which_they_came():
    ends = [os.dup(0) for _ in range(3)]
    decoder = MessageDecoder(FrontEndViolation)
    first, second = encode(1, b"abc"), encode(2)
    assert decoder.wanted_size == 12
    decoder.feed(first[:12], ends[:1])
    assert decoder.wanted_size == 3
    [message] = decoder.feed(first[12:], ends[1:2])
    assert message.fds == ends[:2]
    [other] = decoder.feed(second, ends[2:])
    assert other.fds == ends[2:]
    message.close()
    other.close()
    other.close()
    for fd in ends:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_descriptors_of_a_message_that_never_came_are_closed():
    before = open_fds()
    decoder = MessageDecoder(FrontEndViolation)
    decoder.feed(encode(1)[:5], [os.dup(0)])
    with pytest.raises(FrontEndViolation, match="more than 8 file descriptors"):
        decoder.feed(encode(1)[5:7], [os.dup(0) for _ in range(8)])
    decoder.close()
    assert_open_fds(before)


@pytest.mark.parametrize("shapes", [FRONT_END_REQUESTS, BACK_END_REQUESTS])
def test_every_payload_is_neither_longer_nor_shorter_than_it_says(shapes):
    for request, shape in shapes.items():
        if shape.payload is None:
            body = b""
        elif shape.payload is spec.MEMORY_TABLE:
            body = spec.MEMORY_TABLE.build({"region_count": 0, "regions": []})
        elif shape.payload is spec.CONFIG:
            body = spec.CONFIG.build({"offset": 0, "size": 4, "flags": 0, "payload": b"1234"})
        else:
            body = bytes(shape.payload.sizeof())
        fds = [0] * shape.fd_counts.start
        parse_payload(Message(request, 1, body, fds), shape, request.name, FrontEndViolation)
        with pytest.raises(FrontEndViolation, match=r"too long|where there is none"):
            parse_payload(Message(request, 1, body + b"x", fds), shape, request.name, FrontEndViolation)
        too_many = [0] * shape.fd_counts.stop
        with pytest.raises(FrontEndViolation, match="file descriptors came along"):
            parse_payload(Message(request, 1, body, too_many), shape, request.name, FrontEndViolation)
        if body:
            with pytest.raises(FrontEndViolation, match="too short"):
                parse_payload(Message(request, 1, body[:-1], fds), shape, request.name, FrontEndViolation)


def test_a_table_of_more_regions_than_there_are_bytes_costs_no_memory():
    body = spec.MEMORY_TABLE.build({"region_count": 0, "regions": []})
    body = b"\xff\xff\xff\xff" + body[4:]
    with pytest.raises(FrontEndViolation, match="too short"):
        parse_payload(
            Message(FrontEndRequest.SET_MEM_TABLE, 1, body),
            FRONT_END_REQUESTS[FrontEndRequest.SET_MEM_TABLE],
            "SET_MEM_TABLE",
            FrontEndViolation,
        )


def test_a_padded_c_struct_is_taken():
    body = spec.INFLIGHT.build({"mmap_size": 1, "mmap_offset": 2, "queue_count": 3, "queue_size": 4}) + bytes(4)
    shape = FRONT_END_REQUESTS[FrontEndRequest.GET_INFLIGHT_FD]
    payload = parse_payload(Message(31, 1, body), shape, "GET_INFLIGHT_FD", FrontEndViolation)
    assert payload.queue_size == 4


def test_every_request_number_has_one_name():
    assert [request.value for request in FrontEndRequest] == list(range(1, 45))
    assert spec.protocol_feature_mask(*spec.ProtocolFeature) == (1 << 23) - 1
