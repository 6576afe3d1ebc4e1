"""How a guest makes its balloon driver."""

from guest_agent.drivers.balloon.driver import BALLOON_DRIVER_FEATURES, BalloonDriver
from guest_agent.drivers.driver import DriverKind, DriverOptions, Surroundings
from guest_agent.transport import Transport

__all__ = ["BALLOON"]


def _start(transport: Transport, area_address: int, guest: Surroundings, options: DriverOptions) -> BalloonDriver:
    return BalloonDriver.start(
        transport,
        guest.memory,
        guest.allocator,
        area_address,
        statistics=guest.statistics,
        wanted_features=options.allowed(BALLOON_DRIVER_FEATURES),
        queue_size=options.queue_size,
        numbering=options.numbering,
        poison_value=guest.poison_value,
        events=guest.events,
        hint_behaviour=options.hint_behaviour,
    )


def _resume(transport: Transport, area_address: int, guest: Surroundings) -> BalloonDriver:
    return BalloonDriver.resume(
        transport, guest.memory, guest.allocator, area_address, statistics=guest.statistics, events=guest.events
    )


BALLOON = DriverKind(
    area_size=lambda options: BalloonDriver.area_size(options.queue_size), start=_start, resume=_resume
)
