"""Checks of configuration space and of the status as vhost-user messages have them."""

from spec.device import DeviceId, DeviceStatus
from spec.vhost_user import FrontEndRequest, ProtocolFeature
from vdev.check.bench.bench import Bench
from vdev.check.device.configuration import READ_ONLY, layout, size
from vdev.check.device.device_status import words
from vdev.check.device.left_alone import LeftAlone, expect_served, post_plain
from vdev.check.device.vhost_steps import VHOST, is_open_after, settle
from vdev.check.evidence import Shown
from vdev.check.registry import BOTH, check

_F = ProtocolFeature
_S = "vhost-user.back-end."
_CONFIG = [_F.CONFIG]
_STATUS = [_F.STATUS]
_RESET = [_F.RESET_DEVICE]
_PART = 4
"""Bytes."""


@check("config.reply-is-as-large-as-asked", covers=[_S + "config.1"], carriers=VHOST, protocol_features=_CONFIG)
def reply_is_as_large_as_asked(bench: Bench) -> None:
    """GET_CONFIG of any part that there is has as many bytes as were asked for."""
    bench.control.begin()
    end = size(bench)
    whole = bench.front_end.get_config(0, end)
    for count in sorted({1, 2, 4, 8, end // 2, end} - {0}):
        if count > end:
            continue
        data = bench.front_end.get_config(0, count)
        bench.expect(
            data == (whole or b"")[:count],
            _S + "config.1",
            expected=f"the first {count} bytes of configuration space",
            observed=f"{len(data or b'')} bytes",
            shown=[Shown("configuration space", whole or b""), Shown("answer", data or b"")],
        )


@check("config.reply-begins-where-asked", covers=[_S + "config.6"], carriers=VHOST, protocol_features=_CONFIG)
def reply_begins_where_asked(bench: Bench) -> None:
    """GET_CONFIG of a part that does not begin at 0 has that part's bytes."""
    bench.control.begin()
    end = size(bench)
    whole = bench.front_end.get_config(0, end) or b""
    if end < _PART or len(set(whole)) == 1:
        bench.not_applicable("the parts of configuration space cannot be told apart")
    for offset in range(_PART, end - _PART + 1, _PART):
        data = bench.front_end.get_config(offset, _PART)
        bench.expect(
            data == whole[offset : offset + _PART],
            _S + "config.6",
            expected=f"bytes {offset} to {offset + _PART - 1} of configuration space",
            observed=f"other bytes for an offset of {offset}",
            shown=[Shown("configuration space", whole), Shown("answer", data or b"")],
        )


@check(
    "config.nothing-there-is-empty",
    covers=[_S + "config.2", _S + "error.1", "hostile.device.alive"],
    carriers=VHOST,
    protocol_features=_CONFIG,
    hostile=True,
)
def nothing_there_is_empty(bench: Bench) -> None:
    """GET_CONFIG far behind the end of configuration space is answered without content."""
    bench.control.begin()
    data = bench.front_end.get_config(0x10000, 4)
    bench.expect(
        data is None,
        _S + "config.2",
        expected="an answer without content for 4 bytes at 0x10000",
        observed=f"{len(data or b'')} bytes",
        shown=[Shown("answer", data or b"")],
    )


@check(
    "config.read-only-is-not-taken",
    covers=[_S + "config.3"],
    carriers=VHOST,
    types=["block", "balloon"],
    protocol_features=_CONFIG,
)
def read_only_is_not_taken(bench: Bench) -> None:
    """SET_CONFIG leaves a field that the driver may only read as it is."""
    known = layout(bench)
    assert known is not None
    assert known.fields is not None
    bench.start()
    end = size(bench)
    before = bench.front_end.get_config(0, end) or b""
    for name in READ_ONLY[DeviceId(bench.traffic.device_id)]:
        inner, offset = known.fields[name][:2]
        wrong = bytearray(before)
        wrong[offset : offset + inner.itemsize] = bytes(
            byte ^ 0xFF for byte in before[offset : offset + inner.itemsize]
        )
        if bench.front_end.set_config(0, bytes(wrong)) is None:
            return
    if not is_open_after(bench):
        return
    after = bench.front_end.get_config(0, end) or b""
    bench.expect(
        before == after,
        _S + "config.3",
        expected="the fields as they were",
        observed="other values",
        shown=[Shown("before", before), Shown("after", after)],
    )


@check(
    "config.unknown-flags-are-not-taken",
    covers=[_S + "config.4", _S + "error.1", "hostile.device.alive"],
    carriers=VHOST,
    protocol_features=[_F.CONFIG, _F.REPLY_ACK],
    hostile=True,
)
def unknown_flags_are_not_taken(bench: Bench) -> None:
    """SET_CONFIG with flags that nobody defined is refused."""
    bench.start(drive=False)
    data = bench.front_end.get_config(0, size(bench)) or b""
    result = bench.front_end.set_config(0, data, flags=0x70)
    bench.expect(
        result is not True or not is_open_after(bench),
        _S + "config.4",
        expected="a refusal, or a closed connection, for the flags 0x70",
        observed="the acknowledgement 0",
    )


# Status and reset


@check("status.is-as-it-was-set", covers=[_S + "status.1"], carriers=VHOST, protocol_features=_STATUS)
def is_as_it_was_set(bench: Bench) -> None:
    """GET_STATUS answers with the bits that SET_STATUS set, step by step."""
    wanted = 0
    for bit in (DeviceStatus.ACKNOWLEDGE, DeviceStatus.DRIVER):
        wanted |= bit
        bench.control.set_status(wanted)
        status = bench.front_end.get_status()
        bench.expect(status == wanted, _S + "status.1", expected=words(wanted), observed=words(status))
    bench.start()
    status = bench.front_end.get_status()
    wanted |= DeviceStatus.FEATURES_OK | DeviceStatus.DRIVER_OK
    bench.expect(status == wanted, _S + "status.1", expected=words(wanted), observed=words(status))


@check("status.zero-resets", covers=[_S + "status.2"], formats=BOTH, carriers=VHOST, protocol_features=_STATUS)
def zero_resets(bench: Bench) -> None:
    """SET_STATUS with 0 is read back as 0, and a driver can bring the device up again."""
    for is_driven in (False, True):
        bench.start(drive=is_driven)
        for ring in bench.rings.values():
            if is_driven:
                ring.stop()
        bench.front_end.set_status(0)
        status = bench.front_end.get_status()
        bench.expect(status == 0, _S + "status.2", expected=words(0), observed=words(status))
    bench.start()
    expect_served(bench, bench.ring(), _S + "status.2", "after the status was 0")


@check(
    "reset-device.rings-are-left-alone",
    covers=[_S + "reset-device.1"],
    formats=BOTH,
    carriers=VHOST,
    protocol_features=_RESET,
)
def rings_are_left_alone(bench: Bench) -> None:
    """After RESET_DEVICE no buffer of the rings of before is used, and nobody is called."""
    bench.start()
    ring = bench.ring()
    bench.exchange(ring)
    bench.front_end.tell(FrontEndRequest.RESET_DEVICE)
    still = LeftAlone(bench, ring, post_plain(bench, ring))
    settle(bench, ring)
    still.expect(_S + "reset-device.1", "after RESET_DEVICE")


@check(
    "reset-device.can-be-brought-up-again",
    covers=[_S + "reset-device.2"],
    formats=BOTH,
    carriers=VHOST,
    protocol_features=_RESET,
)
def can_be_brought_up_again(bench: Bench) -> None:
    """After RESET_DEVICE features are agreed anew in the same session, and requests are carried out."""
    for _ in range(2):
        bench.start()
        expect_served(bench, bench.ring(), _S + "reset-device.2", "of a device that was brought up")
        for number in bench.rings:
            bench.rings[number].stop()
        result = bench.front_end.acknowledged(FrontEndRequest.RESET_DEVICE)
        bench.expect(
            result is True,
            _S + "reset-device.2",
            expected="RESET_DEVICE obeyed",
            observed="it was refused" if result is False else "the connection was closed",
        )
