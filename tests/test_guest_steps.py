"""When the guest does what: its rate, and taking turns with its drivers."""

import math

import pytest
from guest_setup import memory_of

from guest_agent.drivers.balloon import HintBehaviour
from guest_agent.kernel import Guest, GuestConfig
from vdev.errors import UserError


def guest_at(rate, **options):
    config = GuestConfig(workload="idle", rate=rate, warm_up=False, **options)
    return Guest.boot(memory_of((0, 512)), None, config)


def live(guest, seconds, start=1000.0):
    """Step as a vCPU would on a clock that is exact."""
    now, end = start, start + seconds
    while now < end:
        now += max(guest.step(now), 1e-7)
    return guest.operation_count


@pytest.mark.parametrize("rate", [1, 10, 500, 4000])
def test_it_does_as_many_operations_as_its_rate_says(rate):
    assert live(guest_at(rate), 2.0) == pytest.approx(2 * rate, rel=0.02, abs=1)


def test_a_rate_of_zero_is_a_guest_without_operations_that_still_wakes_up():
    guest = guest_at(0)
    assert live(guest, 5.0) == 0
    assert 0 < guest.step(2000.0) < 1


def test_a_late_guest_makes_up_for_a_few_operations_only():
    guest = guest_at(100)
    live(guest, 1.0)
    before = guest.operation_count
    for _ in range(50):
        guest.step(2000.0)
    assert 1 <= guest.operation_count - before <= 6


def test_it_says_how_long_it_can_be_left_alone():
    guest = guest_at(2)
    delays = [guest.step(0.0) for _ in range(10)]
    assert guest.operation_count == 1
    assert 0 < delays[-1] <= 0.5


@pytest.mark.parametrize("start", [0.0, 5e8])
def test_a_moved_guest_waits_what_it_had_still_to_wait_on_whatever_clock(start):
    memory = memory_of((0, 512))
    guest = Guest.boot(memory, None, GuestConfig(workload="idle", rate=0.5, warm_up=False))
    for _ in range(5):
        guest.step(77.0)
    guest.step(77.5)
    assert guest.operation_count == 1
    moved = Guest.restore(memory, None, guest.save())
    for seconds in (0.0, 0.5, 1.0, 1.4):
        moved.step(start + seconds)
    assert moved.operation_count == 1
    moved.step(start + 1.51)
    moved.step(start + 1.52)
    assert moved.operation_count == 2


class TestDriversAndWorkload:
    class Driver:
        def __init__(self, pieces):
            self.pieces = pieces
            self.log = []

        def handle_interrupt(self):
            self.log.append("interrupt")

        def housekeep(self, now):
            return math.inf

        def work(self):
            self.log.append("work")
            self.pieces = max(self.pieces - 1, 0)
            return self.pieces > 0

    def test_while_a_driver_has_work_the_guest_wants_to_go_on_at_once(self):
        guest = guest_at(0)
        driver = self.Driver(3)
        guest._devices.drivers.append(driver)
        assert [guest.step(0.0) > 0 for _ in range(3)] == [False, False, True]
        assert driver.log == ["work"] * 3

    def test_an_interrupt_makes_drivers_work(self):
        guest = guest_at(0)
        driver = self.Driver(1)
        guest._devices.drivers.append(driver)
        guest.step(0.0)
        guest.handle_interrupt()
        guest.step(0.01)
        assert driver.log == ["work", "interrupt", "work"]

    def test_memory_that_became_free_is_noticed_without_an_interrupt(self):
        guest = guest_at(0)
        driver = self.Driver(1)
        guest._devices.drivers.append(driver)
        live(guest, 1.0)
        assert 4 <= driver.log.count("work") <= 8

    def test_neither_starves_the_other(self):
        guest = guest_at(1e6)
        driver = self.Driver(10**9)
        guest._devices.drivers.append(driver)
        for n in range(100):
            guest.step(n * 0.001)
        assert 40 <= guest.operation_count <= 60
        assert 40 <= driver.log.count("work") <= 60

    def test_an_interval_is_kept_although_housekeeping_is_less_often(self):
        class Timed(self.Driver):
            def housekeep(self, now):
                self.log.append(now)
                return 0.01

        guest = guest_at(0)
        driver = Timed(0)
        guest._devices.drivers.append(driver)
        now = 0.0
        while now < 0.5:
            now += guest.step(now) or 0.0001
        assert 25 <= len([entry for entry in driver.log if entry != "work"]) <= 35


class TestConfig:
    def test_it_is_json_both_ways(self):
        config = GuestConfig(workload="files", files="/srv", mmio_addresses=(0xFEB0_0000,), poison_value=3)
        assert GuestConfig.from_json(config.to_json()) == config

    def test_how_hints_are_given_reaches_the_drivers_of_the_bus_and_of_slots(self):
        config = GuestConfig.from_json({"hint_answer": "bitmap", "hint_holds": "until-used", "hint_order": 0})
        expected = HintBehaviour.of(answer="bitmap", holds="until-used", order=0)
        assert config.device_options.hint_behaviour == config.slot_options.hint_behaviour == expected

    def test_what_is_not_said_has_its_default(self):
        assert GuestConfig.from_json({"seed": 4}) == GuestConfig(seed=4)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"workload": "sleep"}, "no workload 'sleep'; choose one of idle, churn, files"),
            ({"rate": -1}, "rate of -1"),
            ({"rate": float("nan")}, "rate of nan"),
            ({"seed": -1}, "seed -1"),
            ({"low_water": 0.9}, "water marks"),
            ({"poison_value": 1 << 32}, "32 bits"),
            ({"numbering": "roman"}, "numbering 'roman'"),
            ({"hint_answer": "poem"}, "answer 'poem'; choose one of list, bitmap"),
            ({"hint_holds": "for ever"}, "holds 'for ever'; choose one of nothing, until-queued, until-used"),
            ({"hint_order": 11}, "order 11; give 0 to 10"),
            ({"hint_batch": "many"}, "wrong kind"),
            ({"colour": 1}, "no setting colour"),
            ({"rate": "fast"}, "wrong kind"),
        ],
    )
    def test_what_makes_no_sense_is_the_users_to_change(self, settings, message):
        with pytest.raises(UserError, match=message):
            GuestConfig.from_json(settings)
