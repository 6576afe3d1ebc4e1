"""Makes items out of a stream's bytes, wherever they come from."""

import json
from collections.abc import Generator
from typing import Any, NamedTuple
from uuid import UUID

import construct
import xxhash

from host_migrator.errors import (
    BadMagic,
    MalformedRecord,
    StreamError,
    Truncated,
    UnexpectedRecord,
    UnknownRecord,
    UnknownVersion,
    WrongChecksum,
    WrongTotals,
)
from host_migrator.stream import items
from host_migrator.stream.loader import RamLoader
from host_migrator.stream.order import Order, State
from spec.layout import struct_of
from spec.stream import MAGIC, MAX_BODY_SIZE, PREAMBLE, RECORD_HEADER, REGION, ROUND, RUN, TOTALS, VERSION, RecordType
from vdev.memory import PAGE_SIZE

__all__ = ["StreamParser"]

_KINDS = {int(kind): kind for kind in RecordType}
_HEADER = struct_of(RECORD_HEADER)
_RUN_SIZE = RUN.sizeof()
_Steps = Generator[memoryview, None, None]


class _Header(NamedTuple):
    """RECORD_HEADER's fields in order; read without construct, which costs more than a page."""

    type: int
    flags: int
    entry_count: int
    body_size: int
    body_checksum: int
    header_checksum: int


