"""How a guest makes its block driver."""

from guest_agent.drivers.block.driver import BLOCK_DRIVER_FEATURES, BlockDriver
from guest_agent.drivers.driver import DriverKind, DriverOptions, Surroundings
from guest_agent.transport import Transport

__all__ = ["BLOCK"]


def _start(transport: Transport, area_address: int, guest: Surroundings, options: DriverOptions) -> BlockDriver:
    return BlockDriver.start(
        transport,
        guest.memory,
        area_address,
        wanted_features=options.allowed(BLOCK_DRIVER_FEATURES),
        queue_size=options.queue_size,
        events=guest.events,
    )


def _resume(transport: Transport, area_address: int, guest: Surroundings) -> BlockDriver:
    return BlockDriver.resume(transport, guest.memory, area_address, events=guest.events)


BLOCK = DriverKind(area_size=lambda options: BlockDriver.area_size(options.queue_size), start=_start, resume=_resume)
