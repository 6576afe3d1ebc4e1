"""Checks of a back end that is sent what no front end should send: it may refuse, or close, and serves the next one."""

import contextlib
import os

from spec.layout import struct_of
from spec.vhost_user import (
    DEVICE_STATE_TRANSFER,
    HEADER,
    LOG,
    MEMORY_TABLE,
    NO_FD,
    SINGLE_REGION,
    FrontEndRequest,
    ProtocolFeature,
)
from vdev.check.bench.bench import Bench
from vdev.check.device.vhost_hostile_steps import Step, hostile, send_each, u64
from vdev.check.device.vhost_steps import VHOST, is_open_after, watched_fd
from vdev.check.registry import check
from vdev.check.target import ConnectionClosed

_R = FrontEndRequest
_F = ProtocolFeature
_header = struct_of(HEADER)
_PAGE = 4096


# Headers and streams


@hostile("cut-message")
def cut_message(bench: Bench) -> None:
    """A connection that ends inside a header, or inside a payload, ends a session and no more."""
    whole = _header.pack(_R.SET_FEATURES, 1, 8) + bytes(8)
    for count in (1, 11, 12, 15):
        bench.control.begin()
        bench.front_end.send_bytes(whole[:count])
        bench.reconnect()


@hostile("wrong-header")
def wrong_header(bench: Bench) -> None:
    """Another version, the reply flag, or flags that nobody defined."""
    for flags in (0, 2, 3, 0x5, 0xFFFF_FFF1, 0x8000_0001):
        bench.control.begin()
        with contextlib.suppress(ConnectionClosed):
            bench.front_end.send(_R.GET_FEATURES, flags=flags)
            bench.front_end.send(_R.SET_FEATURES, u64(0), flags=flags)
        bench.reconnect()


@hostile("huge-payload")
def huge_payload(bench: Bench) -> None:
    """A payload of gigabytes is announced, and a little of it comes."""
    for size in (0xFFFF_FFFF, 0x7FFF_FFFF, 1 << 20):
        bench.control.begin()
        with contextlib.suppress(ConnectionClosed):
            bench.front_end.send_bytes(_header.pack(_R.SET_MEM_TABLE, 1, size) + bytes(4096))
        bench.reconnect()


_PAYLOADS = (
    _R.SET_FEATURES,
    _R.SET_MEM_TABLE,
    _R.SET_VRING_NUM,
    _R.SET_VRING_ADDR,
    _R.SET_VRING_BASE,
    _R.SET_VRING_ENABLE,
    _R.GET_CONFIG,
    _R.SET_CONFIG,
    _R.SET_LOG_BASE,
    _R.ADD_MEM_REG,
    _R.REM_MEM_REG,
    _R.SET_STATUS,
    _R.GET_INFLIGHT_FD,
)


@hostile("payload-of-another-size")
def payload_of_another_size(bench: Bench) -> None:
    """Requests with no payload, with one byte, and with far too many."""
    steps = [(request, bytes(size), ()) for request in _PAYLOADS for size in (0, 1, 4000)]
    steps += [(_R.GET_FEATURES, bytes(100), ()), (_R.SET_OWNER, bytes(1), ())]
    send_each(bench, steps, lambda: bench.control.begin())


@hostile("file-descriptors")
def file_descriptors(bench: Bench) -> None:
    """File descriptors where none belong, none where one does, too many, and such that cannot be what they should."""
    fd = os.memfd_create("vdev-check", os.MFD_CLOEXEC)
    try:
        steps: list[Step] = [
            (_R.GET_FEATURES, b"", [fd] * 8),
            (_R.SET_OWNER, b"", [fd] * 100),
            (_R.SET_MEM_TABLE, _table(bench), ()),
            (_R.SET_MEM_TABLE, _table(bench), [fd] * 7),
            (_R.SET_LOG_BASE, LOG.build({"size": 4096, "offset": 0}), ()),
            (_R.SET_BACKEND_REQ_FD, b"", ()),
            (_R.SET_BACKEND_REQ_FD, b"", [fd]),
            (_R.SET_VRING_KICK, u64(0), ()),
            (_R.SET_VRING_KICK, u64(NO_FD), [fd]),
            (_R.SET_VRING_KICK, u64(0), [fd]),
            (_R.SET_VRING_CALL, u64(0), [fd]),
            (_R.SET_VRING_CALL, u64(0), [fd, fd]),
            (_R.SET_VRING_ERR, u64(0), ()),
            (_R.SET_INFLIGHT_FD, bytes(24), ()),
            (_R.SET_DEVICE_STATE_FD, DEVICE_STATE_TRANSFER.build({"direction": 0, "phase": 0}), [fd]),
        ]
        send_each(bench, steps, lambda: bench.start(drive=False))
    finally:
        os.close(fd)


