"""Steps of checks with hostile input: each has a device that the steps before have not broken."""

from collections.abc import Iterable, Mapping

from vdev.check.bench.bench import Bench

__all__ = ["begin"]


def begin(
    bench: Bench, *, features: Iterable[int] = (), queues: Mapping[int, int] | None = None, drive: bool = True
) -> None:
    """Start the device, for a driver of its own if one has been there before."""
    if bench.sentences:
        bench.reconnect()
    bench.start(features=features, queues=queues, drive=drive)
