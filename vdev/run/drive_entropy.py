"""`vdev drive entropy`: random bytes from somebody else's source."""

import time
from collections.abc import Callable
from typing import IO, Any

from guest_agent.drivers.entropy import BUFFER_SIZE, ENTROPY_DRIVER_FEATURES, EntropyDriver
from guest_agent.transport import DeviceRefused
from guest_agent.vhost_user import VhostUserTransport
from spec.device import DeviceId
from vdev.errors import UserError
from vdev.run.drive import RAM_ADDRESS, DriveFailed, DriveOptions, attach, check_ring, describe, failure, ring_features

__all__ = ["SAMPLE_SIZE", "drive_entropy"]

SAMPLE_SIZE = 32
"""Bytes that the report shows."""


def drive_entropy(
    options: DriveOptions, size: int, output: IO[bytes] | None, clock: Callable[[], float] = time.monotonic
) -> dict[str, Any]:
    """Get `size` bytes, write them to `output`, and return the report. Raises UserError or DriveFailed."""
    with attach(options, DeviceId.ENTROPY, EntropyDriver.area_size()) as driven:
        try:
            driver = EntropyDriver.start(
                driven.transport,
                driven.memory,
                RAM_ADDRESS,
                wanted_features=ENTROPY_DRIVER_FEATURES & ring_features(options.ring),
            )
        except DeviceRefused as refused:
            raise UserError(str(refused)) from refused
        check_ring(options, driver.features)
        sample = b""
        begin = clock()
        left = size
        while left:
            data = _next(driver, driven.transport, min(left, BUFFER_SIZE), options.timeout, clock)
            left -= len(data)
            sample += data[: SAMPLE_SIZE - len(sample)]
            if output is not None:
                output.write(data)
        seconds = clock() - begin
        driven.transport.reset()
        return {
            "device": "entropy",
            **describe(options, driven, driver.features),
            "bytes": size,
            "seconds": seconds,
            "begins_with": sample.hex(),
        }


def _next(
    driver: EntropyDriver, transport: VhostUserTransport, size: int, timeout: float, clock: Callable[[], float]
) -> bytes:
    driver.ask(size)
    deadline = clock() + timeout
    while True:
        driver.work()
        if (reason := driver.gave_up) is not None:
            is_one = driver.received_size or transport.lost is not None
            raise failure(transport, reason if is_one else f"{reason}; is it an entropy device?")
        if data := driver.take(size):
            return data
        remaining = deadline - clock()
        if remaining <= 0:
            raise DriveFailed(f"the device gave no random byte within {timeout:g} s; is it an entropy device?")
        if transport.wait_interrupt(remaining):
            driver.handle_interrupt()
