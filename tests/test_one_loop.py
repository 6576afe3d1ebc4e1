"""A whole migration in one loop: the same seed gives the same run, and the guest never loses a page."""

import json
from collections import Counter

import pytest

from spec.device import Feature
from vdev.device_queues import DeviceQueues
from vdev.events import EventStream, record_to_json
from vdev.run.one_loop import migrate
from vdev.run.options import MigrateOptions
from vdev.run.report import Outcome, Report

MIB = 1 << 20


def run(options: MigrateOptions, cut_link_after: int | None = None) -> tuple[Report, list[str]]:
    lines: list[str] = []
    events = EventStream(lambda: 0.0)
    events.subscribe(lambda record: lines.append(json.dumps(record_to_json(record))))
    report = migrate(options, events=events, on_progress=lambda _: None, cut_link_after=cut_link_after)
    return report, lines


@pytest.mark.parametrize("seed", range(20))
def test_the_same_seed_gives_the_same_trace_and_a_guest_that_lost_nothing(seed):
    options = MigrateOptions(ram_size=16 * MIB, workload="churn", rate=1000.0, seed=seed)
    report, trace = run(options)
    again, trace_again = run(options)
    assert trace == trace_again
    assert report.to_json() == again.to_json()
    assert report.outcome is Outcome.COMPLETED
    assert report.verified.mismatched == 0
    assert report.verified.pages > 0
    assert report.verified.resumed_operations > 0
    assert report.pages.skipped > 0


def test_different_seeds_give_different_traces():
    traces = {tuple(run(MigrateOptions(ram_size=16 * MIB, seed=seed))[1]) for seed in range(5)}
    assert len(traces) == 5


@pytest.mark.parametrize("workload", ["idle", "churn", "files"])
@pytest.mark.parametrize("strategy", ["none", "command-id"])
def test_every_workload_moves_under_every_strategy(workload, strategy, tmp_path):
    for number in range(20):
        (tmp_path / f"file {number}").write_bytes(bytes([number + 1]) * (10_000 * number + 1))
    files = tmp_path if workload == "files" else None
    options = MigrateOptions(ram_size=32 * MIB, workload=workload, files=files, strategy=strategy)
    report, _ = run(options)
    assert report.outcome is Outcome.COMPLETED
    assert report.verified.mismatched == 0
    assert report.verified.resumed_operations > 0
    assert (report.pages.skipped > 0) == (strategy == "command-id")
    moved = report.pages.sent + report.pages.zero - report.pages.resent
    assert moved + report.pages.skipped == report.pages.total


@pytest.mark.parametrize("in_order", [False, True])
@pytest.mark.parametrize("ring", ["split", "packed"])
@pytest.mark.parametrize("seed", range(2))
def test_a_guest_moves_with_rings_of_either_format(ring, in_order, seed, monkeypatch):
    features = set()
    real = DeviceQueues.enable
    monkeypatch.setattr(DeviceQueues, "enable", lambda *arguments: (features.add(arguments[-1]), real(*arguments)))
    options = MigrateOptions(ram_size=16 * MIB, rate=2000.0, seed=seed, ring=ring, in_order=in_order)
    report, _ = run(options)
    assert report.outcome is Outcome.COMPLETED
    assert report.verified.mismatched == 0
    assert report.verified.resumed_operations > 0
    assert report.pages.skipped > 0
    [negotiated] = features
    assert bool(negotiated >> Feature.RING_PACKED & 1) == (ring == "packed")
    assert bool(negotiated >> Feature.IN_ORDER & 1) == in_order


def test_skipped_pages_are_bytes_that_do_not_travel():
    hinted, _ = run(MigrateOptions(ram_size=32 * MIB))
    plain, _ = run(MigrateOptions(ram_size=32 * MIB, strategy="none"))
    assert hinted.wire_bytes < plain.wire_bytes


@pytest.mark.parametrize("ram_pages", [1024, 1537, 4096 + 13, 8191])
def test_odd_amounts_of_ram_move(ram_pages):
    report, _ = run(MigrateOptions(ram_size=ram_pages * 4096))
    assert report.outcome is Outcome.COMPLETED
    assert report.verified.mismatched == 0
    assert report.pages.total == ram_pages


def test_without_ioeventfds_every_kick_is_an_exit():
    report, trace = run(MigrateOptions(ram_size=32 * MIB, ioeventfd=False))
    kinds = Counter(json.loads(line)["event"] for line in trace)
    assert report.outcome is Outcome.COMPLETED
    assert report.pages.skipped > 0
    assert kinds["Kick"] == 0
    assert kinds["ChainsPopped"] > 0


