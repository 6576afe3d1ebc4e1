"""A vhost-user front end of which each message is the check's own to send."""

import socket
from collections.abc import Sequence
from typing import NoReturn

from spec.layout import struct_of
from spec.vhost_user import (
    CONFIG,
    INFLIGHT,
    LOG,
    MEMORY_TABLE,
    NO_FD,
    SINGLE_REGION,
    U64,
    VRING_ADDRESS,
    VRING_STATE,
    ConfigFlag,
    FrontEndRequest,
    ProtocolFeature,
    VringFlag,
)
from vdev.check.bench.arena import Arena
from vdev.check.bench.control import RingAreas
from vdev.check.bench.conversation import Conversation
from vdev.check.bench.dirty_log import DirtyLog
from vdev.check.bench.guarded_region import GuardedRegion
from vdev.check.bench.inflight_area import InflightArea
from vdev.check.bench.ring_events import RingEvents
from vdev.check.verdict import Failed
from vdev.events import Emitter

__all__ = ["FrontEnd"]

_R = FrontEndRequest
_vring_state = struct_of(VRING_STATE)
_vring_address = struct_of(VRING_ADDRESS)
_INFLIGHT_PADDING = 4
"""Bytes: peers send and expect the C struct as a whole."""


class FrontEnd(Conversation):
    """As `Conversation`, with `memory` to share, and rings.

    Messages that have no reply return what `Conversation.acknowledged` does: true, false if refused, None if closed.
    """

    def __init__(self, sock: socket.socket, memory: Arena, patience: float, events: Emitter) -> None:
        super().__init__(sock, patience, events)
        self._memory = memory
        self._events_of: dict[int, RingEvents] = {}
        self._things: list[DirtyLog | InflightArea] = []

    def close(self) -> None:
        """Close the connection, and every file descriptor that was made or came."""
        super().close()
        for events in self._events_of.values():
            events.close()
        for thing in self._things:
            thing.close()

    # Memory

    def share_memory(self, regions: Sequence[GuardedRegion] | None = None) -> bool | None:
        """SET_MEM_TABLE, with the arena's usual regions or these."""
        regions = self._memory.regions if regions is None else regions
        body = MEMORY_TABLE.build({"region_count": len(regions), "regions": [_region(region) for region in regions]})
        return self.acknowledged(_R.SET_MEM_TABLE, body, [region.fd for region in regions])

    def add_memory(self, region: GuardedRegion) -> bool | None:
        """ADD_MEM_REG."""
        return self.acknowledged(_R.ADD_MEM_REG, SINGLE_REGION.build({"region": _region(region)}), [region.fd])

    def remove_memory(self, region: GuardedRegion, *, fd: bool = False) -> bool | None:
        """REM_MEM_REG, with a file descriptor that does not belong there if asked to."""
        fields = {**_region(region), "mmap_offset": 0}
        return self.acknowledged(_R.REM_MEM_REG, SINGLE_REGION.build({"region": fields}), [region.fd] if fd else [])

    # Rings

    def ring_events(self, number: int) -> RingEvents:
        """Return the eventfds of a ring."""
        return self._events_of.setdefault(number, RingEvents())

    def set_size(self, number: int, size: int) -> bool | None:
        """SET_VRING_NUM."""
        return self.acknowledged(_R.SET_VRING_NUM, _vring_state.pack(number, size))

    def set_base(self, number: int, base: int) -> bool | None:
        """SET_VRING_BASE: 32 bits."""
        return self.acknowledged(_R.SET_VRING_BASE, _vring_state.pack(number, base))

    def set_addresses(self, number: int, areas: RingAreas, *, log: int | None = None) -> bool | None:
        """SET_VRING_ADDR, guest-physical addresses made user addresses; used ring writes are logged at `log`."""
        translate = self._memory.user_address
        body = _vring_address.pack(
            number,
            0 if log is None else int(VringFlag.LOG),
            translate(areas.descriptor),
            translate(areas.device),
            translate(areas.driver),
            log or 0,
        )
        return self.acknowledged(_R.SET_VRING_ADDR, body)

    def set_kick(self, number: int, *, fd: bool = True) -> bool | None:
        """SET_VRING_KICK with a new eventfd, or without any: it starts the ring."""
        return self._set_event(_R.SET_VRING_KICK, number, "kick", fd)

    def set_call(self, number: int, *, fd: bool = True) -> bool | None:
        """SET_VRING_CALL with a new eventfd, whose calls are counted from 0, or without any."""
        return self._set_event(_R.SET_VRING_CALL, number, "call", fd)

    def set_err(self, number: int, *, fd: bool = True) -> bool | None:
        """SET_VRING_ERR with a new eventfd, or without any."""
        return self._set_event(_R.SET_VRING_ERR, number, "error", fd)

    def _set_event(self, request: FrontEndRequest, number: int, which: str, fd: bool) -> bool | None:
        events = self.ring_events(number)
        if not fd:
            events.drop(which)
            return self.acknowledged(request, U64.build({"value": number | NO_FD}))
        return self.acknowledged(request, U64.build({"value": number}), [events.make(which)])

    def enable(self, number: int, on: bool = True) -> bool | None:
        """SET_VRING_ENABLE."""
        return self.acknowledged(_R.SET_VRING_ENABLE, _vring_state.pack(number, int(on)))

    def get_base(self, number: int) -> int:
        """GET_VRING_BASE: stop the ring, and return all 32 bits of where it stood."""
        reply = self.ask_fields(_R.GET_VRING_BASE, _vring_state.pack(number, 0))
        if reply.index != number:
            raise Failed(
                "vhost-user.back-end.base.5",
                expected=f"the base of ring {number}",
                observed=f"an answer that names ring {reply.index}",
            )
        base: int = reply.num
        return base

    def errors(self, number: int) -> int:
        """Return how often the error descriptor of a ring was signalled so far."""
        events = self.ring_events(number)
        events.take()
        return events.error_count

    # Configuration space and status

    def get_config(self, offset: int, size: int, *, flags: int = 0) -> bytes | None:
        """GET_CONFIG; None where the answer has no content. Raises Failed for another layout."""
        message = self.ask(_R.GET_CONFIG, CONFIG.build(_config(offset, bytes(size), flags)))
        message.close()
        if not message.body:
            return None
        fields = self.fields_of(message)
        return bytes(fields.payload) or None

    def set_config(self, offset: int, data: bytes, *, flags: int = ConfigFlag.WRITABLE) -> bool | None:
        """SET_CONFIG."""
        return self.acknowledged(_R.SET_CONFIG, CONFIG.build(_config(offset, data, flags)))

    def get_status(self) -> int:
        """GET_STATUS. Raises NotApplicable unless STATUS is agreed."""
        self.need(ProtocolFeature.STATUS)
        status: int = self.ask_fields(_R.GET_STATUS).value
        return status

    def set_status(self, value: int) -> bool | None:
        """SET_STATUS. Raises NotApplicable unless STATUS is agreed."""
        self.need(ProtocolFeature.STATUS)
        return self.acknowledged(_R.SET_STATUS, U64.build({"value": int(value)}))

    # What outlives a connection

    def dirty_log(self, offset: int = 0) -> DirtyLog:
        """SET_LOG_BASE with a new log that covers all of guest RAM.

        Nothing is marked before LOG_ALL is in `set_features`.
        """
        log = DirtyLog(max(region.end for region in self._memory.regions), offset)
        self._things.append(log)
        # The text gives the answer no payload, and back ends differ in what they put there.
        self.ask(_R.SET_LOG_BASE, LOG.build({"size": log.size, "offset": offset}), [log.fd]).close()
        return log

    def get_inflight(self, queue_count: int, queue_size: int) -> InflightArea:
        """GET_INFLIGHT_FD. Close the area at the end. Raises Failed for an answer without a usable file descriptor."""
        message = self.ask(_R.GET_INFLIGHT_FD, _inflight(0, 0, queue_count, queue_size))
        try:
            fields = self.fields_of(message)
            if len(message.fds) != 1:
                self._fail_inflight(f"{len(message.fds)} file descriptors")
            try:
                area = InflightArea(
                    message.fds[0], fields.mmap_size, fields.mmap_offset, fields.queue_count, fields.queue_size
                )
            except (OSError, ValueError, OverflowError) as error:
                self._fail_inflight(f"{fields.mmap_size} bytes at {fields.mmap_offset:#x}: {error}")
            message.take_fds()
            return area
        finally:
            message.close()

    def _fail_inflight(self, observed: str) -> NoReturn:
        expected = "one file descriptor of an area that can be mapped as described"
        raise Failed("vhost-user.back-end.inflight.1", expected=expected, observed=observed)

    def set_inflight(self, area: InflightArea) -> bool | None:
        """SET_INFLIGHT_FD."""
        body = _inflight(area.mmap_size, area.mmap_offset, area.queue_count, area.queue_size)
        return self.acknowledged(_R.SET_INFLIGHT_FD, body, [area.fd])


def _region(region: GuardedRegion) -> dict[str, int]:
    return {
        "guest_address": region.guest_address,
        "size": region.size,
        "user_address": region.user_address,
        "mmap_offset": region.file_offset,
    }


def _config(offset: int, data: bytes, flags: int) -> dict[str, int | bytes]:
    return {"offset": offset, "size": len(data), "flags": int(flags), "payload": data}


def _inflight(size: int, offset: int, queue_count: int, queue_size: int) -> bytes:
    fields = {"mmap_size": size, "mmap_offset": offset, "queue_count": queue_count, "queue_size": queue_size}
    body: bytes = INFLIGHT.build(fields)
    return body + bytes(_INFLIGHT_PADDING)
