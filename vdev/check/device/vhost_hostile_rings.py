"""Checks of a back end whose front end sets rings up as no ring can be, and sends what is optional as it cannot be."""

import contextlib
import os

from spec.layout import struct_of
from spec.vhost_user import (
    CONFIG,
    DEVICE_STATE_TRANSFER,
    INFLIGHT,
    LOG,
    NO_FD,
    VRING_ADDRESS,
    VRING_STATE,
    FrontEndRequest,
)
from vdev.check.bench.arena import Place
from vdev.check.bench.bench import Bench
from vdev.check.device.left_alone import post_plain
from vdev.check.device.vhost_hostile_steps import Step, hostile, send_each, u64
from vdev.check.device.vhost_steps import is_open_after
from vdev.check.target import ConnectionClosed

_R = FrontEndRequest
_state = struct_of(VRING_STATE)
_address = struct_of(VRING_ADDRESS)


@hostile("ring-set-up")
def ring_set_up(bench: Bench) -> None:
    """Rings that there are not, sizes and bases that no ring has, areas outside of all memory, and flags."""
    outside = bench.memory.outside()
    area = bench.memory.allocate(0x2000, align=4096, what="areas of no ring")
    end = bench.memory.allocate(4096, what="the end of memory", place=Place.LAST)
    inside = bench.memory.user_address(area.address)
    last = bench.memory.user_address(end.address) + end.size - 4
    steps: list[Step] = []
    for index in (0xFFFF_FFFF, 0x100, 0x7F):
        steps += [(request, _state.pack(index, 1), ()) for request in (_R.SET_VRING_NUM, _R.SET_VRING_BASE)]
        steps += [(_R.SET_VRING_ENABLE, _state.pack(index, 1), ()), (_R.GET_VRING_BASE, _state.pack(index, 0), ())]
    steps += [(_R.SET_VRING_NUM, _state.pack(0, size), ()) for size in (0, 3, 0x8001, 0xFFFF_FFFF)]
    steps += [(_R.SET_VRING_BASE, _state.pack(0, base), ()) for base in (0xFFFF_FFFF, 0x7FFF_7FFF, 0x12345)]
    steps += [(_R.SET_VRING_ENABLE, _state.pack(0, value), ()) for value in (2, 0xFFFF_FFFF)]
    for descriptor in (0, outside, last, inside + 1, (1 << 64) - 1):
        steps.append((_R.SET_VRING_ADDR, _address.pack(0, 0, descriptor, descriptor, descriptor, 0), ()))
    steps += [
        (_R.SET_VRING_ADDR, _address.pack(0, 0xFFFF_FFFE, inside, inside, inside, 0), ()),
        (_R.SET_VRING_ADDR, _address.pack(0, 1, inside, inside, inside, (1 << 64) - 1), ()),
        (_R.SET_VRING_KICK, u64(0xFFFF_FFFF_FFFF_FF00 | NO_FD), ()),
        (_R.SET_VRING_CALL, u64(0xFF | NO_FD), ()),
    ]
    send_each(bench, steps, lambda: bench.start(drive=False))


@hostile("ring-over-nothing")
def ring_over_nothing(bench: Bench) -> None:
    """Rings that are started before anything else is known of them, and memory that goes away under them."""
    kick = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        for request, body, fds in (
            (_R.SET_VRING_ENABLE, _state.pack(0, 1), ()),
            (_R.SET_VRING_KICK, u64(0), [kick]),
            (_R.GET_VRING_BASE, _state.pack(0, 0), ()),
        ):
            send_each(bench, [(request, body, fds)], lambda: bench.control.begin())
            bench.reconnect()
        os.eventfd_write(kick, 1)
    finally:
        os.close(kick)
    bench.start()
    ring = bench.ring()
    bench.exchange(ring)
    post_plain(bench, ring)
    with contextlib.suppress(ConnectionClosed):
        bench.front_end.send(_R.SET_MEM_TABLE, bytes(8))
        ring.kick()
        is_open_after(bench)


@hostile("while-running")
def while_running(bench: Bench) -> None:
    """Messages that belong before a start, sent to a ring that is served."""
    steps: list[Step] = [
        (_R.SET_VRING_NUM, _state.pack(0, 4), ()),
        (_R.SET_VRING_BASE, _state.pack(0, 7), ()),
        (_R.SET_FEATURES, u64(0), ()),
        (_R.SET_PROTOCOL_FEATURES, u64(0), ()),
        (_R.SET_OWNER, b"", ()),
        (_R.SET_DEVICE_STATE_FD, DEVICE_STATE_TRANSFER.build({"direction": 7, "phase": 7}), ()),
        (_R.CHECK_DEVICE_STATE, b"", ()),
        (_R.SET_STATUS, u64(0xFFFF), ()),
    ]

    def bring_up() -> None:
        bench.start()
        bench.exchange(bench.ring())

    send_each(bench, steps, bring_up)


# What belongs to protocol features


@hostile("optional-messages")
def optional_messages(bench: Bench) -> None:
    """Logs, areas and parts of configuration space that cannot be."""
    fd = bench.memory.regions[0].fd
    steps: list[Step] = []
    for size, offset in ((0, 0), (1, 0), (1 << 62, 0), (4096, 1 << 62), ((1 << 64) - 1, (1 << 64) - 1)):
        steps.append((_R.SET_LOG_BASE, LOG.build({"size": size, "offset": offset}), [fd]))
    for size, offset, count, each in (
        (0, 0, 1, 16),
        (1 << 62, 0, 1, 16),
        (4096, 1 << 62, 1, 16),
        (64, 0, 0xFFFF, 0xFFFF),
    ):
        fields = {"mmap_size": size, "mmap_offset": offset, "queue_count": count, "queue_size": each}
        steps += [
            (_R.SET_INFLIGHT_FD, INFLIGHT.build(fields) + bytes(4), [fd]),
            (_R.GET_INFLIGHT_FD, INFLIGHT.build(fields) + bytes(4), ()),
        ]
    for offset, size in ((0xFFFF_FFFF, 1), (0, 0), (0, 200), (255, 2)):
        body = CONFIG.build({"offset": offset, "size": size, "flags": 0, "payload": bytes(size)})
        steps += [(_R.GET_CONFIG, body, ()), (_R.SET_CONFIG, body, ())]
    lying = (0).to_bytes(4, "little") + (0xFFFF_FFFF).to_bytes(4, "little") + bytes(8)
    steps += [(_R.GET_CONFIG, lying, ()), (_R.SET_CONFIG, lying, ())]
    send_each(bench, steps, lambda: bench.start(drive=False))


@hostile("random-messages")
def random_messages(bench: Bench) -> None:
    """Requests of all numbers with payloads of chance."""
    random = bench.random
    requests = list(_R)
    steps: list[Step] = [
        (random.choice(requests), random.randbytes(random.choice((0, 8, 12, 24, 40, 64))), ()) for _ in range(60)
    ]
    send_each(bench, steps, lambda: bench.start(drive=False))
