"""The migration stream without its link: what to send, and what to make of what came. Plain synchronous code."""

from host_migrator.stream.items import (
    Answer,
    Commit,
    Complete,
    DeviceState,
    Failed,
    Item,
    Preamble,
    Query,
    RamLoaded,
    Ready,
    Resumed,
    RoundEnd,
    SetUp,
    VcpuState,
    Verdict,
)
from host_migrator.stream.loader import RamLoader
from host_migrator.stream.order import BACKWARD, FORWARD
from host_migrator.stream.parser import StreamParser
from host_migrator.stream.ram import RamEncoder
from host_migrator.stream.records import Buffer, build_preamble, build_record

__all__ = [
    "BACKWARD",
    "FORWARD",
    "Answer",
    "Buffer",
    "Commit",
    "Complete",
    "DeviceState",
    "Failed",
    "Item",
    "Preamble",
    "Query",
    "RamEncoder",
    "RamLoaded",
    "RamLoader",
    "Ready",
    "Resumed",
    "RoundEnd",
    "SetUp",
    "StreamParser",
    "VcpuState",
    "Verdict",
    "build_preamble",
    "build_record",
]
