"""A recorded stream, and a receiver that is fed from bytes."""

from uuid import UUID

import numpy as np

from host_migrator.stream import (
    FORWARD,
    Commit,
    Complete,
    DeviceState,
    Preamble,
    RamEncoder,
    RamLoader,
    RoundEnd,
    SetUp,
    StreamParser,
    VcpuState,
    build_preamble,
    build_record,
)

MIGRATION = UUID(int=0x1234_5678 << 64 | 9)


def feed(parser: StreamParser, data: bytes, on_item=lambda item: None, *, ended: bool = False) -> list:
    """Give `data` to the parser as a link would; then the link's end, if `ended` or inside a record."""
    found = []
    offset = 0
    while True:
        view = parser.wanted()
        part = data[offset : offset + view.nbytes]
        if len(part) < view.nbytes:
            return found if not part and not ended else _end(parser, len(part))
        view[:] = part
        offset += len(part)
        item = parser.received()
        if item is not None:
            on_item(item)
            found.append(item)


def _end(parser, received_size):
    raise parser.truncated(received_size, "the recording ends")


def load(data: bytes, memory, *, ended: bool = False) -> list:
    """Parse a whole recording into `memory`."""
    parser = StreamParser(FORWARD, preamble=True)

    def on_item(item):
        if isinstance(item, SetUp):
            parser.load_into(RamLoader(memory))

    return feed(parser, data, on_item, ended=ended)


def flat(records) -> bytes:
    return b"".join(b"".join(record) for record in records)


def record_migration(memory, pages=None, payload_size: int = 8 * 4096) -> bytes:
    """Return the bytes of a whole migration of `memory`."""
    encoder = RamEncoder(memory, payload_size)
    pages = np.arange(memory.page_count) if pages is None else pages
    regions = tuple((region.guest_address, region.size) for region in memory.regions)
    parts = [build_preamble(MIGRATION), flat([build_record(SetUp(regions, {"a": 1}))])]
    parts.append(flat(encoder.records(pages)))
    parts += [flat([build_record(item)]) for item in (RoundEnd(1, 0), DeviceState("balloon", b"\x01\x02"))]
    parts += [flat([build_record(VcpuState(b"registers"))])]
    parts += [flat([build_record(Complete(encoder.data_count, encoder.zero_count, 1))])]
    return b"".join([*parts, flat([build_record(Commit())])])


__all__ = ["MIGRATION", "Preamble", "feed", "flat", "load", "record_migration"]
