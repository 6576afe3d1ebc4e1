"""What a run makes of what checks say, and of what becomes of the target."""

import pytest

from spec.device import Feature
from vdev.check import run as run_module
from vdev.check.plan import Case
from vdev.check.registry import ANY_FORMAT, Check, RingFormat
from vdev.check.run import Listener, judge, run_cases
from vdev.check.target import ConnectionClosed, Ending, TargetGone
from vdev.check.target_registers import RegistersTarget
from vdev.check.target_thread import ThreadTarget
from vdev.check.verdict import TargetCrashed, TargetHung, Verdict
from vdev.devices.entropy import EntropyDevice
from vdev.devices.kind import Carrier
from vdev.errors import BackEndViolation

STATEMENT = "entropy.device.operation.1"
OTHER = "split.device.used-ring.1"
MEMORY = "hostile.device.memory"


def case_of(run, *, covers=(STATEMENT,), hostile=False, name="a.check", not_applicable=""):
    check = Check(
        name=name,
        covers=covers,
        summary="It is so.",
        run=run,
        formats=ANY_FORMAT,
        carriers=frozenset(Carrier),
        types=None,
        features=(),
        protocol_features=(),
        hostile=hostile,
        writes=False,
    )
    return Case(check, "", RingFormat.SPLIT, not_applicable)


class Scripted(RegistersTarget):
    """A device in this process of which is said afterwards what stands in a list."""

    def __init__(self, *endings, make=EntropyDevice, can_restart=True):
        super().__init__(make)
        self.endings = list(endings)
        self.can_restart = can_restart
        self.restart_count = 0

    def settle(self):
        ending = self.endings.pop(0) if self.endings else None
        if isinstance(ending, Exception):
            raise ending
        return ending

    def restart(self):
        self.restart_count += 1
        return self.can_restart


def run(*cases, target=None, **options):
    target = target or Scripted()
    try:
        return run_cases(target, cases, type_name="entropy", **options)
    finally:
        target.close()


def verdicts(report):
    return [case.verdict for case in report.cases]


def passes(bench):
    bench.start()
    bench.exchange(bench.ring())


def raising(error):
    def check(bench):
        raise error

    return check


CRASH = Ending(is_crash=True, why="its process was killed by SIGSEGV", last_words="oh\nno")


def test_a_check_that_returns_has_passed():
    (result,) = run(case_of(passes)).cases
    assert (result.verdict, result.statement, result.why) == (Verdict.PASS, None, "")
    assert result.evidence.done
    assert result.evidence.events
    assert 0 <= result.evidence.events[0].time < 60


def test_a_failure_says_which_statement_what_and_why():
    def check(bench):
        bench.done("look")
        bench.fail(OTHER, expected="1", observed="2")

    (result,) = run(case_of(check, covers=(STATEMENT, OTHER))).cases
    assert (result.verdict, result.statement) == (Verdict.FAIL, OTHER)
    assert (result.evidence.expected, result.evidence.observed) == ("1", "2")
    assert "look" in result.evidence.done
    assert result.verdict_for(STATEMENT) is Verdict.INCONCLUSIVE


def test_a_check_may_say_that_it_cannot_say():
    def unsure(bench):
        bench.inconclusive("too slow")

    def not_meant(bench):
        bench.not_applicable("no such thing")

    report = run(case_of(unsure), case_of(not_meant))
    assert [(case.verdict, case.why) for case in report.cases] == [
        (Verdict.INCONCLUSIVE, "too slow"),
        (Verdict.NOT_APPLICABLE, "no such thing"),
    ]


def test_what_does_not_apply_is_not_done():
    (result,) = run(case_of(raising(AssertionError()), not_applicable="no reason")).cases
    assert (result.verdict, result.why) == (Verdict.NOT_APPLICABLE, "no reason")


def test_a_closed_connection_is_no_failure_if_the_target_lives():
    (result,) = run(case_of(raising(ConnectionClosed("closed at X")))).cases
    assert (result.verdict, result.why) == (Verdict.INCONCLUSIVE, "closed at X")


