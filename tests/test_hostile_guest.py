"""A guest that breaks the text in the middle of a migration: named, ignored from then on, and moved without a loss.

The guest's kernel is honest but for one raw write to a ring; so it can still tell whether a page was lost.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from guest_agent.kernel import Guest
from guest_agent.page_database import Owner
from spec.balloon import BalloonQueue
from spec.device import DeviceStatus
from spec.mmio import Register
from spec.split_ring import DESCRIPTOR, DescriptorFlag, available_ring
from vdev.events import EventStream, record_to_json
from vdev.memory import GuestMemory
from vdev.run import one_loop
from vdev.run.options import MigrateOptions
from vdev.run.report import Outcome

RAM_SIZE = 32 << 20
NEXT, WRITE, INDIRECT = DescriptorFlag.NEXT, DescriptorFlag.WRITE, DescriptorFlag.INDIRECT

Descriptors = dict[int, tuple[int, int, int, int]]


@dataclass
class Ground:
    """Where mischief is done: a queue of `size` descriptors, and a page of the guest's own to put bytes in."""

    memory: GuestMemory
    size: int
    scratch: int

    def put(self, data: bytes, offset: int = 0) -> int:
        self.memory.write(self.scratch + offset, data)
        return self.scratch + offset

    def table(self, *descriptors: tuple[int, int, int, int]) -> int:
        return self.put(b"".join(struct.pack("<QIHH", *each) for each in descriptors), 2048)


@dataclass
class Mischief:
    """Descriptors to write over the table, heads to make available, and how far the index jumps beyond them."""

    queue: BalloonQueue
    build: Callable[[Ground], Descriptors]
    complaint: str
    heads: tuple[int, ...] = (0,)
    jump: int = 0


HINTS, STATISTICS, INFLATE = BalloonQueue.FREE_PAGE, BalloonQueue.STATISTICS, BalloonQueue.INFLATE

MISCHIEF = {
    "a head out of range": Mischief(HINTS, lambda g: {}, "head 60000 in a table of 128", heads=(60000,)),
    "a next out of range": Mischief(
        HINTS, lambda g: {0: (g.scratch, 4, NEXT, 50000)}, "next is 50000 in a table of 128"
    ),
    "a chain loop": Mischief(
        HINTS, lambda g: {0: (g.scratch, 4, NEXT, 1), 1: (g.scratch, 4, NEXT, 0)}, "the chain loops"
    ),
    "an indirect chain longer than the queue": Mischief(
        HINTS,
        lambda g: {0: (g.scratch, 16 * (g.size + 1), INDIRECT, 0)},
        "an indirect table of 129 descriptors for a queue of 128",
    ),
    "an indirect table of no length": Mischief(
        HINTS, lambda g: {0: (g.scratch, 0, INDIRECT, 0)}, "an indirect table of 0 bytes"
    ),
    "an indirect table of odd length": Mischief(
        HINTS, lambda g: {0: (g.scratch, 17, INDIRECT, 0)}, "an indirect table of 17 bytes"
    ),
    "a nested indirect table": Mischief(
        HINTS, lambda g: {0: (g.table((g.scratch, 16, INDIRECT, 0)), 16, INDIRECT, 0)}, "inside an indirect table"
    ),
    "NEXT with INDIRECT": Mischief(
        HINTS, lambda g: {0: (g.scratch, 16, INDIRECT | NEXT, 1)}, "INDIRECT and NEXT in one descriptor"
    ),
    "a readable descriptor after a writable one": Mischief(
        HINTS,
        lambda g: {0: (g.scratch, 4096, NEXT | WRITE, 1), 1: (g.scratch, 4, 0, 0)},
        "a readable segment behind a writable one",
    ),
    "an index that jumps": Mischief(HINTS, lambda g: {}, "idx moved by 1001, more than the queue size 128", jump=1000),
    "a buffer outside RAM": Mischief(HINTS, lambda g: {0: (1 << 40, 4096, WRITE, 0)}, "not wholly in RAM"),
    "a buffer that wraps past 2^64": Mischief(
        HINTS, lambda g: {0: (2**64 - 4096, 8192, WRITE, 0)}, "not wholly in RAM"
    ),
    "a hint past the end of RAM": Mischief(
        HINTS, lambda g: {0: (RAM_SIZE - 4096, 8192, WRITE, 0)}, "not wholly in RAM"
    ),
    "a hint that is not page aligned": Mischief(
        HINTS, lambda g: {0: (g.scratch + 7, 4096, WRITE, 0)}, "not made of whole pages"
    ),
    "an id buffer too short": Mischief(HINTS, lambda g: {0: (g.scratch, 3, 0, 0)}, "id buffer of 3 bytes"),
    "statistics of odd length": Mischief(
        STATISTICS, lambda g: {1: (g.scratch, 13, 0, 0)}, "13 bytes are no array of 10-byte entries", heads=(1,)
    ),
    "an inflate page twice": Mischief(
        INFLATE,
        lambda g: {0: (g.put(struct.pack("<II", 5, 5)), 8, 0, 0)},
        "page 5 is named twice",
    ),
    "an inflate page outside RAM": Mischief(
        INFLATE, lambda g: {0: (g.put(struct.pack("<I", 0xFFFF_FFFF)), 4, 0, 0)}, "the page is outside RAM"
    ),
}


