"""Our devices behind a socket, in the test's own loop, so that a test has both the guest and the device at hand."""

import contextlib
import hashlib
import time

import trio
from device_setup import Hints

from peers.guest import lone_error
from spec.balloon import QueueNumbering
from spec.device import Feature, feature_mask
from vdev.device import RING_FEATURES
from vdev.devices.balloon import BalloonDevice, HintState
from vdev.devices.block import BlockDevice, BlockFile
from vdev.devices.entropy import EntropyDevice
from vdev.events import EventStream
from vdev.memory import GuestMemory
from vdev.vhost_user.server import BackEnd, listen

# What a guest is waited for, seconds: generous, for a slow machine is not a failure.
PATIENCE = 60

RING_BITS = feature_mask(*Feature)

# What is offered for each format; what a driver takes of it is for the tests to check.
FORMATS = {
    "split": (),
    "split, suppression": (Feature.EVENT_IDX, Feature.INDIRECT_DESC),
    "packed": (Feature.RING_PACKED,),
    "packed, suppression": (Feature.RING_PACKED, Feature.EVENT_IDX, Feature.INDIRECT_DESC),
    "split in order": (Feature.IN_ORDER, Feature.EVENT_IDX, Feature.INDIRECT_DESC),
    "packed in order": (Feature.IN_ORDER, Feature.RING_PACKED, Feature.EVENT_IDX, Feature.INDIRECT_DESC),
    "as served": tuple(bit for bit in Feature if RING_FEATURES >> bit & 1),
}


@contextlib.asynccontextmanager
async def serving(device, path):
    """Serve ``device`` at ``path`` until the body ends; yields the back end. A guest's violation fails the test."""
    back_end = BackEnd(device)
    listener = listen(path)
    try:
        with lone_error():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(back_end.serve, listener)
                yield back_end
                nursery.cancel_scope.cancel()
    finally:
        listener.close()
        path.unlink()
    assert device.violation is None
    assert back_end.statistics.last_violation is None


def with_ring_features(device, *features):
    """Have ``device`` offer VERSION_1 and these of the features that all devices share, and no others."""
    device.offered_features = device.offered_features & ~RING_BITS | feature_mask(Feature.VERSION_1, *features)
    return device


async def until(condition, what, *, limit=PATIENCE):
    """Wait until ``condition()``, which may be async, is true; returns what it gave."""
    with trio.move_on_after(limit):
        while True:
            answer = condition()
            if hasattr(answer, "__await__"):
                answer = await answer
            if answer:
                return answer
            await trio.sleep(0.02)
    raise AssertionError(f"not within {limit} s: {what}")


class ServedBalloon:
    """A balloon numbered as real drivers count, and what a test wants to ask of it."""

    def __init__(self, *ring_features):
        self.events = EventStream(time.monotonic)
        self.device = with_ring_features(
            BalloonDevice(
                GuestMemory.absent(), numbering=QueueNumbering.COMPACT, events=self.events.emitter("balloon")
            ),
            *ring_features,
        )

    async def statistics(self):
        """Fresh statistics from the guest, by tag."""
        kept = self.device.memory_statistics
        await until(lambda: self.device.request_statistics(), "the driver posts a buffer for statistics")
        before = kept.answer_count
        await until(lambda: kept.answer_count > before, "the driver gives statistics")
        return self.device.statistics

    async def inflate(self, size):
        """Have the balloon be ``size`` bytes, and wait until the driver says so."""
        self.device.set_target(size // 4096)
        await until(lambda: self.device.actual == size // 4096, f"the balloon is {size} bytes")

    def ask_for_hints(self, taken):
        """Ask for hints under a new id, collected into the list ``taken`` of (first page, end); returns the id."""

        def take(ranges):
            taken.extend(zip(ranges.first.tolist(), ranges.end.tolist(), strict=True))
            return ranges.page_count

        self.device.hinting.sink = Hints(take)
        command_id = self.device.hinting.request()
        assert command_id is not None
        return command_id

    async def hints(self):
        """All hints of one new id, as (first page, end)."""
        taken = []
        self.ask_for_hints(taken)
        await until(lambda: self.device.hinting.state is HintState.STOP, "the driver comes to the end of its hints")
        return taken


def served_block(path, *ring_features, read_only=False, **options):
    """A disk whose sectors are the file ``path``."""
    file = BlockFile.open(path, read_only=read_only)
    return with_ring_features(BlockDevice(GuestMemory.absent(), file, **options), *ring_features)


class CountedBytes:
    """A source of entropy that anyone can recognise: bytes that are never the same, and kept."""

    def __init__(self):
        self.given = bytearray()

    def __call__(self, size):
        block = hashlib.sha256(len(self.given).to_bytes(8, "little")).digest()[:size]
        self.given += block
        return block


def served_entropy(source, *ring_features):
    """An entropy device that gives what ``source`` gives."""
    return with_ring_features(EntropyDevice(GuestMemory.absent(), source=source), *ring_features)
