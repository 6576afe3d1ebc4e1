"""The cases are done one after the other, each with a bench of its own, and it is seen what became of the target."""

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from vdev import __version__
from vdev.check.bench.bench import Bench
from vdev.check.bench.traffic import traffic
from vdev.check.checks import load_device_checks
from vdev.check.evidence import Evidence
from vdev.check.finding import Finding, of_ending, of_judgement, of_touched, of_violation
from vdev.check.plan import Case, Wanted, plan
from vdev.check.registry import RingFormat
from vdev.check.result import CaseResult, Report
from vdev.check.target import ConnectionClosed, Ending, Target, TargetGone
from vdev.check.target_probe import offer_of
from vdev.check.verdict import Judgement, Verdict
from vdev.errors import BackEndViolation

__all__ = ["Listener", "judge", "run_cases"]

MOST_HUNG_IN_ROW = 5
"""Cases one after the other in which the target hung; then the rest is left."""
MOST_HUNG_PATIENCES = 12
"""The time of all cases in which it hung, as a multiple of the patience (5 s: a minute); then the rest is left."""

_LIVING = (Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE)
"""Verdicts after which it is not said yet whether the target is alive."""


class Listener:
    """Somebody who is told how far a run is; this one does not care."""

    def starts(self, case: Case, number: int, count: int) -> None:
        """Case `number` of `count`, counted from 0, is begun."""

    def ends(self, result: CaseResult) -> None:
        """A case has its verdict."""


def run_cases(
    target: Target,
    cases: Sequence[Case],
    *,
    type_name: str,
    subject: Mapping[str, str] | None = None,
    seed: int = 0,
    listener: Listener | None = None,
    repeat: Callable[[Case], str] = lambda _: "",
) -> Report:
    """Do the cases in this order; the target stays open.

    A target that is gone for good leaves the rest INCONCLUSIVE, Ctrl-C leaves it out; `Report.stopped` says so.
    """
    listener = listener or Listener()
    run = _Run(target, type_name, seed, repeat)
    results: list[CaseResult] = []
    started = time.monotonic()
    stopped = ""
    try:
        for number, case in enumerate(cases):
            listener.starts(case, number, len(cases))
            results.append(run.do(case))
            listener.ends(results[-1])
    except KeyboardInterrupt:
        stopped = f"interrupted after {len(results)} of {len(cases)} cases"
    return Report(
        side="device",
        subject=subject or {"type": type_name, "target": target.place},
        seed=seed,
        cases=tuple(results),
        seconds=time.monotonic() - started,
        vdev_version=__version__,
        stopped=stopped or run.gone,
        interrupted=bool(stopped),
    )


def judge(
    target: Target,
    type_name: str,
    *,
    only: Iterable[str] = (),
    formats: Sequence[RingFormat] = tuple(RingFormat),
    seed: int = 0,
    may_write: bool = True,
    choose: Callable[[Case], bool] = lambda _: True,
) -> Report:
    """Ask the target what it offers, do all checks of its type that apply, and close it.

    `choose` leaves out cases, as `only` and `formats` do.
    """
    wanted = Wanted(only=tuple(only), formats=formats, may_write=may_write)
    try:
        offer = offer_of(target)
        target.settle()
        cases = plan(load_device_checks().values(), type_name, carrier=target.carrier, offer=offer, wanted=wanted)
        return run_cases(target, list(filter(choose, cases)), type_name=type_name, seed=seed)
    finally:
        target.close()


class _Run:
    """What goes from one case to the next: the target, and whether it is still there."""

    def __init__(self, target: Target, type_name: str, seed: int, repeat: Callable[[Case], str]) -> None:
        self._target = target
        self._type_name = type_name
        self._seed = seed
        self._repeat = repeat
        self.gone = ""
        """Why nobody can be judged any more."""
        self._hung_in_row = 0
        self._hung_seconds = 0.0

    def do(self, case: Case) -> CaseResult:
        """Return the case's result."""
        started = time.monotonic()
        evidence = Evidence()
        if case.not_applicable:
            finding = Finding(Verdict.NOT_APPLICABLE, why=case.not_applicable)
        elif self.gone:
            finding = Finding(Verdict.INCONCLUSIVE, why=self.gone)
        else:
            finding, evidence = self._judge(case)
            self._count(finding.verdict, time.monotonic() - started)
        return CaseResult(
            check=case.check.name,
            variant=case.variant,
            summary=case.check.summary,
            covers=tuple(dict.fromkeys((*case.covers, *finding.also_covers))),
            verdict=finding.verdict,
            statement=finding.statement,
            why=finding.why,
            evidence=replace(
                evidence,
                done=(*evidence.done, *finding.notes),
                expected=finding.expected,
                observed=finding.observed,
                shown=finding.shown,
            ),
            seconds=time.monotonic() - started,
            repeat=self._repeat(case),
        )

    def _count(self, verdict: Verdict, seconds: float) -> None:
        """Stop a run that has waited too long for a target that hangs again and again."""
        if verdict is not Verdict.HUNG:
            self._hung_in_row = 0
            return
        self._hung_in_row += 1
        self._hung_seconds += seconds
        if self.gone:
            return
        if self._hung_in_row >= MOST_HUNG_IN_ROW:
            self.gone = f"the target hung {self._hung_in_row} times one after the other"
        elif self._hung_seconds > MOST_HUNG_PATIENCES * self._target.patience:
            self.gone = f"the target hung for {self._hung_seconds:.0f} s in all"

    def _judge(self, case: Case) -> tuple[Finding, Evidence]:
        started = time.monotonic()
        own_random = random.Random(f"{self._seed} {case.name}")
        with Bench(self._target, traffic(self._type_name), case.format, random=own_random) as bench:
            finding = self._guarded(lambda: case.check.run(bench))
            if case.check.hostile and finding.verdict in _LIVING and not self.gone:
                finding = finding.worsen(self._guarded(bench.is_alive))
            bench.quiesce()
            finding = finding.worsen(of_touched(bench.memory.touched(), case.format))
            evidence = bench.evidence()
            # Counted from the case's beginning.
            events = tuple(replace(record, time=record.time - started) for record in evidence.events)
        if not self.gone:
            finding = finding.worsen(self._aftermath(finding))
        return finding, replace(evidence, events=events)

    def _guarded(self, act: Callable[[], None]) -> Finding:
        """Do something with the target, and say what came of it."""
        try:
            act()
        except Judgement as judgement:
            return of_judgement(judgement)
        except BackEndViolation as violation:
            return of_violation(violation)
        except ConnectionClosed as closed:
            return Finding(Verdict.INCONCLUSIVE, why=str(closed))
        except TargetGone as gone:
            self.gone = str(gone)
            return Finding(Verdict.INCONCLUSIVE, why=self.gone)
        return Finding()

    def _aftermath(self, finding: Finding) -> Finding:
        """See what became of the target, and have one that takes the next driver."""
        ending: Ending | None = None

        def settle() -> None:
            nonlocal ending
            ending = self._target.settle()

        after = self._guarded(settle)
        if self.gone:
            return Finding(notes=(self.gone,))
        if ending is not None:
            after = of_ending(ending)
        is_lost = after.verdict in (Verdict.HUNG, Verdict.CRASHED)
        if (is_lost or finding.verdict in (Verdict.HUNG, Verdict.CRASHED)) and not self._target.restart() and is_lost:
            self.gone = f"the target is not there any more: {after.why}"
        return after
