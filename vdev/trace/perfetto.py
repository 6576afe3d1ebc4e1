"""Perfetto's native trace: open it at https://ui.perfetto.dev or with `trace_processor`.

One track per actor holds every event as an instant with its fields as arguments; a machine's parts lie below it.
Arrows lead from a kick or a call to the wake-up that handled it. Below the actor's track come its slices (the
migration's phases, the vCPU's pauses) and its counters (dirty and remaining pages). Packets are written one by one;
nothing of the trace stays in memory.
"""

from collections.abc import Iterator
from dataclasses import fields
from typing import IO, Any

from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import TrackDescriptor, TrackEvent
from perfetto.trace_builder.proto_builder import StreamingTraceProtoBuilder

from vdev.events import (
    Call,
    CallHandled,
    DirtyLogSynced,
    Event,
    Kick,
    KickHandled,
    PhaseChanged,
    Record,
    VcpuPaused,
    VcpuResumed,
)

__all__ = ["PerfettoWriter"]

_ROOT_TRACK = 1
_SEQUENCE = 1
_ARROWS_PER_WAKE_UP = 4096
"""A hostile doorbell can claim 2**64 kicks; an arrow for each of the last ones is enough for a reader."""

_PHASES = "phases"
_VCPU = "vCPU"


class PerfettoWriter:
    """Writes records as packets of one Perfetto trace to a binary file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._builder = StreamingTraceProtoBuilder(file)
        self._tracks: dict[tuple[str, str], int] = {}
        self._open_slices: set[int] = set()
        self._bells: dict[tuple[str, str, int | str], int] = {}
        self._last_time = 0
        self._write_track(_ROOT_TRACK, "vdev", parent=None, rank=0)

    def write(self, record: Record) -> None:
        """Append one record. Raises OSError when the file cannot take it."""
        time = round(record.time * 1_000_000_000)
        self._last_time = max(self._last_time, time)
        self._write_instant(time, record.actor, record.event)
        match record.event:
            case PhaseChanged(after=after):
                self._replace_slice(time, self._track(record.actor, _PHASES), after)
            case VcpuPaused():
                self._replace_slice(time, self._track(record.actor, _VCPU), "paused")
            case VcpuResumed():
                self._replace_slice(time, self._track(record.actor, _VCPU), "running")
            case DirtyLogSynced(dirty_count=dirty_count, remaining_count=remaining_count):
                self._write_counter(time, self._track(record.actor, "dirty pages", counter=True), dirty_count)
                self._write_counter(time, self._track(record.actor, "remaining pages", counter=True), remaining_count)

    def finish(self) -> None:
        """End the slices that are still open, at the time of the last record."""
        for track in sorted(self._open_slices):
            self._end_slice(self._last_time, track)

    def _track(self, actor: str, part: str = "", *, counter: bool = False) -> int:
        key = (actor, part)
        if key in self._tracks:
            return self._tracks[key]
        machine, _, name = actor.rpartition("/")
        if part:
            parent, name = self._track(actor), part
        else:
            parent = self._track(machine) if machine else _ROOT_TRACK
        uuid = self._tracks[key] = _ROOT_TRACK + 1 + len(self._tracks)
        self._write_track(uuid, name, parent=parent, rank=uuid, counter=counter)
        return uuid

    def _write_track(self, uuid: int, name: str, *, parent: int | None, rank: int, counter: bool = False) -> None:
        packet = self._builder.create_packet()
        track = packet.track_descriptor
        track.uuid = uuid
        track.name = name
        track.child_ordering = TrackDescriptor.EXPLICIT
        track.sibling_order_rank = rank
        if parent is not None:
            track.parent_uuid = parent
        if counter:
            track.counter.unit_name = "pages"
        self._builder.write_packet(packet)

    def _write_instant(self, time: int, actor: str, event: Event) -> None:
        packet, track_event = self._track_event(time, self._track(actor), TrackEvent.TYPE_INSTANT)
        track_event.name = type(event).__name__
        for field in fields(event):
            annotation = track_event.debug_annotations.add()
            annotation.name = field.name
            _set_value(annotation, getattr(event, field.name))
        # Both guests of a migration count from 1: an arrow must not lead from one machine to the other.
        side = "destination" if actor.split("/")[0] == "destination" else "source"
        match event:
            case Kick(queue=queue, number=number):
                track_event.flow_ids.extend(self._arrows((side, "kick", queue), number, number))
            case KickHandled(queue=queue, first=first, last=last):
                track_event.terminating_flow_ids.extend(self._arrows((side, "kick", queue), first, last))
            case Call(device=device, number=number):
                track_event.flow_ids.extend(self._arrows((side, "call", device), number, number))
            case CallHandled(device=device, first=first, last=last):
                track_event.terminating_flow_ids.extend(self._arrows((side, "call", device), first, last))
        self._builder.write_packet(packet)

    def _arrows(self, bell_name: tuple[str, str, int | str], first: int, last: int) -> Iterator[int]:
        """Yield the flow id of each ring of one bell.

        The id depends on the bell and the number only: records of two processes may arrive in either order.
        """
        bell = self._bells.setdefault(bell_name, len(self._bells) + 1)
        for number in range(max(first, last - _ARROWS_PER_WAKE_UP + 1), last + 1):
            yield (bell << 48 | number & (1 << 48) - 1) & (1 << 64) - 1

    def _replace_slice(self, time: int, track: int, name: str) -> None:
        if track in self._open_slices:
            self._end_slice(time, track)
        self._open_slices.add(track)
        packet, track_event = self._track_event(time, track, TrackEvent.TYPE_SLICE_BEGIN)
        track_event.name = name
        self._builder.write_packet(packet)

    def _end_slice(self, time: int, track: int) -> None:
        self._open_slices.discard(track)
        packet, _ = self._track_event(time, track, TrackEvent.TYPE_SLICE_END)
        self._builder.write_packet(packet)

    def _write_counter(self, time: int, track: int, value: int) -> None:
        packet, track_event = self._track_event(time, track, TrackEvent.TYPE_COUNTER)
        track_event.counter_value = value
        self._builder.write_packet(packet)

    def _track_event(self, time: int, track: int, kind: int) -> tuple[Any, Any]:
        packet = self._builder.create_packet()
        packet.timestamp = time
        packet.trusted_packet_sequence_id = _SEQUENCE
        packet.track_event.type = kind
        packet.track_event.track_uuid = track
        return packet, packet.track_event


def _set_value(annotation: Any, value: Any) -> None:
    match value:
        case bool():
            annotation.bool_value = value
        case int() if 0 <= value < 1 << 64:
            annotation.uint_value = value
        case int() if -1 << 63 <= value < 0:
            annotation.int_value = value
        case float():
            annotation.double_value = value
        case tuple():
            for item in value:
                _set_value(annotation.array_values.add(), item)
        case _:
            annotation.string_value = str(value)
