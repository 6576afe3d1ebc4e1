"""Bugs of the command id: who says it, where it is kept, what it is compared with."""

import numpy as np
from device_setup import BalloonPair, BareBalloon
from historical_bugs_setup import MIB, PAGE, Bug, arrived, begin_migration

from guest_agent.drivers.balloon import BALLOON_DRIVER_FEATURES
from guest_agent.drivers.balloon.area import BalloonArea
from guest_agent.page_database import Owner
from spec.balloon import BalloonFeature, BalloonQueue
from spec.device import feature_mask
from vdev.devices.balloon import HINT_TRANSITIONS, Hinting, HintInput, HintState

HINTS_AND_NO_REPORTS = BALLOON_DRIVER_FEATURES & ~feature_mask(BalloonFeature.PAGE_REPORTING)


class ReplayedId(Bug):
    """The echo of an old id started hinting again after the host's STOP, and the sync that came with it."""

    name = "replayed old id"
    symptom = "the write to page 1024 is lost"

    def check(self):
        bare = BareBalloon()
        hinting = bare.device.hinting
        migration = begin_migration(bare.memory, hinting)
        bare.echo(hinting.command_id)
        # Collected under this id, then taken back and written to.
        bare.memory.write(4 * MIB, b"needed")
        hinting.stop()
        migration.merge()
        bare.echo(hinting.command_id)
        bare.hint((4 * MIB, PAGE))
        assert arrived(migration).read(4 * MIB, 6) == b"needed", (
            "the write to page 1024 is lost: a hint of before the sync was applied after it"
        )

    def put_back(self, monkeypatch):
        for state in HintState:
            monkeypatch.setitem(HINT_TRANSITIONS, (state, HintInput.ID_ECHOED), HintState.START)


class TornRequest(Bug):
    """The host moved state and id one after the other, and its queue's handler ran between the two."""

    name = "id and state moved without the lock"
    symptom = "the write to page 1024 is lost"

    def __init__(self):
        self.handler_runs = lambda: None

    def check(self):
        bare = BareBalloon()
        hinting = bare.device.hinting
        migration = begin_migration(bare.memory, hinting)
        bare.post(BalloonQueue.FREE_PAGE, hinting.command_id.to_bytes(4, "little"))
        bare.post(BalloonQueue.FREE_PAGE, writable=[(4 * MIB, PAGE)])
        bare.memory.write(4 * MIB, b"needed")
        # The handler is due from here on: it may run before or after each step that is one.
        self.handler_runs = lambda: bare.publish(BalloonQueue.FREE_PAGE)
        migration.sync()
        self.handler_runs()
        assert arrived(migration).read(4 * MIB, 6) == b"needed", (
            "the write to page 1024 is lost: the old id was taken for the new one"
        )

    def put_back(self, monkeypatch):
        request = Hinting.request

        def torn(hinting):
            hinting.state = HintState.REQUESTED
            self.handler_runs()
            return request(hinting)

        monkeypatch.setattr(Hinting, "request", torn)


class SharedIdBuffer(Bug):
    """The driver had one field for its ids and STOPs, and wrote into it what the device had not read yet."""

    name = "start and stop in one buffer"
    symptom = "is lost: an id was read that was not the one that was queued"

    def check(self):
        pair = BalloonPair(defer_kicks=True, features=HINTS_AND_NO_REPORTS)
        migration = begin_migration(pair.memory, pair.device.hinting)
        pair.driver.handle_interrupt()
        while pair.driver.work():
            pass
        hinted = pair.guest.allocator.blocks_of(Owner.HINTED)
        assert len(hinted.pages), "the guest has nothing to hint"
        page, order = int(hinted.pages[-1]), int(hinted.orders[-1])
        # Short of memory, the guest takes a block back and uses it.
        pair.driver.shrink(1)
        assert pair.guest.allocator.take_free_blocks(order, 1000, Owner.WORKLOAD).tolist() == [page]
        address = pair.memory.address_of(page)
        pair.memory.write(address, b"needed")
        migration.sync()
        # The device comes to look when the new id has just been queued behind the old id and its hints.
        pair.driver.handle_interrupt()
        queue = pair.driver.queues[BalloonQueue.FREE_PAGE]
        queued_before = queue.free_count
        while queue.free_count == queued_before:
            assert pair.driver.work(), "the driver announces no new id"
        pair.wire.deliver_kicks()
        assert arrived(migration).read(address, 6) == b"needed", (
            f"the write to page {page} is lost: an id was read that was not the one that was queued"
        )

    def put_back(self, monkeypatch):
        take = BalloonArea.take_id_buffer

        def shared(area, command_id):
            area.release_id_buffers(np.array([0]))
            return take(area, command_id)

        monkeypatch.setattr(BalloonArea, "take_id_buffer", shared)


class SwappedId(Bug):
    """An id went through the buffer in the wrong byte order, and matched nothing."""

    name = "id in the wrong byte order"
    symptom = "no hint was taken"

    def check(self):
        pair = BalloonPair(features=HINTS_AND_NO_REPORTS)
        pages = pair.hints()
        pair.device.hinting.request()
        pair.settle()
        assert pages, "no hint was taken: the id that came back was another"
        assert pair.device.hinting.refused_count == 0, "hints were refused"

    def put_back(self, monkeypatch):
        take = BalloonArea.take_id_buffer

        def swapped(area, command_id):
            return take(area, int.from_bytes(int(command_id).to_bytes(4, "little"), "big"))

        monkeypatch.setattr(BalloonArea, "take_id_buffer", swapped)


class EchoIsTheEnd(Bug):
    """The first thing that the guest sent back was taken for its last: the id for the end of the hints."""

    name = "echo of the id taken for the end"
    symptom = "no hint was taken"

    def check(self):
        pair = BalloonPair(features=HINTS_AND_NO_REPORTS)
        pages = pair.hints()
        pair.device.hinting.request()
        pair.settle()
        assert pages, "no hint was taken: hinting was over as it began"
        assert pair.guest.held(Owner.HINTED) == len(pages), "the guest has its pages back while hints still count"

    def put_back(self, monkeypatch):
        monkeypatch.setitem(HINT_TRANSITIONS, (HintState.REQUESTED, HintInput.ID_ECHOED), HintState.DONE)


BUGS = (ReplayedId(), TornRequest(), SharedIdBuffer(), SwappedId(), EchoIsTheEnd())
