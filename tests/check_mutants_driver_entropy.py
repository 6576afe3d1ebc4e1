"""Faults of an entropy driver."""

from check_driver_mutants import DriverMutant, changed
from check_driver_setup import Entropy

from guest_agent.drivers.entropy import EntropyDriver

_POSTS = "self._queue.add([], [(self._area.buffer_address, size)], 0)"

MUTANTS = [
    DriverMutant(
        "a buffer for the device to read",
        {"entropy.writable"},
        own=Entropy,
        patch=changed(
            EntropyDriver,
            "ask",
            (_POSTS, "self._queue.add([(self._area.address, 8)], [(self._area.buffer_address, size)], 0)"),
        ),
        also={"game.*"},
    ),
    DriverMutant(
        "a buffer without room",
        {"entropy.room"},
        own=Entropy,
        patch=changed(EntropyDriver, "ask", (_POSTS, _POSTS.replace("size", "0"))),
        also={"game.*"},
    ),
    DriverMutant(
        "too few bytes make the driver give up",
        {"game.entropy-short"},
        own=Entropy,
        patch=changed(EntropyDriver, "work", ("if not used.written_size:", "if used.written_size < 64:")),
        games=("entropy-short",),
    ),
]
