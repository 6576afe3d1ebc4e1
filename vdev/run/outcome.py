"""From what happened to a report: figures, errors and verdicts in the words of `vdev.run.report`."""

from typing import Any

from host_migrator import strategies
from host_migrator.errors import DirtyLogLost, MigrationFailed, MigrationInDoubt
from host_migrator.figures import SourceFigures
from host_migrator.strategies import Strategy
from spec.balloon import PAGE_FRAME_SIZE
from spec.device import Feature
from vdev.devices.balloon import BalloonDevice
from vdev.errors import UserError, VdevError
from vdev.run.options import MigrateOptions
from vdev.run.report import Outcome, PageCounts, Progress, Report, RoundFigures, Verified
from vdev.schedule import Schedule
from vdev.vcpu import GuestDied, GuestNotResponding

__all__ = [
    "add_figures",
    "add_verdict",
    "inflate",
    "make_strategy",
    "new_report",
    "outcome_of",
    "progress_of",
    "take_verdict",
]


_INFLATE_INTERVAL = 0.1
_INFLATE_LOOKS = 600


def make_strategy(name: str, balloon: BalloonDevice) -> Strategy:
    """Return the strategy called `name`, which must be one."""
    return strategies.make_strategy(name, balloon.hinting)


async def inflate(balloon: BalloonDevice, size: int, schedule: Schedule) -> None:
    """Ask for a balloon of `size` bytes and wait until the guest has filled it.

    Raises UserError when it has not after a minute.
    """
    target = size // PAGE_FRAME_SIZE
    if target:
        balloon.set_target(target)
    for _ in range(_INFLATE_LOOKS):
        if balloon.actual >= target:
            return
        await schedule.sleep("host", _INFLATE_INTERVAL)
    raise UserError(f"the guest put {balloon.actual} of {target} pages into the balloon in a minute; inflate less")


def new_report(options: MigrateOptions, dirty_log: str) -> Report:
    """Return the report of a migration that has not begun."""
    report = Report(Outcome.INTERRUPTED, options.strategy, options.ring, dirty_log, transport=options.transport)
    if options.strategy != "none":
        report.answer, report.guest_holds = options.answer, options.guest_holds
    return report


def outcome_of(error: VdevError) -> Outcome:
    """Return how a migration ended that raised `error`; raises it again if it is none of these."""
    match error:
        case MigrationInDoubt():
            return Outcome.IN_DOUBT
        case MigrationFailed():
            return Outcome.DESTINATION_LOST
        case DirtyLogLost() | GuestNotResponding():
            return Outcome.FAILED
        case GuestDied():
            return Outcome.GUEST_DIED
    raise error


def take_verdict(report: Report, figures: SourceFigures) -> None:
    """Put the verdict of the guest that moved into `report`.

    Raises GuestDied if it died there, MigrationInDoubt if it moved and nothing was heard of it since.
    """
    if figures.died_there is not None:
        raise GuestDied(f"the guest moved, and then died at the destination: {figures.died_there}")
    if figures.verdict is None:
        raise MigrationInDoubt(f"the guest moved, but did not say how it is: {figures.verdict_missing}")
    report.outcome = Outcome.MISMATCHED if figures.verdict["mismatched"] else Outcome.COMPLETED
    add_verdict(report, figures.verdict, at="destination")


def add_figures(report: Report, figures: SourceFigures, balloon: BalloonDevice) -> None:
    """Put what the source and its balloon counted into `report`, and the ring that they agreed on."""
    report.ring = "packed" if balloon.has_feature(Feature.RING_PACKED) else "split"
    report.pages = PageCounts(
        total=figures.page_count,
        sent=figures.sent_count,
        zero=figures.zero_count,
        skipped=figures.skipped_count,
        resent=figures.resent_count,
    )
    report.wire_bytes = figures.wire_bytes
    report.total_seconds = figures.total_seconds
    report.downtime_seconds = figures.downtime_seconds
    report.rounds = [RoundFigures(each.pages, each.bytes, each.seconds) for each in figures.rounds]
    report.converged = figures.converged
    report.hints = {
        "applied_pages": figures.hinted_count,
        "refused_hints": balloon.hinting.refused_count,
        "violation": str(balloon.violation) if balloon.violation else None,
    }
    report.memory |= {
        "source_resident_bytes": balloon.memory.resident_size(),
        "inflated_pages": balloon.inflation.inflated_count,
        "inflation_returned_bytes": balloon.inflation.returned_size,
        "reported_pages": balloon.reporting.reported_count,
        "reporting_returned_bytes": balloon.reporting.returned_size,
    }


def add_verdict(report: Report, verdict: dict[str, Any], *, at: str) -> None:
    """Put the guest's own verdict into `report`."""
    report.verified = Verified(verdict["pages"], verdict["mismatched"], verdict["resumed_operations"])
    report.verified_at = at
    if verdict["mismatched"]:
        report.error = "; ".join(verdict["first_bad"])
    if "resident_bytes" in verdict:
        report.memory["destination_resident_bytes"] = verdict["resident_bytes"]


def progress_of(phase: str, figures: SourceFigures, remaining_count: int, elapsed: float) -> Progress:
    """Return a moment of a migration for a display."""
    return Progress(
        phase=phase,
        round=len(figures.rounds) + 1,
        remaining_count=remaining_count,
        total_count=figures.page_count,
        sent_count=figures.sent_count + figures.zero_count,
        skipped_count=figures.hinted_count,
        wire_bytes=figures.wire_bytes,
        bytes_per_second=figures.bytes_per_second,
        elapsed=elapsed,
    )
