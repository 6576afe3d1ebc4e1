"""The migration stream, version 1: this project's own format, all numbers little endian.

A connection begins with one PREAMBLE from the source. After it both directions carry records only: a RECORD_HEADER,
then `body_size` bytes of body. The body of a record with a table begins with `entry_count` entries of it:

| record     | way  | table   | rest of the body                                     |
|------------|------|---------|------------------------------------------------------|
| SET_UP     | to   | REGION  | JSON: what the destination needs to start the guest  |
| RAM_DATA   | to   | RUN     | the bytes of all pages of all runs, in order         |
| ZERO_PAGES | to   | RUN     | nothing                                              |
| ROUND_END  | to   |         | ROUND                                                |
| DEVICE     | to   |         | a name of `entry_count` bytes of UTF-8, then state   |
| VCPU       | to   |         | the vCPU's state                                     |
| COMPLETE   | to   |         | TOTALS                                               |
| COMMIT     | to   |         | nothing: the destination may run the guest now       |
| QUERY      | to   |         | nothing: what became of the preamble's migration?    |
| READY      | back |         | JSON: all is loaded, the guest stands ready          |
| RESUMED    | back |         | nothing: the guest runs at the destination           |
| VERDICT    | back |         | JSON: what the guest found when it checked itself    |
| FAILED     | back |         | text: why no guest runs there (any more)             |
| ANSWER     | back |         | text: "running" or "gone"                            |

A header has a checksum of its own, so that a damaged size is found before anybody waits for that many bytes.
"""

from enum import IntEnum

from construct import Bytes, Int16ul, Int32ul, Int64ul, Struct

__all__ = [
    "MAGIC",
    "MAX_BODY_SIZE",
    "PAYLOAD_SIZE",
    "PREAMBLE",
    "RECORD_HEADER",
    "REGION",
    "ROUND",
    "RUN",
    "TOTALS",
    "VERSION",
    "RecordType",
]

MAGIC = b"vdevMIGR"
VERSION = 1

PAYLOAD_SIZE = 256 * 1024
"""Bytes of pages in one RAM_DATA record as this project sends it: what fits the second-level cache beside the rest."""


class RecordType(IntEnum):
    """What a record is. Numbers from 64 on travel back to the source."""

    SET_UP = 1
    RAM_DATA = 2
    ZERO_PAGES = 3
    ROUND_END = 4
    DEVICE = 5
    VCPU = 6
    COMPLETE = 7
    COMMIT = 8
    QUERY = 9
    READY = 64
    RESUMED = 65
    VERDICT = 66
    FAILED = 67
    ANSWER = 68


MAX_BODY_SIZE: dict[RecordType, int] = {
    RecordType.SET_UP: 1 << 20,
    RecordType.RAM_DATA: 4 << 20,
    RecordType.ZERO_PAGES: 1 << 20,
    RecordType.ROUND_END: 16,
    RecordType.DEVICE: 16 << 20,
    RecordType.VCPU: 16 << 20,
    RecordType.COMPLETE: 24,
    RecordType.COMMIT: 0,
    RecordType.QUERY: 0,
    RecordType.READY: 1 << 20,
    RecordType.RESUMED: 0,
    RecordType.VERDICT: 1 << 20,
    RecordType.FAILED: 1 << 16,
    RecordType.ANSWER: 16,
}
"""Bytes; a receiver refuses more, so a hostile sender cannot make it allocate without end."""

PREAMBLE = "preamble" / Struct(
    "magic" / Bytes(8),
    "version" / Int32ul,
    "page_size" / Int32ul,
    "migration_id" / Bytes(16),
    "flags" / Int32ul,
    "checksum" / Int32ul,
)
"""`flags` is 0 in version 1; `checksum` is the XXH32 of the bytes before it."""

RECORD_HEADER = "record_header" / Struct(
    "type" / Int16ul,
    "flags" / Int16ul,
    "entry_count" / Int32ul,
    "body_size" / Int32ul,
    "body_checksum" / Int64ul,
    "header_checksum" / Int32ul,
)
"""`flags` is 0 in version 1; `body_checksum` is the XXH3-64 of the body, `header_checksum` the XXH32 of the bytes
before it.
"""

REGION = "region" / Struct("address" / Int64ul, "size" / Int64ul)
RUN = "run" / Struct("address" / Int64ul, "page_count" / Int64ul)
"""`page_count` pages from the guest-physical `address` on, inside one region."""
ROUND = "round" / Struct("number" / Int64ul, "remaining_count" / Int64ul)
"""A pass that ended, and the pages still to send after it."""
TOTALS = "totals" / Struct("data_count" / Int64ul, "zero_count" / Int64ul, "device_count" / Int64ul)
"""What the stream carried: pages with content, pages as zero, devices."""