def test_a_closed_connection_is_a_crash_if_the_target_died():
    (result,) = run(case_of(raising(ConnectionClosed("closed at X"))), target=Scripted(CRASH)).cases
    assert (result.verdict, result.why) == (Verdict.CRASHED, CRASH.why)
    assert "besides: closed at X" in result.evidence.done
    assert "oh / no" in result.evidence.observed


def test_a_death_after_a_check_that_passed_is_a_crash_and_the_run_goes_on():
    target = Scripted(CRASH)
    report = run(case_of(passes), case_of(passes), target=target)
    assert verdicts(report) == [Verdict.CRASHED, Verdict.PASS]
    assert target.restart_count == 1
    assert not report.stopped


def test_a_failure_is_graver_than_the_crash_that_follows():
    def check(bench):
        bench.fail(STATEMENT, expected="1", observed="2")

    (result,) = run(case_of(check), target=Scripted(CRASH)).cases
    assert result.verdict is Verdict.FAIL
    assert f"besides: {CRASH.why}" in result.evidence.done


def test_an_end_that_is_no_crash_is_only_noted():
    (result,) = run(case_of(passes), target=Scripted(Ending(False, "its process ended with status 1"))).cases
    assert result.verdict is Verdict.PASS
    assert "its process ended with status 1" in result.evidence.done


def test_a_target_that_hangs_is_started_again():
    target = Scripted()
    report = run(case_of(raising(TargetHung("no answer within 5 s"))), case_of(passes), target=target)
    assert verdicts(report) == [Verdict.HUNG, Verdict.PASS]
    assert target.restart_count == 1


def test_a_target_that_hangs_afterwards_is_hung():
    report = run(case_of(passes), case_of(passes), target=Scripted(TargetHung("no answer within 5 s")))
    assert verdicts(report) == [Verdict.HUNG, Verdict.PASS]


def test_a_target_that_hung_once_and_answers_the_next_driver_is_judged_on():
    target = Scripted(can_restart=False)
    report = run(case_of(raising(TargetHung("no answer"))), case_of(passes), target=target)
    assert verdicts(report) == [Verdict.HUNG, Verdict.PASS]


@pytest.mark.parametrize("ending", [CRASH, TargetHung("no answer")])
def test_when_nobody_can_start_it_again_the_rest_is_inconclusive(ending):
    report = run(case_of(passes), case_of(passes), case_of(passes), target=Scripted(ending, can_restart=False))
    assert verdicts(report)[1:] == [Verdict.INCONCLUSIVE] * 2
    assert "not there any more" in report.stopped
    assert report.cases[2].why == report.stopped
    assert not report.interrupted


def test_a_target_that_hangs_again_and_again_is_left():
    hangs = case_of(raising(TargetHung("no answer")))
    report = run(*[hangs] * 3, case_of(passes), *[hangs] * 7)
    assert verdicts(report)[-3:] == [Verdict.HUNG, Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE]
    assert report.stopped == "the target hung 5 times one after the other"


def test_a_target_that_hangs_for_long_in_all_is_left(monkeypatch):
    monkeypatch.setattr(run_module, "MOST_HUNG_PATIENCES", 0)
    report = run(case_of(raising(TargetHung("no answer"))), case_of(passes))
    assert verdicts(report) == [Verdict.HUNG, Verdict.INCONCLUSIVE]
    assert "s in all" in report.stopped


def test_who_is_gone_after_a_case_does_not_change_its_verdict():
    report = run(case_of(passes), case_of(passes), target=Scripted(TargetGone("ends with its driver")))
    assert verdicts(report) == [Verdict.PASS, Verdict.INCONCLUSIVE]
    assert report.stopped == "ends with its driver"


def test_an_exception_of_the_device_is_a_crash():
    class Raising(EntropyDevice):
        def handle_queue(self, number):
            raise IndexError(number)

    (result,) = run(case_of(passes), target=Scripted(make=Raising)).cases
    assert result.verdict is Verdict.CRASHED
    assert "IndexError" in result.why


