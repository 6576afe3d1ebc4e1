"""The file system device's requests: attributes of the root directory (virtio 1.4, "File System Device")."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from spec.device import DeviceId
from spec.fuse import (
    ANSWER_HEADER,
    ATTRIBUTES_SIZE,
    GET_ATTRIBUTES,
    INIT,
    INIT_ANSWER_SIZE,
    KERNEL_VERSION,
    REQUEST_HEADER,
    ROOT_NODE,
    FuseOperation,
)
from vdev.check.bench.request import Request

if TYPE_CHECKING:
    from vdev.check.bench.bench import Bench

__all__ = ["FsTraffic"]

_HIGH_PRIORITY, _REQUESTS = 0, 1
_READAHEAD = 65536


class FsTraffic:
    """Attributes of the root directory, after a FUSE session was begun."""

    name = "fs"
    device_id = int(DeviceId.FILE_SYSTEM)
    queue = _REQUESTS
    needs: tuple[int, ...] = ()

    def __init__(self) -> None:
        self._unique = 0

    def queues(self, bench: "Bench") -> Mapping[int, int]:
        """Return the high priority queue and the first request queue."""
        return {_HIGH_PRIORITY: 64, _REQUESTS: 64}

    def prepare(self, bench: "Bench") -> None:
        """Begin a FUSE session."""
        major, minor = KERNEL_VERSION
        begin = INIT.build({"major": major, "minor": minor, "max_readahead": _READAHEAD, "flags": 0})
        bench.exchange(
            bench.ring(_REQUESTS), self._request(FuseOperation.INIT, 0, begin, INIT_ANSWER_SIZE, INIT_ANSWER_SIZE)
        )

    def plain(self, bench: "Bench", size: int | None = None) -> Request:
        """Return a request for the root's attributes, with room for `size` bytes, and no less than they need."""
        asked = GET_ATTRIBUTES.build({"getattr_flags": 0, "dummy": 0, "fh": 0})
        room = max(ATTRIBUTES_SIZE, size or 0)
        return self._request(FuseOperation.GET_ATTRIBUTES, ROOT_NODE, asked, ATTRIBUTES_SIZE, room)

    def _request(self, operation: FuseOperation, node: int, content: bytes, given: int, room: int) -> Request:
        self._unique += 1
        unique = self._unique
        header: bytes = REQUEST_HEADER.build(
            {
                "len": REQUEST_HEADER.sizeof() + len(content),
                "opcode": int(operation),
                "unique": unique,
                "nodeid": node,
                "uid": 0,
                "gid": 0,
                "pid": 0,
                "total_extlen": 0,
                "padding": 0,
            }
        )
        header_size = ANSWER_HEADER.sizeof()

        def check(written: bytes, length: int) -> str | None:
            answer = ANSWER_HEADER.parse(written)
            if answer.unique != unique or answer.len != length:
                return f"the answer is {answer.len} bytes to request {answer.unique}, used length {length}"
            if answer.error:
                return f"error {answer.error} for {operation.name}"
            return None if length == header_size + given else f"an answer of {length} bytes"

        return Request(header + content, header_size + room, check, header_size + given)