class StreamParser:
    """An incremental parser that says where it wants the next bytes.

    Fill `wanted()` wholly, then call `received()`; it returns an item when one became complete. The pages of RAM_DATA
    records go straight to their place and make no item; `load_into` must come after the SetUp item and before them.
    Every error is a StreamError that says what is wrong and where; a parser that raised is of no more use.
    """

    def __init__(self, order: Order, *, preamble: bool) -> None:
        self.offset = 0
        self.state = State.START
        self.loader: RamLoader | None = None
        self._order = order
        self._device_count = 0
        self._item: items.Item | None = None
        self._inside: RecordType | None = None
        self._after: RecordType | None = None
        self._steps = self._parse(preamble)
        self._wanted = next(self._steps)

    def wanted(self) -> memoryview:
        """Return the buffer for the next bytes; never empty."""
        return self._wanted

    def received(self) -> items.Item | None:
        """Take note that `wanted()` is filled."""
        self.offset += self._wanted.nbytes
        self._wanted = next(self._steps)
        item, self._item = self._item, None
        return item

    def truncated(self, received_size: int, why: str) -> StreamError:
        """Return the error that says that the link ended after `received_size` bytes of `wanted()`."""
        if self._inside is not None:
            where = f"inside a {self._inside.name} record"
        elif self._after is not None:
            where = f"after a {self._after.name} record, before the stream was complete"
        else:
            where = "before the first record"
        return Truncated(f"the link ended {where}: {why}", self.offset + received_size)

    def load_into(self, loader: RamLoader) -> None:
        """Say where pages go."""
        self.loader = loader

    # The steps: each `yield` waits for its buffer to be filled

    def _parse(self, preamble: bool) -> _Steps:
        if preamble:
            yield from self._preamble()
        header = bytearray(RECORD_HEADER.sizeof())
        while True:
            start = self.offset
            yield memoryview(header)
            kind, fields = self._header(header, start)
            self._inside = kind
            if kind is RecordType.RAM_DATA:
                yield from self._ram_data(fields, start)
            else:
                body = bytearray(fields.body_size)
                if body:
                    yield memoryview(body)
                self._check(fields, start, body)
                self._item = self._make_item(kind, fields.entry_count, body, start)
            self._inside, self._after = None, kind

    def _preamble(self) -> _Steps:
        raw = bytearray(PREAMBLE.sizeof())
        view = memoryview(raw)
        yield view[: len(MAGIC)]
        if raw[: len(MAGIC)] != MAGIC:
            raise BadMagic(f"{bytes(raw[: len(MAGIC)])!r} is not {MAGIC!r}: this is no vdev migration", 0)
        yield view[len(MAGIC) :]
        fields = PREAMBLE.parse(raw)
        if fields.version != VERSION or fields.flags:
            raise UnknownVersion(f"version {fields.version}, flags {fields.flags:#x}; known is version {VERSION}", 8)
        if xxhash.xxh32_intdigest(bytes(raw[:-4])) != fields.checksum:
            raise WrongChecksum("the preamble was damaged", 0)
        if fields.page_size != PAGE_SIZE:
            raise MalformedRecord(f"pages of {fields.page_size} bytes; here they have {PAGE_SIZE}", 0)
        self._item = items.Preamble(UUID(bytes=fields.migration_id))

    def _header(self, raw: bytearray, start: int) -> tuple[RecordType, "_Header"]:
        fields = _Header(*_HEADER.unpack(raw))
        if xxhash.xxh32_intdigest(bytes(raw[:-4])) != fields.header_checksum:
            raise WrongChecksum("a record's header was damaged", start)
        kind = _KINDS.get(fields.type)
        if kind is None:
            raise UnknownRecord(f"record type {fields.type}", start)
        if fields.flags:
            raise UnknownRecord(f"{kind.name} with flags {fields.flags:#x}", start)
        following = self._order[self.state]
        if kind not in following:
            expected = ", ".join(record.name for record in following) or "nothing"
            raise UnexpectedRecord(f"{kind.name} in state {self.state}, where only {expected} may come", start)
        if fields.body_size > MAX_BODY_SIZE[kind]:
            raise MalformedRecord(f"{kind.name} of {fields.body_size} bytes, more than {MAX_BODY_SIZE[kind]}", start)
        self.state = following[kind]
        return kind, fields

    def _ram_data(self, fields: _Header, start: int) -> _Steps:
        loader = self._loader(start)
        table_size = fields.entry_count * _RUN_SIZE
        if not 0 < table_size < fields.body_size:
            raise MalformedRecord(f"{fields.entry_count} runs in {fields.body_size} bytes", start)
        table = memoryview(bytearray(table_size))
        yield table
        payload = loader.begin_data(table, fields.body_size - table_size, start)
        yield payload
        self._check(fields, start, table, payload)
        loader.finish_data()
        self._item = _loaded(loader)

    @staticmethod
    def _check(fields: _Header, start: int, *body: memoryview | bytearray) -> None:
        checksum = xxhash.xxh3_64()
        for part in body:
            checksum.update(part)
        if checksum.intdigest() != fields.body_checksum:
            raise WrongChecksum(f"the body of a {RecordType(fields.type).name} record was damaged", start)

    def _loader(self, start: int) -> RamLoader:
        if self.loader is None:
            raise UnexpectedRecord("pages before there is memory for them", start)
        return self.loader

    def _make_item(self, kind: RecordType, entry_count: int, body: bytearray, start: int) -> items.Item | None:
        try:
            return self._parse_body(kind, entry_count, body, start)
        except (construct.ConstructError, ValueError) as error:
            raise MalformedRecord(f"{kind.name}: {error}", start) from error

    def _parse_body(self, kind: RecordType, entry_count: int, body: bytearray, start: int) -> items.Item | None:
        match kind:
            case RecordType.SET_UP:
                table_size = entry_count * REGION.sizeof()
                regions = construct.Array(entry_count, REGION).parse(body[:table_size])
                config = _json(body[table_size:])
                return items.SetUp(tuple((int(region.address), int(region.size)) for region in regions), config)
            case RecordType.ZERO_PAGES:
                if entry_count * _RUN_SIZE != len(body):
                    raise MalformedRecord(f"{entry_count} runs in {len(body)} bytes", start)
                self._loader(start).zero(memoryview(body), start)
                return _loaded(self._loader(start))
            case RecordType.ROUND_END:
                fields = ROUND.parse(body)
                return items.RoundEnd(fields.number, fields.remaining_count)
            case RecordType.DEVICE:
                if entry_count > len(body):
                    raise MalformedRecord(f"a name of {entry_count} bytes in {len(body)} bytes", start)
                self._device_count += 1
                return items.DeviceState(body[:entry_count].decode(), bytes(body[entry_count:]))
            case RecordType.VCPU:
                return items.VcpuState(bytes(body))
            case RecordType.COMPLETE:
                return self._complete(TOTALS.parse(body), start)
            case RecordType.READY:
                return items.Ready(_json(body))
            case RecordType.VERDICT:
                return items.Verdict(_json(body))
            case RecordType.FAILED:
                return items.Failed(body.decode(errors="replace"))
            case RecordType.ANSWER:
                return items.Answer(body.decode())
            case _:
                return _EMPTY[kind]

    def _complete(self, totals: Any, start: int) -> items.Complete:
        loader = self._loader(start)
        carried = items.Complete(loader.data_count, loader.zero_count, self._device_count)
        counted = items.Complete(totals.data_count, totals.zero_count, totals.device_count)
        if carried != counted:
            raise WrongTotals(f"it carried {carried}, and says {counted}", start)
        return counted


_EMPTY: dict[RecordType, items.Item] = {
    RecordType.COMMIT: items.Commit(),
    RecordType.QUERY: items.Query(),
    RecordType.RESUMED: items.Resumed(),
}


def _loaded(loader: RamLoader) -> items.RamLoaded | None:
    runs, loader.runs = tuple(loader.runs), []
    return items.RamLoaded(runs) if runs else None


def _json(raw: bytearray) -> dict[str, Any]:
    value = json.loads(raw)
    if not isinstance(value, dict):
        raise ValueError("JSON that is not an object")
    return value
