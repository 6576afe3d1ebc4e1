"""The guest: one vCPU that runs its drivers and its workload, a piece at a time."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from guest_agent.allocator import BuddyAllocator
from guest_agent.checked_pages import CheckedPages
from guest_agent.config import GuestConfig
from guest_agent.devices import Devices
from guest_agent.drivers.driver import Driver
from guest_agent.exits import Exits
from guest_agent.marked_ram import MarkedRam
from guest_agent.page_database import Owner, PageDatabase
from guest_agent.ram_layout import BootPage
from guest_agent.vcpu_state import VcpuState, VcpuStateBroken
from guest_agent.verdict import Verdict, verify
from guest_agent.vhost_user import SavedTransport, SavedTransportBroken, VhostUserTransport
from guest_agent.workload import WORKLOADS, Objects
from spec.balloon import StatisticTag
from vdev.errors import UserError
from vdev.events import SILENT, Emitter, GuestVerified
from vdev.memory import PAGE_SIZE, GuestMemory

__all__ = ["Guest", "GuestConfig"]

_HOUSEKEEPING_INTERVAL = 0.2
"""Seconds between two looks at what no interrupt tells drivers of, such as that there is free memory again."""

_BURST = 4
"""Operations that a late guest makes up for; what it is later than that, it does not catch up."""


class Guest:
    """A guest on `memory`, as `boot` or `restore` made it. Synchronous; time comes in as an argument.

    All its state but the few fields of VcpuState is in guest RAM. `slots` are devices that vhost-user back ends serve.
    """

    def __init__(
        self,
        boot: BootPage,
        exits: Exits,
        config: GuestConfig,
        events: Emitter,
        slots: Sequence[VhostUserTransport] = (),
    ) -> None:
        self.config = config
        self.operation_count = 0
        self._resumed_at: int | None = None
        self._boot = boot
        self._events = events
        database = PageDatabase(boot.ram, boot["database_address"])
        self._pages = CheckedPages(database, config.seed)
        self.allocator = BuddyAllocator(boot, database, events)
        workload = WORKLOADS[config.workload]
        self.objects = Objects(boot, self.allocator, self._pages, workload.owner)
        self.workload = workload(self.objects, config.workload_options)
        self._devices = Devices(boot, exits, self.allocator, self._statistics, events, slots)
        self._random = np.random.Generator(np.random.PCG64(config.seed))
        self._now: float | None = None
        self._due = 0.0
        self._delay = 0.0
        self._housekeeping_due = 0.0
        self._devices_pending = True
        self._devices_went_last = False

    @classmethod
    def boot(
        cls,
        memory: GuestMemory,
        exits: Exits,
        config: GuestConfig,
        events: Emitter = SILENT,
        slots: Sequence[VhostUserTransport] = (),
    ) -> "Guest":
        """Boot on zeroed RAM: lay it out, start the drivers, let the workload begin.

        Raises UserError if RAM or the configuration cannot do.
        """
        guest = cls(BootPage.create(MarkedRam(memory), config.poison_value), exits, config, events, slots)
        guest.allocator.take_over_ram()
        guest._devices.start(config.mmio_addresses, config.device_options, config.slot_options)
        begin = guest.workload.warm_up if config.warm_up else guest.workload.boot
        begin(guest._random)
        return guest

    @classmethod
    def restore(
        cls,
        memory: GuestMemory,
        exits: Exits,
        state: bytes,
        events: Emitter = SILENT,
        slots: Sequence[VhostUserTransport] = (),
    ) -> "Guest":
        """Go on where the guest stopped that saved `state`, on RAM with the same content.

        The rings of devices in `slots` stand still until `resume_devices`. Raises VcpuStateBroken for bytes that are no
        such state or need other slots, GuestCorruption if the RAM has no guest to find, and DeviceRefused or
        DeviceViolation for a slot's device that the guest cannot go on with.
        """
        vcpu = VcpuState.from_bytes(state)
        try:
            config = GuestConfig.from_json(vcpu.config)
            saved_slots = [SavedTransport.from_json(saved) for saved in vcpu.slots]
        except (UserError, SavedTransportBroken) as error:
            raise VcpuStateBroken(f"the vCPU state has a broken part: {error}") from None
        if len(saved_slots) != len(slots):
            raise VcpuStateBroken(f"the vCPU state has {len(saved_slots)} vhost-user slots, this host {len(slots)}")
        guest = cls(BootPage.attach(MarkedRam(memory)), exits, config, events, slots)
        guest._boot.ram.digest = vcpu.digest
        try:
            guest._random.bit_generator.state = vcpu.random
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise VcpuStateBroken(f"the vCPU state has a broken random generator: {error}") from None
        guest._devices.resume(saved_slots)
        guest.operation_count = guest._resumed_at = vcpu.operation_count
        guest._delay = vcpu.delay
        return guest

    # Running

    def step(self, now: float) -> float:
        """Do one piece of work at `now` seconds; return the seconds until the next is due, 0 for at once.

        Pending work of drivers goes first; when an operation of the workload is due too, they take turns.
        """
        if self._now is None:
            self._due, self._housekeeping_due = now + self._delay, now + _HOUSEKEEPING_INTERVAL
        self._now = now
        if now >= self._housekeeping_due and not self._devices_pending:
            self._housekeeping_due = now + min(self._devices.housekeep(now), _HOUSEKEEPING_INTERVAL)
            self._devices_pending = True
        operation_due = self.config.rate > 0 and now >= self._due
        if self._devices_pending and not (operation_due and self._devices_went_last):
            self._devices_pending = self._devices.work()
            self._devices_went_last = True
        elif operation_due:
            self._operate(now)
            self._devices_went_last = False
        return self._wait(now)

    def _operate(self, now: float) -> None:
        self.workload.step(self._random)
        self.operation_count += 1
        period = 1 / self.config.rate
        self._due = max(self._due + period, now - _BURST * period)

    def _wait(self, now: float) -> float:
        if self._devices_pending:
            return 0.0
        due = min(self._due, self._housekeeping_due) if self.config.rate > 0 else self._housekeeping_due
        return max(due - now, 0.0)

    def handle_interrupt(self) -> None:
        """Look why the host interrupted; the work that follows is done by `step`."""
        self._devices.handle_interrupt()
        self._devices_pending = True

    @property
    def drivers(self) -> Sequence[Driver]:
        """The drivers of its devices, in the order in which these were found."""
        return self._devices.drivers

    def filenos(self) -> list[int]:
        """Return the descriptors that become readable when a device in a slot interrupts: `handle_interrupt` then."""
        return self._devices.filenos()

    # Moving

    def suspend_devices(self) -> None:
        """Make devices in slots stand still: nobody writes to RAM while the guest is halted. Before `save`."""
        self._devices.suspend_slots()

    def resume_devices(self) -> None:
        """Let devices in slots go on, and make up for interrupts that were lost meanwhile."""
        self._devices.resume_slots()
        self.handle_interrupt()

    @property
    def resumed_operations(self) -> int:
        """Operations since the guest was last restored, 0 if it never was."""
        return 0 if self._resumed_at is None else self.operation_count - self._resumed_at

    def save(self) -> bytes:
        """Return the vCPU state, as of between two steps; devices in slots must stand still (`suspend_devices`)."""
        delay = self._delay if self._now is None else max(self._due - self._now, 0.0)
        random: dict[str, Any] = dict(self._random.bit_generator.state)
        return VcpuState(
            self.config.to_json(),
            random,
            self._boot.ram.digest,
            self.operation_count,
            delay,
            self._resumed_at,
            [slot.to_json() for slot in self._devices.save_slots()],
        ).to_bytes()

    def verify(self) -> Verdict:
        """Check everything that the guest relies on."""
        verdict = verify(
            self._boot,
            self.allocator,
            self.objects,
            self._pages,
            resumed_operations=self.resumed_operations,
            operation_count=self.operation_count,
        )
        if self._events.listening:
            self._events.emit(GuestVerified(verdict.pages, verdict.mismatched))
        return verdict

    def verify_json(self) -> dict[str, Any]:
        """Return the verdict as a JSON-ready mapping."""
        return self.verify().to_json()

    def _statistics(self) -> dict[int, int]:
        free = self.allocator.free_page_count
        caches = self.objects.page_count if self.workload.owner is Owner.PAGE_CACHE else 0
        balloon = len(self.allocator.blocks_of(Owner.BALLOON).pages)
        return {
            StatisticTag.FREE_MEMORY: free * PAGE_SIZE,
            StatisticTag.TOTAL_MEMORY: (self._boot.ram.memory.page_count - balloon) * PAGE_SIZE,
            StatisticTag.AVAILABLE_MEMORY: (free + caches) * PAGE_SIZE,
            StatisticTag.DISK_CACHES: caches * PAGE_SIZE,
        }