def test_an_error_in_a_check_is_not_the_devices():
    with pytest.raises(ZeroDivisionError):
        run(case_of(lambda bench: 1 // 0))


def test_a_message_that_is_none_breaks_the_rule_of_messages():
    (result,) = run(case_of(raising(BackEndViolation("Header", "version 7")))).cases
    assert result.verdict is Verdict.FAIL
    assert result.statement == "vhost-user.back-end.reply.1"
    assert result.statement in result.covers


class Overflowing(EntropyDevice):
    """Writes a byte more than there is room for."""

    def handle_queue(self, number):
        for chain in self.chains(number):
            chain.write(self.memory, bytes(chain.writable_size))
            address, size = chain.writable[-1]
            self.memory.write(address + size, b"!")
            self.queues[number].push(chain.head, chain.writable_size)


def test_a_byte_written_behind_a_buffer_is_found_after_the_case():
    (result,) = run(case_of(passes), target=Scripted(make=Overflowing)).cases
    assert (result.verdict, result.statement) == (Verdict.FAIL, MEMORY)
    assert MEMORY in result.covers
    assert result.evidence.shown


def test_after_hostile_input_the_device_is_asked_for_a_plain_request():
    class Sulking(EntropyDevice):
        """Serves nobody after its first buffer."""

        served = 0

        def handle_queue(self, number):
            for chain in self.chains(number):
                Sulking.served += 1
                if Sulking.served == 1:
                    chain.write(self.memory, bytes(chain.writable_size))
                    self.queues[number].push(chain.head, chain.writable_size)

    (kind,) = run(case_of(passes), target=Scripted(make=Sulking)).cases
    assert kind.verdict is Verdict.PASS
    Sulking.served = 0
    (hostile,) = run(case_of(passes, hostile=True), target=Scripted(make=Sulking)).cases
    assert hostile.verdict in (Verdict.HUNG, Verdict.CRASHED)


def test_ctrl_c_leaves_a_report_of_what_there_is():
    report = run(case_of(passes), case_of(raising(KeyboardInterrupt())), case_of(passes))
    assert verdicts(report) == [Verdict.PASS]
    assert report.interrupted
    assert report.stopped == "interrupted after 1 of 3 cases"


def test_a_listener_hears_of_each_case():
    heard = []

    class Noting(Listener):
        def starts(self, case, number, count):
            heard.append((case.name, number, count))

        def ends(self, result):
            heard.append(result.verdict)

    run(case_of(passes), case_of(passes, name="another.check"), listener=Noting())
    assert heard == [("a.check", 0, 2), Verdict.PASS, ("another.check", 1, 2), Verdict.PASS]


def test_luck_follows_from_the_seed_and_the_cases_name():
    def numbers(seed, name="a.check"):
        drawn = []
        run(case_of(lambda bench: drawn.append(bench.random.random()), name=name), seed=seed)
        return drawn

    assert numbers(1) == numbers(1)
    assert numbers(1) != numbers(2)
    assert numbers(1) != numbers(1, "another.check")


def test_each_result_has_the_command_that_does_it_again():
    (result,) = run(case_of(passes), repeat=lambda case: f"again {case.name}").cases
    assert result.repeat == "again a.check"


@pytest.mark.parametrize("make", [RegistersTarget, ThreadTarget])
def test_judging_does_the_checks_of_the_type_in_both_formats(make):
    report = judge(make(EntropyDevice), "entropy", only=["used.names-the-buffer"])
    assert {case.variant: case.verdict for case in report.cases} == {
        "split": Verdict.PASS,
        "packed": Verdict.PASS,
    }
    assert {result.statement.id for result in report.statements()} == {
        "split.device.described.used-id",
        "packed.device.described.used-id",
    }


def test_what_is_not_offered_is_not_judged():
    class SplitOnly(EntropyDevice):
        offered_features = EntropyDevice.offered_features & ~(1 << Feature.RING_PACKED)

    report = judge(RegistersTarget(SplitOnly), "entropy", only=["used.names-the-buffer"])
    assert {case.variant: case.verdict for case in report.cases} == {
        "split": Verdict.PASS,
        "packed": Verdict.NOT_APPLICABLE,
    }


def test_a_crash_that_a_check_saw_itself_counts():
    (result,) = run(case_of(raising(TargetCrashed("gone")))).cases
    assert result.verdict is Verdict.CRASHED
