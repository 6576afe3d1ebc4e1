"""Both ends of a queue over one guest RAM, for the tests of the rings."""

from dataclasses import dataclass

import numpy as np

from guest_agent.virtqueue import DriverQueue, attach_driver_queue, driver_area_size, make_driver_queue
from guest_agent.virtqueue.area import Note
from guest_agent.virtqueue.packed_area import PackedNote
from spec.device import Feature, feature_mask
from spec.packed_ring import linear
from vdev.events import SILENT
from vdev.memory import PAGE_SIZE, GuestMemory, PageMarks
from vdev.virtqueue import DeviceQueue, QueueAddresses, QueueState, make_device_queue

AREA = 0x10_0000
"""Where the queue stands; data goes below."""


@dataclass
class Ends:
    memory: GuestMemory
    driver: DriverQueue
    device: DeviceQueue
    features: int

    def reopen_device(self):
        """A new device object that goes on from the old one's state."""
        state = self.device.save()
        self.device = make_device_queue(self.memory, 0, self.device.addresses, self.features)
        self.device.restore(state)
        assert self.device.save() == state

    def restart_device(self):
        """A new device object that goes on from the old one's base."""
        base = self.device.ring_base()
        self.device = make_device_queue(self.memory, 0, self.device.addresses, self.features)
        self.device.start_from(base)

    def reopen_driver(self):
        """A new driver object that finds everything in RAM."""
        self.driver = attach_driver_queue(self.memory, 0, AREA)


def make_features(*, packed=False, event_idx=True, indirect=True, in_order=False):
    bits = [Feature.VERSION_1]
    bits += [Feature.EVENT_IDX] * event_idx + [Feature.INDIRECT_DESC] * indirect
    bits += [Feature.RING_PACKED] * packed + [Feature.IN_ORDER] * in_order
    return feature_mask(*bits)


def make_ends(size, *, indirect_capacity=8, start=None, marks=False, events=SILENT, **features):
    """Both ends, empty, with all indices at `start` (split) or both ends at the position `start` (packed).

    `features` are those of `make_features`.
    """
    negotiated = make_features(**features)
    capacity = indirect_capacity if features.get("indirect", True) else 0
    memory = GuestMemory.private(AREA + driver_area_size(size, capacity))
    if marks:
        memory.page_marks = PageMarks(memory.page_count)
    driver = make_driver_queue(memory, 0, size, AREA, negotiated, events, indirect_capacity=capacity)
    device = make_device_queue(memory, 0, QueueAddresses(*driver.addresses), negotiated, events)
    if start is not None:
        (_start_packed if features.get("packed") else _start_split)(driver, features.get("event_idx", True), start)
        device.restore(QueueState(next_avail=start, next_used=start))
    return Ends(memory, driver, device, negotiated)


def _start_split(driver, event_idx, start):
    area = driver._area
    for note in (Note.NEXT_AVAILABLE, Note.PUBLISHED, Note.LAST_USED):
        area.notes[note] = start
    area.available[1] = area.used[1] = start
    if event_idx:
        area.available_view["used_event"] = area.used_view["avail_event"] = start


def _start_packed(driver, event_idx, start):
    """As if everything before `start` had been used once, and in the lap before it all of the ring."""
    area, place = driver._area, linear(start, driver.size)
    for note in (PackedNote.NEXT_AVAILABLE, PackedNote.PUBLISHED, PackedNote.NEXT_USED):
        area.notes[note] = place
    this_lap, before = (0x8080, 0) if place < driver.size else (0, 0x8080)
    area.ring_flags[: place % driver.size] = this_lap
    area.ring_flags[place % driver.size :] = before


class MarkChecker:
    """Says whether every page of the queue's area that changed since the last look was marked."""

    def __init__(self, ends):
        self.memory = ends.memory
        self.size = -(-ends.driver._area.layout.size // PAGE_SIZE) * PAGE_SIZE
        self.first_page = AREA // PAGE_SIZE
        self.look()

    def look(self):
        self.shadow = self.memory.bytes_view(AREA, self.size).reshape(-1, PAGE_SIZE).copy()
        self.memory.page_marks.marks[:] = 0

    def check(self):
        now = self.memory.bytes_view(AREA, self.size).reshape(-1, PAGE_SIZE)
        changed = np.flatnonzero((now != self.shadow).any(axis=1)) + self.first_page
        assert self.memory.page_marks.marks[changed].all(), "a page was written and not marked"
        self.look()


def fill(ends, count, *, writable=True, first_token=0):
    """Add buffers of a page each, as many as fit; returns how many."""
    addresses = np.arange(count, dtype=np.uint64) % np.uint64(256) * np.uint64(4096)
    sizes = np.full(count, 4096, np.uint64)
    tokens = np.arange(first_token, first_token + count, dtype=np.uint64)
    return ends.driver.add_batch(addresses, sizes, writable=writable, tokens=tokens)


def interrupt(monkeypatch, moment, act, *steps):
    """Do `act` once, just before the step number `moment` of those that are methods or functions (owner, name)."""
    numbers = iter(range(1000))

    def wrap(real):
        def step(*arguments):
            if next(numbers) == moment:
                act()
            return real(*arguments)

        return step

    for owner, name in steps:
        monkeypatch.setattr(owner, name, wrap(getattr(owner, name)))
