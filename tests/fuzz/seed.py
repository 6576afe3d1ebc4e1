"""Write the first inputs of each target: well-formed rings and messages that a fuzzer starts from.

python tests/fuzz/seed.py FOLDER
"""

import hashlib
import struct
import sys
from contextlib import suppress
from pathlib import Path

import construct

sys.path.insert(0, str(Path(__file__).parent.parent))

from fuzz.back_end import STORE
from fuzz.front_end import ASKED
from spec.balloon import BalloonFeature
from spec.device import Feature, feature_mask
from spec.packed_ring import PackedFlag
from spec.split_ring import DescriptorFlag
from spec.vhost_user import (
    BACK_END_STATE,
    CONFIG,
    DEVICE_STATE_TRANSFER,
    FRONT_END_REQUESTS,
    INFLIGHT,
    LOG,
    LOG_ALL,
    MEMORY_TABLE,
    PROTOCOL_FEATURES,
    U64,
    VRING_ADDRESS,
    VRING_STATE,
    FrontEndRequest,
    ProtocolFeature,
    TransferDirection,
    protocol_feature_mask,
)
from vdev.devices.balloon import BalloonDevice
from vdev.memory import GuestMemory
from vdev.vhost_user.framing import encode

_SIZE = 4
_TABLE = 0x400
"""Where an indirect table stands, right behind what a small ring takes."""

_CALLS = bytes([0, 2, 1, 3, 4, 5, 0, 6, 7, 8, 2, 9, 1, 3])
_LEND = bytes([0, 1, 2, 3, 4, 7, 8, 9])


def split_device(options: int) -> bytes:
    """Return a split ring with a direct chain of two and an indirect one of two."""
    next_, write, indirect = DescriptorFlag.NEXT, DescriptorFlag.WRITE, DescriptorFlag.INDIRECT
    table = struct.pack("<QIHH", 0x800, 16, next_, 1) + struct.pack("<QIHH", 0x900, 32, write, 0)
    third = struct.pack("<QIHH", _TABLE, 32, indirect, 0) if options & 2 else struct.pack("<QIHH", 0xA00, 8, 0, 0)
    content = table + third + bytes(16)
    content += struct.pack("<HH4HH", 0, 2, 0, 2, 0, 0, 0)
    return _input(options, 2, _CALLS, content.ljust(_TABLE, b"\0") + table if options & 2 else content)


def packed_device(options: int) -> bytes:
    """Return a packed ring with a direct chain of two, a lone descriptor or an indirect table, and an end."""
    available = PackedFlag.AVAIL
    ring = struct.pack("<QIHH", 0x800, 16, 0, available | PackedFlag.NEXT)
    ring += struct.pack("<QIHH", 0x900, 32, 1, available | PackedFlag.WRITE)
    if options & 2:
        ring += struct.pack("<QIHH", _TABLE, 32, 2, available | PackedFlag.INDIRECT)
    else:
        ring += struct.pack("<QIHH", 0xA00, 8, 2, available)
    content = ring + bytes(16) + struct.pack("<HH", 0x8003, 2 if options & 1 else 0)
    table = struct.pack("<QIHH", 0x800, 16, 0, 0) + struct.pack("<QIHH", 0x900, 32, 0, PackedFlag.WRITE)
    return _input(options, _SIZE - 1, _CALLS, content.ljust(_TABLE, b"\0") + table if options & 2 else content)


def split_driver(options: int) -> bytes:
    """Return a used ring that gives two buffers back."""
    used = struct.pack("<HH", 0, 2) + struct.pack("<IIII", 0, 0, 1, 0)
    return _input(options, 2, _LEND, used)


def packed_driver(options: int) -> bytes:
    """Return a descriptor ring whose first two are used."""
    used = PackedFlag.AVAIL | PackedFlag.USED
    return _input(options, _SIZE - 1, _LEND, struct.pack("<QIHH", 0, 0, 0, used) + struct.pack("<QIHH", 0, 0, 1, used))


def _input(options: int, size: int, steps: bytes, content: bytes) -> bytes:
    return bytes([options, size, len(steps)]) + steps + content


def conversation() -> bytes:
    """Return each request that a front end may send, one after the other; what is in them is zero."""
    stream = b""
    for request, shape in FRONT_END_REQUESTS.items():
        size = 0
        if shape.payload is not None:
            with suppress(construct.SizeofError):
                size = shape.payload.sizeof()
        stream += encode(request, bytes(size))
    return bytes([5]) + stream


