"""Bugs of who holds what, and until when: the guest its pages, the host its handler, the VM its memory."""

import gc
import weakref
from dataclasses import replace

import pytest
import trio
import trio.testing
from device_setup import BalloonPair, BareBalloon
from historical_bugs_setup import MIB, PAGE, Bug, begin_migration
from vhost_user_setup import open_fds

from guest_agent.drivers.balloon import BALLOON_DRIVER_FEATURES, BalloonDriver
from guest_agent.drivers.balloon import driver as driver_module
from guest_agent.marked_ram import MarkedRam
from guest_agent.page_database import Owner, PageDatabase
from guest_agent.ram_layout import BootPage
from host_migrator.strategies import CommandId
from spec.balloon import BalloonFeature, BalloonQueue
from spec.device import feature_mask
from vdev.device import Device
from vdev.devices.balloon import BalloonDevice
from vdev.errors import DriverViolation
from vdev.events import EventStream
from vdev.machine import Machine
from vdev.memory import GuestMemory
from vdev.notify import EventfdDoorbell, LoopDoorbell
from vdev.run import one_loop
from vdev.run.options import MigrateOptions
from vdev.run.report import Outcome
from vdev.run.shape import MachineShape
from vdev.schedule import FreeSchedule
from vdev.serve import Gate, serve_queue

HINTS = BalloonQueue.FREE_PAGE
HINTS_AND_NO_REPORTS = BALLOON_DRIVER_FEATURES & ~feature_mask(BalloonFeature.PAGE_REPORTING)


def move_in_one_loop(options, hosts=None, **more):
    """Migrate a guest in one loop; return the report. `hosts` gets every host that is opened."""
    with pytest.MonkeyPatch.context() as patch:
        open_host = one_loop.open_loop_host

        def noted(*arguments, **named):
            host = open_host(*arguments, **named)
            if hosts is not None:
                hosts.append(host)
            return host

        patch.setattr(one_loop, "open_loop_host", noted)
        return one_loop.migrate(options, events=EventStream(lambda: 0.0), on_progress=lambda _: None, **more)


class NoDoneOnCancel(Bug):
    """A migration broke off without DONE: what the guest had hinted stayed taken until it was started anew."""

    name = "no DONE on cancel"
    symptom = "pages of the guest stay taken"

    def check(self):
        options = MigrateOptions(ram_size=16 * MIB, rate=1000.0, seed=3)
        hosts = []
        report = move_in_one_loop(options, hosts, cut_link_after=100_000)
        assert report.outcome is Outcome.DESTINATION_LOST, f"the migration was to break off, and is {report.outcome}"
        assert report.hints["applied_pages"] > 0, "nothing was hinted"
        held = blocks_of(hosts[0].memory, Owner.HINTED)
        assert not held, f"{held} blocks of pages of the guest stay taken after the migration"

    def put_back(self, monkeypatch):
        monkeypatch.setattr(CommandId, "clean_up", lambda strategy: None)


def blocks_of(memory, owner):
    boot = BootPage.attach(MarkedRam(memory))
    return len(PageDatabase(boot.ram, boot["database_address"]).blocks_of(owner).pages)


class NoHandler(Bug):
    """Hinting without the I/O thread that handles its queue brought the host down.

    Here a queue's handler is the device itself, which can be asked while the driver has not set the queue up.
    """

    name = "hinting without its I/O thread"
    raises = KeyError
    symptom = "3"

    def check(self):
        bare = BareBalloon()
        bare.registers.reset_queue(HINTS)
        assert bare.device.hinting.request() is not None, "a driver that negotiated hints can be asked"
        bare.registers.notify(HINTS)
        bare.device.hinting.stop()
        bare.device.hinting.done()
        assert not bare.is_broken, "a kick that is nobody's broke the device"

    def put_back(self, monkeypatch):
        queue_notify = Device.queue_notify

        def without_looking(device, number):
            device.queues[number].disable_kicks()
            return queue_notify(device, number)

        monkeypatch.setattr(Device, "queue_notify", without_looking)


class LeakedNotifier(Bug):
    """What a migration registered with the device stayed there after an unplug: the guest's features were gone by then.

    Here that is the taker of hints, which belongs to a migration that is over.
    """

    name = "notifier leaked at unplug"
    form = "the taker of hints"
    symptom = "still with the device"

    def __init__(self):
        self.device = None

    def check(self):
        bare = BareBalloon()
        self.device = bare.device
        migration = begin_migration(bare.memory, bare.device.hinting)
        bare.registers.reset()
        migration.clean_up()
        over = weakref.ref(migration)
        del migration
        gc.collect()
        assert over() is None, "a migration that is over is still with the device"

    def put_back(self, monkeypatch):
        clean_up = CommandId.clean_up

        def if_negotiated(strategy):
            if self.device.has_feature(BalloonFeature.FREE_PAGE_HINT):
                clean_up(strategy)

        monkeypatch.setattr(CommandId, "clean_up", if_negotiated)


