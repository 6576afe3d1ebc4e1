"""`vdev drive balloon`: a guest in this process that lives with somebody else's balloon."""

import select
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from guest_agent.drivers.balloon.driver import BalloonDriver
from guest_agent.kernel import Guest, GuestConfig
from guest_agent.page_database import Owner
from guest_agent.transport import DeviceRefused
from guest_agent.vhost_user import VhostUserTransport
from spec.balloon import CONFIG, BalloonFeature, BalloonQueue, QueueNumbering, queue_numbers
from spec.device import DeviceId
from vdev.errors import DeviceViolation, UserError
from vdev.events import ChainsMadeAvailable, EventStream, Record
from vdev.memory import PAGE_SIZE
from vdev.notify import EventfdDoorbell
from vdev.run.drive import DriveFailed, Driven, DriveOptions, attach, check_ring, describe, failure, ring_features

__all__ = ["BalloonOptions", "BalloonSnapshot", "drive_balloon"]

_SHOW_INTERVAL = 0.2
_QUEUES_NEEDED = 2


@dataclass(frozen=True)
class BalloonOptions:
    """The guest: bytes of RAM, workload and operations per second, seed; and for how many seconds, None without end."""

    ram_size: int = 256 << 20
    seconds: float | None = None
    workload: str = "churn"
    rate: float = 500.0
    seed: int = 0
    numbering: QueueNumbering = QueueNumbering.COMPACT


@dataclass(frozen=True)
class BalloonSnapshot:
    """What there is to see at one moment. `requests` counts buffers given to the device, by queue."""

    elapsed: float
    target_bytes: int
    balloon_bytes: int
    hinted_bytes: int
    reported_bytes: int
    operations: int
    requests: dict[str, int] = field(default_factory=dict)


class _NoBus:
    """Exits of a guest that has no device on a bus."""

    def read(self, address: int, size: int) -> int:
        raise DriveFailed(f"the guest reads a register at {address:#x}, and there is none")

    def write(self, address: int, size: int, value: int) -> None:
        raise DriveFailed(f"the guest writes a register at {address:#x}, and there is none")


class _RequestCounter:
    """Hears the event stream: how many buffers went to each queue."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()

    def __call__(self, record: Record) -> None:
        if isinstance(record.event, ChainsMadeAvailable):
            self.counts[record.event.queue] += len(record.event.heads)


def drive_balloon(
    options: DriveOptions,
    balloon_options: BalloonOptions,
    show: Callable[[BalloonSnapshot], None],
    stop: EventfdDoorbell,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Run the guest until `stop` is rung or its time is over, let it check itself, and return the report.

    Raises UserError if there is no balloon, DriveFailed if it is lost.
    """
    events = EventStream(clock)
    counter = _RequestCounter()
    events.subscribe(counter)
    with attach(options, DeviceId.BALLOON, balloon_options.ram_size, events.emitter("guest")) as driven:
        _check_type(options, driven)
        guest = _boot(options, balloon_options, driven, events)
        (driver,) = guest.drivers
        assert isinstance(driver, BalloonDriver)
        check_ring(options, driver.features)
        roles = {number: role for role, number in queue_numbers(driver.features, balloon_options.numbering).items()}
        begin = clock()

        def look() -> BalloonSnapshot:
            return _snapshot(guest, driver, clock() - begin, roles, counter)

        _run(guest, driver, driven.transport, balloon_options, lambda: show(look()), stop, clock)
        snapshot = look()
        show(snapshot)
        verdict = guest.verify()
        with suppress(DeviceViolation):
            # The report stands, whatever becomes of the device now.
            driven.transport.reset()
        return {
            "device": "balloon",
            **describe(options, driven, driver.features, BalloonFeature),
            "numbering": balloon_options.numbering.value,
            "ram_bytes": balloon_options.ram_size,
            "seconds": snapshot.elapsed,
            "target_bytes": snapshot.target_bytes,
            "balloon_bytes": snapshot.balloon_bytes,
            "operations": snapshot.operations,
            "requests": snapshot.requests,
            "verified": {"pages": verdict.pages, "mismatched": verdict.mismatched},
        }


def _check_type(options: DriveOptions, driven: Driven) -> None:
    where = options.socket_path
    if not driven.transport.queue_size_max(_QUEUES_NEEDED - 1):
        raise UserError(f"the device at {where} has fewer than {_QUEUES_NEEDED} queues: it is no balloon")
    try:
        driven.transport.read_config(CONFIG)
    except DeviceViolation as violation:
        if driven.transport.lost is not None:
            raise
        raise UserError(f"the device at {where} is no balloon: {violation.message}") from violation


def _boot(options: DriveOptions, balloon_options: BalloonOptions, driven: Driven, events: EventStream) -> Guest:
    config = GuestConfig(
        workload=balloon_options.workload,
        rate=balloon_options.rate,
        seed=balloon_options.seed,
        ring_features=ring_features(options.ring),
        queue_size=options.queue_size,
        slot_numbering=balloon_options.numbering.value,
    )
    try:
        return Guest.boot(driven.memory, _NoBus(), config, events.emitter("guest"), [driven.transport])
    except DeviceRefused as refused:
        raise UserError(f"{refused}; is it a balloon?") from refused


def _run(
    guest: Guest,
    driver: BalloonDriver,
    transport: VhostUserTransport,
    options: BalloonOptions,
    show: Callable[[], None],
    stop: EventfdDoorbell,
    clock: Callable[[], float],
) -> None:
    now = next_show = clock()
    end = None if options.seconds is None else now + options.seconds
    while end is None or now < end:
        delay = min(guest.step(now), _SHOW_INTERVAL, _SHOW_INTERVAL if end is None else end - now)
        readable, _, _ = select.select([stop.fileno(), *guest.filenos()], [], [], delay)
        if stop.fileno() in readable:
            return
        if readable:
            guest.handle_interrupt()
        if driver.gave_up is not None:
            raise failure(transport, driver.gave_up)
        now = clock()
        if now >= next_show:
            next_show = now + _SHOW_INTERVAL
            show()


def _snapshot(
    guest: Guest, driver: BalloonDriver, elapsed: float, roles: dict[int, BalloonQueue], counter: _RequestCounter
) -> BalloonSnapshot:
    def held(owner: Owner) -> int:
        return int((1 << guest.allocator.blocks_of(owner).orders).sum()) * PAGE_SIZE

    return BalloonSnapshot(
        elapsed,
        driver.target * PAGE_SIZE,
        driver.actual * PAGE_SIZE,
        held(Owner.HINTED),
        held(Owner.REPORTED),
        guest.operation_count,
        {role.name.lower(): counter.counts[number] for number, role in roles.items()},
    )