def test_inflated_pages_go_back_to_the_operating_system_and_stay_out_of_the_way():
    report, _ = run(MigrateOptions(ram_size=64 * MIB, inflate_size=8 * MIB))
    assert report.outcome is Outcome.COMPLETED
    assert report.verified.mismatched == 0
    assert report.memory["inflated_pages"] == 2048
    assert report.memory["inflation_returned_bytes"] > 0


def test_reported_pages_go_back_to_the_operating_system():
    with_reports, _ = run(MigrateOptions(ram_size=64 * MIB, free_page_reporting=True))
    without, _ = run(MigrateOptions(ram_size=64 * MIB))
    assert with_reports.outcome is Outcome.COMPLETED
    assert with_reports.verified.mismatched == 0
    assert with_reports.memory["reporting_returned_bytes"] > 0
    assert with_reports.memory["source_resident_bytes"] < without.memory["source_resident_bytes"]


def test_a_slow_link_takes_more_rounds_and_loses_nothing():
    report, _ = run(MigrateOptions(ram_size=32 * MIB, rate=1000.0, max_bandwidth=50 * MIB, downtime_limit=0.01))
    assert report.outcome is Outcome.COMPLETED
    assert report.verified.mismatched == 0
    assert report.converged
    assert len(report.rounds) > 4
    assert report.pages.resent > 0


def test_a_guest_that_outruns_the_link_is_stopped_in_the_end():
    report, _ = run(MigrateOptions(ram_size=4 * MIB, rate=1000.0, max_bandwidth=16 * MIB, downtime_limit=0.0))
    assert report.outcome is Outcome.COMPLETED
    assert report.verified.mismatched == 0
    assert not report.converged


@pytest.mark.parametrize("part", [0.0, 0.001, 0.1, 0.3, 0.5, 0.8, 0.95, 0.99, 0.9999, 1.0])
def test_a_cut_link_leaves_the_guest_running_at_the_source(part):
    whole, _ = run(MigrateOptions(ram_size=16 * MIB, seed=3))
    # All bytes but the last record, COMMIT: once that has begun to leave, the guest is no longer the source's.
    last_before_commit = whole.wire_bytes - 24
    report, trace = run(MigrateOptions(ram_size=16 * MIB, seed=3), cut_link_after=int(part * last_before_commit))
    assert report.outcome is Outcome.DESTINATION_LOST
    assert report.exit_status == 3
    assert report.error
    assert report.verified_at == "source"
    assert report.verified.mismatched == 0
    assert report.verified.pages > 0
    assert report.verified.resumed_operations > 0
    states = [json.loads(line) for line in trace if '"HintStateChanged"' in line]
    assert states[-1]["after"] == "DONE"
    assert sum(state["after"] == "DONE" for state in states) == 1


def test_guest_ram_above_4_gib_would_lie_behind_the_hole():
    from vdev.run.shape import ram_regions

    assert ram_regions(5 << 30) == ((0, 3 << 30), (4 << 30, 2 << 30))


@pytest.mark.parametrize("where", ["source", "destination"])
def test_a_guest_that_stumbles_over_its_own_memory_is_said_to_have_died(where, monkeypatch):
    from guest_agent.errors import GuestCorruption
    from guest_agent.kernel import Guest
    from vdev.run import one_loop

    class Stumbling(Guest):
        def step(self, now: float) -> float:
            moved = self._resumed_at is not None
            if moved == (where == "destination") and self.operation_count > 50:
                raise GuestCorruption("page 7 is in two lists", 7)
            return super().step(now)

    monkeypatch.setattr(one_loop, "Guest", Stumbling)
    report, _ = run(MigrateOptions(ram_size=16 * MIB))
    assert report.outcome is Outcome.GUEST_DIED
    assert report.exit_status == 4
    assert "page 7 is in two lists" in (report.error or "")
    assert ("destination" in (report.error or "")) == (where == "destination")


@pytest.mark.parametrize("strategy", ["none", "command-id"])
def test_ram_in_two_regions_moves(strategy, monkeypatch):
    from vdev.run import shape

    regions = ((0, 12 * MIB + 4096), (4 << 30, 20 * MIB))
    monkeypatch.setattr(shape, "ram_regions", lambda size: regions)
    report, _ = run(MigrateOptions(ram_size=32 * MIB + 4096, strategy=strategy))
    assert report.outcome is Outcome.COMPLETED
    assert report.verified.mismatched == 0
    assert report.pages.total == 8193
    assert (report.pages.skipped > 0) == (strategy == "command-id")
