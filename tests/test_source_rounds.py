"""The table of phases and the decision when to stop the guest."""

import pytest

from host_migrator.rounds import PHASES, Decision, Limits, Phase, RateMeter, decide, expected_downtime


def test_every_phase_can_be_reached_and_every_running_phase_can_fail():
    reached = {Phase.NEW}
    for _ in PHASES:
        reached |= {following for phase in reached for following in PHASES[phase]}
    assert reached == set(Phase)
    running = set(Phase) - {Phase.NEW, Phase.COMPLETED, Phase.FAILED}
    assert all(Phase.FAILED in PHASES[phase] for phase in running)


def test_the_guest_is_stopped_when_the_rest_fits_the_downtime_limit_exactly():
    limits = Limits(downtime=0.3)
    assert decide(limits, 300, 4096 * 1000, 1) is Decision.STOP
    assert decide(limits, 301, 4096 * 1000, 1) is Decision.ANOTHER_ROUND


def test_the_guest_is_stopped_when_rounds_run_out():
    assert decide(Limits(max_rounds=3), 10**9, 1e6, 2) is Decision.ANOTHER_ROUND
    assert decide(Limits(max_rounds=3), 10**9, 1e6, 3) is Decision.STOP_UNCONVERGED


def test_an_unknown_bandwidth_promises_nothing_and_no_pages_take_no_time():
    assert expected_downtime(1, 0.0) == float("inf")
    assert expected_downtime(0, 0.0) == 0.0


@pytest.mark.parametrize("bad", [{"bandwidth": 0.0}, {"downtime": -1.0}, {"max_rounds": 0}])
def test_limits_that_make_no_sense_are_refused(bad):
    with pytest.raises(ValueError, match="limit"):
        Limits(**bad)


def test_a_short_pass_does_not_replace_a_telling_one():
    meter = RateMeter()
    meter.add(1000, 0.001)
    meter.end_pass(1000, 0.001)
    assert meter.bytes_per_second == 1_000_000
    meter.add(2000, 0.5)
    meter.end_pass(2000, 0.5)
    assert meter.bytes_per_second == 4000
    meter.add(10**9, 0.05)
    meter.end_pass(10**9, 0.05)
    assert meter.bytes_per_second == 4000


def test_a_pass_of_zero_pages_is_measured_only_when_there_is_nothing_better():
    meter = RateMeter()
    meter.end_pass(500, 1.0)
    assert meter.bytes_per_second == 500