class HostileGuest(Guest):
    """Does one piece of mischief when the mock clock has come to `moment`."""

    mischief: Mischief
    moment: float
    began: float | None = None
    done = False

    def step(self, now: float) -> float:
        if self.began is None:
            self.began = now
        if not self.done and self._resumed_at is None and now - self.began >= self.moment:
            type(self).done = True
            self.break_the_text()
            return 0.0
        return super().step(now)

    def break_the_text(self) -> None:
        memory = self._boot.ram.memory
        queue = self._devices.drivers[0].queues[self.mischief.queue]
        page = self.allocator.allocate(0, Owner.DRIVER)
        assert page is not None
        ground = Ground(memory, queue.size, memory.address_of(page))
        table = memory.view(queue.addresses.descriptor, DESCRIPTOR, queue.size)
        for index, descriptor in self.mischief.build(ground).items():
            table[index] = descriptor
        available = memory.view(queue.addresses.driver, available_ring(queue.size))
        index = int(available["idx"])
        for place, head in enumerate(self.mischief.heads):
            available["ring"][(index + place) % queue.size] = head
        available["idx"] = (index + len(self.mischief.heads) + self.mischief.jump) & 0xFFFF
        memory.mark_written(queue.addresses.descriptor, table.nbytes)
        memory.mark_written(queue.addresses.driver, available.nbytes)
        self._devices.drivers[0]._registers.write(Register.QUEUE_NOTIFY, queue.number)


@pytest.mark.parametrize("moment", [0.1, 0.305, 0.32])
@pytest.mark.parametrize("name", MISCHIEF)
def test_mischief_is_named_and_the_guest_moves_without_a_loss(name, moment, monkeypatch):
    mischief = MISCHIEF[name]
    guest = type("OneHostileGuest", (HostileGuest,), {"mischief": mischief, "moment": moment, "done": False})
    monkeypatch.setattr(one_loop, "Guest", guest)
    lines: list[dict] = []
    events = EventStream(lambda: 0.0)
    events.subscribe(lambda record: lines.append(record_to_json(record)))
    options = MigrateOptions(ram_size=RAM_SIZE, seed=1, max_bandwidth=200 << 20)
    report = one_loop.migrate(options, events=events, on_progress=lambda _: None)

    assert guest.done
    violations = [line for line in lines if line["event"] == "ViolationFound" and line["side"] == "driver"]
    assert len(violations) == 1, violations
    assert report.hints["violation"] is not None
    assert report.hints["violation"].startswith("driver's fault: ")
    assert "[virtio 1.4, " in report.hints["violation"]
    assert mischief.complaint in report.hints["violation"]
    after = lines[lines.index(violations[0]) + 1 :]
    assert not [line for line in after if line["event"] == "HintApplied"]
    statuses = [line["after"] for line in after if line["event"] == "DeviceStatusChanged"]
    assert statuses[0] & DeviceStatus.DEVICE_NEEDS_RESET

    assert report.outcome is Outcome.COMPLETED
    assert report.verified.mismatched == 0
    assert report.verified.pages > 0
    assert report.verified.resumed_operations > 0
