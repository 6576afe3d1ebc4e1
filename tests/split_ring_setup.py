"""Both ends of a split queue over one guest RAM, for the tests of the ring."""

from dataclasses import dataclass

import numpy as np

from guest_agent.virtqueue import SplitDriverQueue
from guest_agent.virtqueue.area import Note
from spec.device import Feature, feature_mask
from vdev.events import SILENT
from vdev.memory import PAGE_SIZE, GuestMemory, PageMarks
from vdev.virtqueue import QueueAddresses, QueueState, SplitDeviceQueue

AREA = 0x10_0000
"""Where the queue stands; data goes below."""


@dataclass
class Ends:
    memory: GuestMemory
    driver: SplitDriverQueue
    device: SplitDeviceQueue
    features: int

    def reopen_device(self):
        """A new device object that goes on from the old one's state."""
        state = self.device.save()
        self.device = SplitDeviceQueue(self.memory, 0, self.device.addresses, self.features)
        self.device.restore(state)
        assert self.device.save() == state

    def reopen_driver(self):
        """A new driver object that finds everything in RAM."""
        self.driver = SplitDriverQueue.attach(self.memory, 0, AREA)


def make_features(*, event_idx=True, indirect=True):
    bits = [Feature.VERSION_1]
    bits += [Feature.EVENT_IDX] * event_idx + [Feature.INDIRECT_DESC] * indirect
    return feature_mask(*bits)


def make_ends(size, *, event_idx=True, indirect=True, indirect_capacity=8, start=0, marks=False, events=SILENT):
    """Both ends, empty, with all indices at `start`."""
    features = make_features(event_idx=event_idx, indirect=indirect)
    capacity = indirect_capacity if indirect else 0
    area_size = SplitDriverQueue.area_size(size, capacity)
    memory = GuestMemory.private(AREA + area_size)
    if marks:
        memory.page_marks = PageMarks(memory.page_count)
    driver = SplitDriverQueue.create(memory, 0, size, AREA, features, events, indirect_capacity=capacity)
    device = SplitDeviceQueue(memory, 0, QueueAddresses(*driver.addresses), features, events)
    if start:
        area = driver._area
        for note in (Note.NEXT_AVAILABLE, Note.PUBLISHED, Note.LAST_USED):
            area.notes[note] = start
        area.available[1] = area.used[1] = start
        if event_idx:
            area.available_view["used_event"] = area.used_view["avail_event"] = start
        device.restore(QueueState(next_avail=start, next_used=start))
    return Ends(memory, driver, device, features)


class MarkChecker:
    """Says whether every page of the queue's area that changed since the last look was marked."""

    def __init__(self, ends):
        self.memory = ends.memory
        self.size = SplitDriverQueue.area_size(ends.driver.size, ends.driver._area.indirect_capacity)
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
