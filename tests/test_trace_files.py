"""A trace holds every event, in a form that its readers can read back."""

import json
import sys
import tracemalloc
from functools import partial
from itertools import repeat
from pathlib import Path

import pytest
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackEvent

from vdev.errors import UserError
from vdev.events import (
    SILENT,
    Call,
    CallHandled,
    ChainsMadeAvailable,
    DeviceStatusChanged,
    DirtyLogSynced,
    EventStream,
    Kick,
    KickHandled,
    PhaseChanged,
    Record,
    StatisticsReceived,
    VcpuPaused,
    VcpuResumed,
)
from vdev.trace import open_trace, read_json_lines

RECORDS = [
    Record(0.0, "migrator", PhaseChanged("set-up", "bulk")),
    Record(0.25, "guest", ChainsMadeAvailable(3, (1, 2, 5))),
    Record(0.25, "guest", Kick(3, 1)),
    Record(0.5, "guest", Kick(3, 2)),
    Record(0.75, "host", KickHandled(3, 1, 2)),
    Record(1.0, "host", Call("balloon", 1)),
    Record(1.0, "guest", CallHandled("balloon", 1, 1)),
    Record(1.5, "migrator", DirtyLogSynced(1, 40, 25)),
    Record(1.75, "guest", StatisticsReceived(((1, 2), (3, 1 << 63)))),
    Record(2.0, "migrator", PhaseChanged("bulk", "stop-and-copy")),
    Record(2.0, "guest", VcpuPaused()),
    Record(2.25, "guest", VcpuResumed()),
    Record(2.5, "host", DeviceStatusChanged("balloon", 0, 15)),
]


def write(path: Path, records=RECORDS) -> Path:
    with open_trace(path) as trace:
        for record in records:
            trace(record)
    assert trace.problem is None
    return path


def packets_of(path: Path):
    trace = Trace()
    trace.ParseFromString(path.read_bytes())
    return list(trace.packet)


class PerfettoView:
    """A Perfetto trace as its reader sees it: events by track name."""

    def __init__(self, path: Path) -> None:
        packets = packets_of(path)
        self.descriptors = {
            p.track_descriptor.uuid: p.track_descriptor for p in packets if p.HasField("track_descriptor")
        }
        self.events = [(p.timestamp, p.track_event) for p in packets if p.HasField("track_event")]

    def full_name(self, uuid: int) -> str:
        descriptor = self.descriptors[uuid]
        parent = descriptor.parent_uuid
        return f"{self.full_name(parent)}/{descriptor.name}" if parent else descriptor.name

    def on(self, track: str):
        return [(time, event) for time, event in self.events if self.full_name(event.track_uuid) == track]


def test_json_lines_read_back_as_the_records_that_were_written(tmp_path):
    assert list(read_json_lines(write(tmp_path / "t.jsonl"))) == RECORDS


def test_equal_runs_give_equal_bytes(tmp_path):
    for suffix in ("jsonl", "pftrace"):
        one, two = write(tmp_path / f"1.{suffix}"), write(tmp_path / f"2.{suffix}")
        assert one.read_bytes() == two.read_bytes()


def test_every_json_line_starts_with_time_actor_and_event(tmp_path):
    for line in write(tmp_path / "t").read_text().splitlines():
        assert list(json.loads(line))[:3] == ["time", "actor", "event"]


def test_a_record_of_a_later_version_is_refused(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"time":0.0,"actor":"guest","event":"Teleported"}\n')
    with pytest.raises(KeyError, match="Teleported"):
        list(read_json_lines(path))


def test_each_actor_has_a_named_track_with_its_events_as_instants(tmp_path):
    view = PerfettoView(write(tmp_path / "t.pftrace"))
    for actor in ("guest", "host", "migrator"):
        expected = [(round(r.time * 1e9), type(r.event).__name__) for r in RECORDS if r.actor == actor]
        instants = view.on(f"vdev/{actor}")
        assert [(time, event.name) for time, event in instants] == expected
        assert {event.type for _, event in instants} == {TrackEvent.TYPE_INSTANT}


def test_an_event_carries_its_fields_as_arguments(tmp_path):
    view = PerfettoView(write(tmp_path / "t.pftrace"))
    by_name = {event.name: {a.name: a for a in event.debug_annotations} for _, event in view.events if event.name}
    assert by_name["DeviceStatusChanged"]["device"].string_value == "balloon"
    assert by_name["DeviceStatusChanged"]["after"].uint_value == 15
    assert [item.uint_value for item in by_name["ChainsMadeAvailable"]["heads"].array_values] == [1, 2, 5]
    pairs = by_name["StatisticsReceived"]["values"].array_values
    assert [[item.uint_value for item in pair.array_values] for pair in pairs] == [[1, 2], [3, 1 << 63]]


def test_arrows_lead_from_each_kick_and_call_to_its_handling(tmp_path):
    view = PerfettoView(write(tmp_path / "t.pftrace"))
    kicks = [event.flow_ids[0] for _, event in view.events if event.name == "Kick"]
    (handled,) = [list(event.terminating_flow_ids) for _, event in view.events if event.name == "KickHandled"]
    (call,) = [list(event.flow_ids) for _, event in view.events if event.name == "Call"]
    (called,) = [list(event.terminating_flow_ids) for _, event in view.events if event.name == "CallHandled"]
    assert handled == kicks
    assert called == call
    assert len({*kicks, *call}) == 3