class LeakedDoorbell(LeakedNotifier):
    """The same with the descriptors of a machine that is given up after its guest has reset the device."""

    form = "the doorbell"
    symptom = "descriptors are left"

    def check(self):
        memory = GuestMemory.private(16 * MIB)
        balloon = BalloonDevice(memory)
        self.device = balloon
        events = EventStream(lambda: 0.0)
        before = open_fds()
        machine = Machine(memory, [balloon], FreeSchedule(), events, make_doorbell=EventfdDoorbell)
        try:
            assert open_fds() > before, "the machine has no doorbells"
            machine.close()
            left = open_fds() - before
            assert left == 0, f"{left} descriptors are left"
        finally:
            for doorbell in machine.ioeventfds.values():
                doorbell.close()

    def put_back(self, monkeypatch):
        def if_negotiated(machine):
            for match, doorbell in machine.ioeventfds.items():
                if match.value != HINTS or self.device.has_feature(BalloonFeature.FREE_PAGE_HINT):
                    doorbell.close()

        monkeypatch.setattr(Machine, "close", if_negotiated)


class FreePagesNeeded(Bug):
    """A page that was skipped was asked for after all, in post-copy, and never came.

    Nobody can ask for a page here: there is no post-copy. A guest whose free pages hold a pattern needs them, too. (Our
    own driver fills them anew after DONE, so its guest would not notice; another need not.)
    """

    name = "hinted page needed in post-copy"
    symptom = "pages were skipped that the guest relies on"

    def check(self):
        pattern = 0xAAAA_AAAA
        poison = feature_mask(BalloonFeature.PAGE_POISON)
        of_options, guest_config = MachineShape.of_options, one_loop.guest_config
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                MachineShape,
                "of_options",
                lambda options: replace(shape := of_options(options), features=shape.features | poison),
            )
            patch.setattr(one_loop, "guest_config", lambda *all_: {**guest_config(*all_), "poison_value": pattern})
            hosts = []
            report = move_in_one_loop(MigrateOptions(ram_size=16 * MIB, seed=1), hosts)
        assert hosts[0].balloon.has_feature(BalloonFeature.PAGE_POISON), "the guest does not say that it poisons"
        assert report.pages.skipped == 0, f"{report.pages.skipped} pages were skipped that the guest relies on"
        assert report.outcome is Outcome.COMPLETED, report.error

    def put_back(self, monkeypatch):
        monkeypatch.setattr(BalloonDevice, "_free_pages_are_poisoned", lambda balloon: False)


class UnloadedWhileHinting(Bug):
    """The driver went away during hinting and forgot the blocks that it held.

    Here a driver goes away when it gives up a device that is broken.
    """

    name = "unload during hinting leaked blocks"
    symptom = "pages are nobody's"

    def check(self):
        pair = BalloonPair(features=HINTS_AND_NO_REPORTS)
        free_before = pair.guest.allocator.free_page_count
        pair.hints()
        pair.device.hinting.request()
        pair.settle()
        assert pair.guest.held(Owner.HINTED), "nothing is held"
        pair.device.needs_reset(DriverViolation("Some Section", "no reason"))
        pair.settle()
        assert pair.driver.gave_up, "the driver is still there"
        lost = free_before - pair.guest.allocator.free_page_count
        assert lost == 0, f"{lost} pages are nobody's: the driver is gone that held them"

    def put_back(self, monkeypatch):
        def forgetful(driver, why):
            driver_module.give_up_device(driver._area, driver._registers, why, driver._events)
            driver._allocator.free_blocks(driver._allocator.blocks_of(Owner.BALLOON).pages)

        monkeypatch.setattr(BalloonDriver, "_give_up", forgetful)


class HandledWhilePaused(Bug):
    """Hints that were in the queue when the vCPUs stopped were handled while the VM's memory was saved."""

    name = "hints handled while the VM is paused"
    symptom = "RAM changed while the VM was paused"

    def check(self):
        changed, taken_meanwhile, taken_in_the_end = trio.run(self._pause_and_go_on)
        assert not changed, "RAM changed while the VM was paused and saved"
        assert not taken_meanwhile, "a hint was applied while the VM was paused"
        assert taken_in_the_end == [1024], "the hint is lost that came before the pause"

    async def _pause_and_go_on(self):
        bare = BareBalloon()
        gate, doorbell = Gate(), LoopDoorbell()
        gate.open()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_queue, bare.device, HINTS, doorbell, gate, FreeSchedule())
            bare.device.hinting.request()
            bare.post(HINTS, bare.device.hinting.command_id.to_bytes(4, "little"))
            bare.post(HINTS, writable=[(4 * MIB, PAGE)])
            bare.queues[HINTS].publish()
            doorbell.ring()
            gate.close()
            saved = bare.memory.read(0, bare.memory.size)
            await trio.testing.wait_all_tasks_blocked()
            changed = bare.memory.read(0, bare.memory.size) != saved
            taken_meanwhile = list(bare.pages)
            gate.open()
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        return changed, taken_meanwhile, bare.pages

    def put_back(self, monkeypatch):
        monkeypatch.setattr(Gate, "close", lambda gate: None)


BUGS = (
    NoDoneOnCancel(),
    NoHandler(),
    LeakedNotifier(),
    LeakedDoorbell(),
    FreePagesNeeded(),
    UnloadedWhileHinting(),
    HandledWhilePaused(),
)
