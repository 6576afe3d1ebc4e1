"""Records as buffers to send."""

import json
from typing import Any
from uuid import UUID

import xxhash

from host_migrator.stream import items
from spec.layout import struct_of
from spec.stream import MAGIC, PREAMBLE, RECORD_HEADER, REGION, ROUND, TOTALS, VERSION, RecordType
from vdev.memory import PAGE_SIZE

__all__ = ["Buffer", "build_preamble", "build_record", "seal"]

Buffer = bytes | bytearray | memoryview

_HEADER = struct_of(RECORD_HEADER)


def build_preamble(migration_id: UUID) -> bytes:
    """Return the first bytes of a connection from the source."""
    fields = {
        "magic": MAGIC,
        "version": VERSION,
        "page_size": PAGE_SIZE,
        "migration_id": migration_id.bytes,
        "flags": 0,
    }
    raw: bytes = PREAMBLE.build({**fields, "checksum": 0})
    return raw[:-4] + xxhash.xxh32_intdigest(raw[:-4]).to_bytes(4, "little")


def seal(kind: RecordType, entry_count: int, *body: Buffer) -> list[Buffer]:
    """Return a record's buffers: the header with both checksums, then `body` as it is, not copied."""
    checksum = xxhash.xxh3_64()
    size = 0
    for part in body:
        checksum.update(part)
        size += memoryview(part).nbytes
    raw = _HEADER.pack(kind, 0, entry_count, size, checksum.intdigest(), 0)[:-4]
    return [raw + xxhash.xxh32_intdigest(raw).to_bytes(4, "little"), *body]


def build_record(item: items.Item) -> list[Buffer]:
    """Return the buffers of a record that is not RAM.

    Raises TypeError for an item that is not a record, such as a preamble.
    """
    match item:
        case items.SetUp(regions, config):
            table = b"".join(REGION.build({"address": address, "size": size}) for address, size in regions)
            return seal(RecordType.SET_UP, len(regions), table, _json(config))
        case items.RoundEnd(number, remaining_count):
            return seal(RecordType.ROUND_END, 0, ROUND.build({"number": number, "remaining_count": remaining_count}))
        case items.DeviceState(name, state):
            raw = name.encode()
            return seal(RecordType.DEVICE, len(raw), raw, state)
        case items.VcpuState(state):
            return seal(RecordType.VCPU, 0, state)
        case items.Complete(data_count, zero_count, device_count):
            totals = {"data_count": data_count, "zero_count": zero_count, "device_count": device_count}
            return seal(RecordType.COMPLETE, 0, TOTALS.build(totals))
        case items.Commit():
            return seal(RecordType.COMMIT, 0)
        case items.Query():
            return seal(RecordType.QUERY, 0)
        case items.Ready(report):
            return seal(RecordType.READY, 0, _json(report))
        case items.Resumed():
            return seal(RecordType.RESUMED, 0)
        case items.Verdict(verdict):
            return seal(RecordType.VERDICT, 0, _json(verdict))
        case items.Failed(reason):
            return seal(RecordType.FAILED, 0, reason.encode()[:4096])
        case items.Answer(fate):
            return seal(RecordType.ANSWER, 0, fate.encode())
    raise TypeError(f"{type(item).__name__} is not a record")


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