def memory_table() -> bytes:
    """Return a memory table of two regions and a write to configuration space."""
    region = {"size": 0x1000, "user_address": 0x5000, "mmap_offset": 0}
    regions = [{"guest_address": address, **region} for address in (0, 0x1000)]
    body = MEMORY_TABLE.build({"region_count": 2, "regions": regions})
    config = CONFIG.build({"offset": 0, "size": 4, "flags": 0, "payload": b"abcd"})
    return bytes([200]) + encode(FrontEndRequest.SET_MEM_TABLE, body) + encode(FrontEndRequest.SET_CONFIG, config)


def _messages(*messages: tuple[int, int, bytes]) -> bytes:
    """Return an input of the target back-end: (request, which descriptors, payload) each."""
    return b"".join(bytes([request, 9, fds, len(body)]) + body for request, fds, body in messages)


def served_ring(features: int) -> bytes:
    """Return what a front end sends until a ring is served, and the reset of the device."""
    r = FrontEndRequest
    region = {"guest_address": 0, "size": 0x4000, "user_address": 0x10000, "mmap_offset": 0}
    table = MEMORY_TABLE.build({"region_count": 1, "regions": [region]})
    address = {"index": 0, "flags": 0, "descriptor": 0x10000, "used": 0x12000, "available": 0x11000, "log": 0}
    return _messages(
        (r.SET_OWNER, 0, b""),
        (r.SET_PROTOCOL_FEATURES, 0, U64.build({"value": 1 | 1 << 3 | 1 << 9 | 1 << 13 | 1 << 16})),
        (r.SET_FEATURES, 0, U64.build({"value": features | 1 << 32 | 1 << 30})),
        (r.SET_MEM_TABLE, 0x11, table),
        (r.SET_VRING_NUM, 0, VRING_STATE.build({"index": 0, "num": 8})),
        (r.SET_VRING_BASE, 0, VRING_STATE.build({"index": 0, "num": 0})),
        (r.SET_VRING_ADDR, 0, VRING_ADDRESS.build(address)),
        (r.SET_VRING_KICK, 1, U64.build({"value": 0})),
        (r.SET_VRING_CALL, 1, U64.build({"value": 0})),
        (r.SET_VRING_ENABLE, 0, VRING_STATE.build({"index": 0, "num": 1})),
        (r.GET_CONFIG, 0, CONFIG.build({"offset": 0, "size": 8, "flags": 0, "payload": bytes(8)})),
        (r.SET_STATUS, 0, U64.build({"value": 15})),
        (r.GET_VRING_BASE, 0, VRING_STATE.build({"index": 0, "num": 0})),
        (r.RESET_DEVICE, 0, b""),
    )


_STATISTICS = feature_mask(Feature.VERSION_1, PROTOCOL_FEATURES, BalloonFeature.STATS_VQ)
_R, _F = FrontEndRequest, ProtocolFeature
_TRACKING = protocol_feature_mask(
    _F.MQ, _F.LOG_SHMFD, _F.REPLY_ACK, _F.RESET_DEVICE, _F.INFLIGHT_SHMFD, _F.DEVICE_STATE
)


def _bring_up(features: int, **address: int) -> list[tuple[int, int, bytes]]:
    """Return messages up to a ring of eight that is set up and not started; its areas lie in one page's content."""
    region = {"guest_address": 0, "size": 0x4000, "user_address": 0x10000, "mmap_offset": 0}
    place = {"index": 2, "flags": 0, "descriptor": 0x10000, "used": 0x120A0, "available": 0x10080, "log": 0}
    packed = features >> Feature.RING_PACKED & 1
    return [
        (_R.SET_PROTOCOL_FEATURES, 0, U64.build({"value": _TRACKING})),
        (_R.SET_FEATURES, 0, U64.build({"value": features | _STATISTICS})),
        (_R.SET_MEM_TABLE, 0x11, MEMORY_TABLE.build({"region_count": 1, "regions": [region]})),
        (_R.SET_VRING_NUM, 0, VRING_STATE.build({"index": 2, "num": 8})),
        (_R.SET_VRING_BASE, 0, VRING_STATE.build({"index": 2, "num": 0x8000_8000 if packed else 0})),
        (_R.SET_VRING_ADDR, 0, VRING_ADDRESS.build(place | address)),
    ]