def test_arrows_do_not_depend_on_which_process_reports_first(tmp_path):
    tail, head = Record(1.0, "guest", Kick(0, 7)), Record(2.0, "host", KickHandled(0, 7, 7))
    for order in ([tail, head], [head, tail]):
        view = PerfettoView(write(tmp_path / "t.pftrace", order))
        flows = {event.name: event for _, event in view.events}
        assert list(flows["Kick"].flow_ids) == list(flows["KickHandled"].terminating_flow_ids)


def test_no_arrow_leads_from_one_guest_of_a_migration_to_the_other(tmp_path):
    records = [Record(1.0, "guest", Kick(0, 1)), Record(2.0, "destination", KickHandled(0, 1, 1))]
    view = PerfettoView(write(tmp_path / "t.pftrace", records))
    flows = {event.name: event for _, event in view.events}
    assert list(flows["Kick"].flow_ids) != list(flows["KickHandled"].terminating_flow_ids)


def test_the_parts_of_a_machine_lie_below_it(tmp_path):
    view = PerfettoView(write(tmp_path / "t.pftrace", [Record(1.0, "destination/balloon", Kick(0, 1))]))
    assert len(view.on("vdev/destination/balloon")) == 1


def test_a_doorbell_that_claims_2_to_the_64_kicks_does_not_fill_the_trace(tmp_path):
    path = write(tmp_path / "t.pftrace", [Record(0.0, "host", KickHandled(0, 1, (1 << 64) - 2))])
    assert path.stat().st_size < 100_000


def test_phases_and_vcpu_pauses_are_slices_that_begin_and_end(tmp_path):
    view = PerfettoView(write(tmp_path / "t.pftrace"))
    begin, end = TrackEvent.TYPE_SLICE_BEGIN, TrackEvent.TYPE_SLICE_END
    assert [(time, e.type, e.name) for time, e in view.on("vdev/migrator/phases")] == [
        (0, begin, "bulk"),
        (2_000_000_000, end, ""),
        (2_000_000_000, begin, "stop-and-copy"),
        (2_500_000_000, end, ""),
    ]
    assert [(time, e.type, e.name) for time, e in view.on("vdev/guest/vCPU")] == [
        (2_000_000_000, begin, "paused"),
        (2_250_000_000, end, ""),
        (2_250_000_000, begin, "running"),
        (2_500_000_000, end, ""),
    ]


def test_dirty_and_remaining_pages_are_counters(tmp_path):
    view = PerfettoView(write(tmp_path / "t.pftrace"))
    for track, value in (("dirty pages", 40), ("remaining pages", 25)):
        ((time, event),) = view.on(f"vdev/migrator/{track}")
        assert (time, event.type, event.counter_value) == (1_500_000_000, TrackEvent.TYPE_COUNTER, value)
        assert view.descriptors[event.track_uuid].HasField("counter")


def test_a_trace_is_on_disk_while_the_run_goes_on(tmp_path):
    for suffix in ("jsonl", "pftrace"):
        path = tmp_path / f"t.{suffix}"
        with open_trace(path) as trace:
            for number in range(2000):
                trace(Record(number / 1000, "guest", Kick(0, number)))
            size_meanwhile = path.stat().st_size
        assert size_meanwhile > path.stat().st_size / 2


def test_a_full_disk_silences_the_trace_and_not_the_run(tmp_path):
    for suffix in ("jsonl", "pftrace"):
        path = tmp_path / f"t.{suffix}"
        path.symlink_to("/dev/full")
        stream = EventStream(lambda: 0.0)
        with open_trace(path) as trace:
            stream.subscribe(trace)
            emitter = stream.emitter("guest")
            for number in range(2000):
                emitter.emit(Kick(0, number))
        assert trace.problem == f"the trace {path} is incomplete: No space left on device"


def test_a_trace_that_cannot_be_created_is_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"cannot write the trace .*: No such file or directory"):
        open_trace(tmp_path / "missing" / "t.jsonl")


def test_a_step_that_nobody_listens_to_allocates_nothing():
    heard_stream = EventStream(lambda: 0.0)
    heard_stream.subscribe(lambda record: None)

    def steps(count, events):
        for _ in repeat(None, count):
            if events.listening:
                events.emit(Kick(0, 1))

    def peak_size(run):
        run()
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        run()
        return tracemalloc.get_traced_memory()[1] - before

    unheard = EventStream(lambda: 0.0).emitter("guest")
    heard = heard_stream.emitter("guest")
    runs = [
        partial(steps, 0, SILENT),
        partial(steps, 1000, SILENT),
        partial(steps, 1000, unheard),
        partial(steps, 9, heard),
    ]
    tracemalloc.start()
    try:
        none, silent_steps, unheard_steps, heard_steps = [peak_size(run) for run in runs]
    finally:
        tracemalloc.stop()
    assert silent_steps == unheard_steps == none
    assert heard_steps >= none + sys.getsizeof(Kick(0, 1))