@check(
    "vhost-hostile.refused-descriptors-are-closed",
    covers=["vhost-user.back-end.error.4", "vhost-user.back-end.error.1", "hostile.device.alive"],
    carriers=VHOST,
    hostile=True,
)
def refused_descriptors_are_closed(bench: Bench) -> None:
    """A file descriptor that comes where none belongs is not open any more when the session has ended."""
    bench.control.begin()
    with watched_fd() as watched:
        with contextlib.suppress(ConnectionClosed):
            bench.front_end.send(_R.SET_OWNER, fds=[watched.fd])
            is_open_after(bench)
        bench.reconnect()
        bench.expect(
            watched.is_dropped(bench.target.patience),
            "vhost-user.back-end.error.4",
            expected="the file descriptor closed by the end of the session",
            observed="it is still open",
        )


# Memory


def _table(bench: Bench, **changes: int) -> bytes:
    usual = bench.memory.regions[0]
    region = {
        "guest_address": usual.guest_address,
        "size": usual.size,
        "user_address": usual.user_address,
        "mmap_offset": usual.file_offset,
    }
    body: bytes = MEMORY_TABLE.build({"region_count": 1, "regions": [{**region, **changes}]})
    return body


@hostile("memory-regions")
def memory_regions(bench: Bench) -> None:
    """Regions of no size, past the end of their file or of all addresses, over each other, and far too many."""
    fd = bench.memory.regions[0].fd
    top = (1 << 64) - _PAGE
    twice: bytes = _table(bench)[8:] * 2
    steps: list[Step] = [
        (_R.SET_MEM_TABLE, _table(bench, size=0), [fd]),
        (_R.SET_MEM_TABLE, _table(bench, size=1 << 62), [fd]),
        (_R.SET_MEM_TABLE, _table(bench, mmap_offset=1 << 62), [fd]),
        (_R.SET_MEM_TABLE, _table(bench, mmap_offset=top), [fd]),
        (_R.SET_MEM_TABLE, _table(bench, mmap_offset=1), [fd]),
        (_R.SET_MEM_TABLE, _table(bench, guest_address=top), [fd]),
        (_R.SET_MEM_TABLE, _table(bench, user_address=top), [fd]),
        (_R.SET_MEM_TABLE, (2).to_bytes(8, "little") + twice, [fd, fd]),
        (_R.SET_MEM_TABLE, (9).to_bytes(8, "little") + twice, [fd, fd]),
        (_R.SET_MEM_TABLE, (0xFFFF_FFFF).to_bytes(8, "little") + twice, [fd]),
        (_R.SET_MEM_TABLE, bytes(8), ()),
    ]
    send_each(bench, steps, lambda: bench.control.begin())


@hostile("memory-slots")
def memory_slots(bench: Bench) -> None:
    """Regions that are there already, regions that are not there, and far too many."""
    usual = bench.memory.regions[0]
    fields = {"guest_address": 1 << 45, "size": _PAGE, "user_address": 1 << 46, "mmap_offset": 0}
    same = {"guest_address": usual.guest_address, "size": usual.size, "user_address": usual.user_address}
    steps: list[Step] = [
        (_R.REM_MEM_REG, SINGLE_REGION.build({"region": fields}), ()),
        (_R.ADD_MEM_REG, SINGLE_REGION.build({"region": {**same, "mmap_offset": 0}}), [usual.fd]),
        (_R.ADD_MEM_REG, SINGLE_REGION.build({"region": {**fields, "size": 0}}), [usual.fd]),
        (_R.ADD_MEM_REG, SINGLE_REGION.build({"region": {**fields, "mmap_offset": 1 << 62}}), [usual.fd]),
    ]
    for number in range(64):
        more = {
            **fields,
            "guest_address": (1 << 45) + number * 2 * _PAGE,
            "user_address": (1 << 46) + number * 2 * _PAGE,
        }
        steps.append((_R.ADD_MEM_REG, SINGLE_REGION.build({"region": more}), [usual.fd]))
    bench.start(drive=False)
    bench.front_end.need(_F.CONFIGURE_MEM_SLOTS)
    send_each(bench, steps, lambda: bench.start(drive=False))