def _start(base: int) -> list[tuple[int, int, bytes]]:
    """Return messages that start the ring, and start it again."""
    start = [
        (_R.SET_VRING_KICK, 1, U64.build({"value": 2})),
        (_R.SET_VRING_ENABLE, 0, VRING_STATE.build({"index": 2, "num": 1})),
    ]
    again = (_R.SET_VRING_BASE, 0, VRING_STATE.build({"index": 2, "num": base}))
    return [*start, (_R.GET_VRING_BASE, 0, VRING_STATE.build({"index": 2, "num": 0})), again, *start]


def _posted(packed: bool) -> bytes:
    """Return what stands in RAM: a ring with a buffer of statistics, which a balloon keeps."""
    if packed:
        ring = struct.pack("<QIHH", 0x1C0, 10, 0, PackedFlag.AVAIL)
    else:
        ring = struct.pack("<QIHH", 0x1C0, 10, 0, 0) * 8 + struct.pack("<HH8HH", 0, 1, *range(8), 0)
    return ring.ljust(512, b"\0")


def tracked_ring(*, packed: bool) -> bytes:
    """Return a ring whose buffers in flight are noted in an area that the front end stores into."""
    features = feature_mask(Feature.RING_PACKED) if packed else 0
    area = INFLIGHT.build({"mmap_size": 0x1000, "mmap_offset": 0, "queue_count": 3, "queue_size": 8})
    asked = (
        _R.GET_INFLIGHT_FD,
        0,
        INFLIGHT.build({"mmap_size": 0, "mmap_offset": 0, "queue_count": 5, "queue_size": 8}),
    )
    stored = (STORE, 0, struct.pack("<HH", 2 * 0x140 + 12, 3))
    begin = [*_bring_up(features), asked, (_R.SET_INFLIGHT_FD, 0x41, area)]
    return _messages(*begin, *_start(0x8000_8000 if packed else 0), stored, *_start(0)) + _posted(packed)


def logged_ring() -> bytes:
    """Return a ring whose device's writes are logged, those of the used ring elsewhere."""
    log = (_R.SET_LOG_BASE, 0x41, LOG.build({"size": 0x1000, "offset": 0}))
    messages = [*_bring_up(feature_mask(LOG_ALL), flags=1, log=0x3000), log, *_start(0)]
    return _messages(*messages) + _posted(packed=False)


def moved_device() -> bytes:
    """Return a device's state that is saved, loaded and gone on from."""
    saved = BACK_END_STATE.build({"regions": [], "device": BalloonDevice(GuestMemory.absent()).save()})
    save, load = (
        DEVICE_STATE_TRANSFER.build({"direction": direction, "phase": 0})
        for direction in (TransferDirection.SAVE, TransferDirection.LOAD)
    )
    check = (_R.CHECK_DEVICE_STATE, 0, b"")
    moved = [(_R.SET_DEVICE_STATE_FD, 0x61, save), check, (_R.SET_DEVICE_STATE_FD, 0x51, load), check]
    return _messages(*_bring_up(0), *moved, *_start(0)) + saved + bytes(512)


def answers() -> bytes:
    """Return an input of the target front-end: a reply of zeros, or what acknowledges, to each request."""
    return b"".join(bytes([place, 0, 5, 0, 8]) + bytes(8) for place in range(len(ASKED)))


SEEDS = {
    "split-device": [split_device(options) for options in range(16)],
    "packed-device": [packed_device(options) for options in range(16)],
    "split-driver": [split_driver(features) for features in range(8)],
    "packed-driver": [packed_driver(features) for features in range(8)],
    "framing": [conversation(), memory_table()],
    "back-end": [
        served_ring(0),
        served_ring(1 << 34),
        served_ring(1 << 29 | 1 << 28),
        tracked_ring(packed=False),
        tracked_ring(packed=True),
        logged_ring(),
        moved_device(),
    ],
    "front-end": [answers()],
}
"""Target -> inputs."""


def main() -> None:
    """Write them all below the folder that is named."""
    for target, seeds in SEEDS.items():
        folder = Path(sys.argv[1]) / target
        folder.mkdir(parents=True, exist_ok=True)
        for data in seeds:
            (folder / hashlib.sha1(data, usedforsecurity=False).hexdigest()[:12]).write_bytes(data)


if __name__ == "__main__":
    main()
