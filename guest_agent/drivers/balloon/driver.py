"""The balloon driver: starting it, finding it again after a migration, and which part works when."""

import math

import numpy as np

from guest_agent.drivers.balloon.area import BalloonArea
from guest_agent.drivers.balloon.behaviour import HintAnswer, HintBehaviour
from guest_agent.drivers.balloon.free_bitmap import FreeBitmap
from guest_agent.drivers.balloon.held_hints import HINT_OWNERS
from guest_agent.drivers.balloon.hinting import HintPoster
from guest_agent.drivers.balloon.inflation import Inflater
from guest_agent.drivers.balloon.needs import BALLOON_DRIVER_FEATURES, choose_features, needed_size
from guest_agent.drivers.balloon.piece import Piece
from guest_agent.drivers.balloon.reporting import FreePageReporter
from guest_agent.drivers.balloon.statistics import StatisticsAnswerer, StatisticsSource
from guest_agent.drivers.giving_up import check_needs_no_reset, give_up_device
from guest_agent.drivers.pages import PageAllocator, Pages
from guest_agent.drivers.rings import usable_queue_size
from guest_agent.page_database import Owner
from guest_agent.transport import Transport
from guest_agent.virtqueue.factory import attach_driver_queue, make_driver_queue
from guest_agent.virtqueue.queue import DriverQueue
from spec.balloon import CONFIG, CONFIG_WITH_INTERVAL, BalloonFeature, BalloonQueue, QueueNumbering, queue_numbers
from spec.device import Feature, feature_mask
from spec.mmio import Interrupt
from vdev.errors import DeviceViolation, UserError
from vdev.events import SILENT, Emitter
from vdev.memory import GuestMemory

__all__ = ["BALLOON_DRIVER_FEATURES", "BalloonDriver"]

_NUMBERINGS = tuple(QueueNumbering)


class BalloonDriver:
    """Drives one balloon device. Make one with `start`, or with `resume` in a guest that was moved.

    The object itself remembers nothing: the state is in the driver's area of guest RAM, pages that are held are known
    to the page database by their owner. `handle_interrupt` is short; `work` does the rest, a bounded piece per call.
    """

    def __init__(
        self,
        area: BalloonArea,
        registers: Transport,
        allocator: PageAllocator,
        queues: dict[BalloonQueue, DriverQueue],
        *,
        statistics: StatisticsSource,
        events: Emitter,
    ) -> None:
        self.queues = queues
        """The queues that the negotiated features brought."""
        self._area = area
        self._registers = registers
        self._allocator = allocator
        self._statistics_source = statistics
        self._events = events
        self._make_parts()
        allocator.add_shrinker(self.shrink)

    def _make_parts(self) -> None:
        """Make the parts over `queues` as they are now: nothing that a part must remember is in it."""
        area, queues, registers, allocator = self._area, self.queues, self._registers, self._allocator
        self._inflater = Inflater(
            area, queues[BalloonQueue.INFLATE], queues[BalloonQueue.DEFLATE], registers, allocator
        )
        self._statistics = self._hints = self._reporter = None
        if (queue := queues.get(BalloonQueue.STATISTICS)) is not None:
            self._statistics = StatisticsAnswerer(area, queue, registers, self._statistics_source)
        if (queue := queues.get(BalloonQueue.FREE_PAGE)) is not None:
            self._hints = HintPoster(area, queue, registers, allocator)
        if (queue := queues.get(BalloonQueue.REPORTING)) is not None:
            self._reporter = FreePageReporter(area, queue, registers, allocator)

    @staticmethod
    def area_size(queue_size: int = 128) -> int:
        """Return the bytes of guest RAM, whole pages, that the driver needs for itself."""
        return BalloonArea.size(queue_size)

    @classmethod
    def start(
        cls,
        registers: Transport,
        memory: GuestMemory,
        allocator: PageAllocator,
        area_address: int,
        *,
        statistics: StatisticsSource,
        wanted_features: int = BALLOON_DRIVER_FEATURES,
        queue_size: int = 128,
        numbering: QueueNumbering = QueueNumbering.FIXED,
        poison_value: int | None = None,
        events: Emitter = SILENT,
        hint_behaviour: HintBehaviour | None = None,
    ) -> "BalloonDriver":
        """Bring the device up, with queues of at most `queue_size` (a power of two) descriptors.

        Of `wanted_features` (a mask) those are used that the device offers; VERSION_1 is always wanted.
        `poison_value` is the 32-bit pattern that the guest's allocator fills free pages with, None if it does not; then
        PAGE_POISON is not accepted. A guest that does poison accepts hints and reports only together with PAGE_POISON.
        `hint_behaviour` says how hints are given, None as Linux does.

        Raises DeviceRefused if the device cannot do what the driver needs, UserError if the guest has no room for it.
        """
        hint_behaviour = HintBehaviour() if hint_behaviour is None else hint_behaviour
        registers.acknowledge_device()
        wanted_features |= feature_mask(Feature.VERSION_1)
        if hint_behaviour.answer is HintAnswer.BITMAP:
            # The device keeps the buffer for its next request while others behind it come back.
            wanted_features &= ~feature_mask(Feature.IN_ORDER)
        features = choose_features(registers.offered_features() & wanted_features, poison_value)
        if not features >> Feature.VERSION_1 & 1:
            raise registers.fail("it does not offer VERSION_1")
        registers.accept_features(features)
        area = BalloonArea.create(memory, area_address, queue_size)
        area["features"] = features
        area["numbering"] = _NUMBERINGS.index(numbering)
        area.hint_behaviour = hint_behaviour
        queues = {}
        for role, number in queue_numbers(features, numbering).items():
            size = usable_queue_size(queue_size, registers.queue_size_max(number))
            if size < needed_size(role, area):
                raise registers.fail(f"queue {number} ({role.name}) has at most {size} descriptors")
            queues[role] = make_driver_queue(memory, number, size, area.queue_address(role), features, events)
            registers.set_up_queue(number, queues[role].addresses)
        if features >> BalloonFeature.PAGE_POISON & 1 and poison_value is not None:
            registers.write_config(CONFIG, "poison_val", poison_value)
        if BalloonQueue.FREE_PAGE in queues and hint_behaviour.answer is HintAnswer.BITMAP:
            try:
                FreeBitmap.create(area, allocator)
            except UserError as error:
                registers.fail(str(error))
                raise
        driver = cls(area, registers, allocator, queues, statistics=statistics, events=events)
        if driver._statistics is not None:
            driver._statistics.add_buffer()
        if driver._hints is not None:
            driver._hints.begin()
        registers.drive()
        if driver._statistics is not None:
            driver._statistics.publish()
        if driver._hints is not None:
            driver._hints.publish()
        # Whatever the device changed before it was live came without an interrupt.
        area["config_pending"] = 1
        return driver

    @classmethod
    def resume(
        cls,
        registers: Transport,
        memory: GuestMemory,
        allocator: PageAllocator,
        area_address: int,
        *,
        statistics: StatisticsSource,
        events: Emitter = SILENT,
    ) -> "BalloonDriver":
        """Go on where another object left the driver's area at `area_address`.

        Raises NoQueueHere if there is none.
        """
        area = BalloonArea.find(memory, area_address)
        numbers = queue_numbers(area["features"], _NUMBERINGS[area["numbering"]])
        queues = {
            role: attach_driver_queue(memory, number, area.queue_address(role), events)
            for role, number in numbers.items()
        }
        return cls(area, registers, allocator, queues, statistics=statistics, events=events)

    @property
    def features(self) -> int:
        """The mask of negotiated features."""
        return self._area["features"]

    @property
    def target(self) -> int:
        """Pages that the device wants in the balloon, as last read."""
        return self._area["target"]

    @property
    def actual(self) -> int:
        """Pages in the balloon, as the device has acknowledged them."""
        return self._area["actual"]

    @property
    def gave_up(self) -> str | None:
        """Why the device was given up, None while it is in use."""
        return self._area.reason

    @property
    def next_piece(self) -> Piece:
        """The piece of the work on hints that `work` will do when it is called next.

        With HintBehaviour.single_steps it does that and nothing else, and serves the other queues when this is IDLE.
        """
        if self.gave_up is not None or self._hints is None:
            return Piece.IDLE
        return Piece.LOOK if self._area["config_pending"] else self._hints.next_piece

    def handle_interrupt(self) -> None:
        """Look why the device interrupted, and note what is to be done; `work` does it."""
        if self.gave_up is not None:
            return
        if self._registers.take_interrupt() & Interrupt.CONFIGURATION_CHANGE:
            self._area["config_pending"] = 1

    def work(self) -> bool:
        """Do one bounded piece of what is to be done; return whether there is more to do at once.

        False means: nothing until the next interrupt, or until the guest has free pages again. What the device breaks
        makes the driver give it up.
        """
        if self.gave_up is not None:
            return False
        try:
            if self._area["config_pending"]:
                return self._look_at_device()
            if self._hints is not None and self._area["hint_single_steps"] and self._hints.next_piece is not Piece.IDLE:
                return self._hints.work()
            has_more = False
            for part in (self._hints, self._inflater, self._statistics, self._reporter):
                if part is not None:
                    has_more |= part.work()
            return has_more
        except DeviceViolation as violation:
            self._give_up(violation)
            return False

    def report_free_pages(self) -> bool:
        """Begin a pass of free page reporting if it is worth while; return whether `work` has some to do."""
        return self.gave_up is None and self._reporter is not None and self._reporter.begin()

    def restart_queue(self, role: BalloonQueue, size: int | None = None) -> None:
        """Reset one queue and set it up again, empty, with `size` (a power of two) descriptors, while the others go on.

        None leaves the size as it was. What the device had given back counts. What it held is the driver's again:
        requests to inflate or deflate and an id are posted anew, the statistics buffer is filled anew, blocks in a
        report go with the rest of its pass, and hinted blocks stay held until DONE. Call `work` afterwards.

        Raises ValueError if the driver's area has no room for that size or RING_RESET was not negotiated, DeviceRefused
        if the device does not take the queue again. What else the device breaks makes the driver give it up.
        """
        before = self.queues[role]
        size = before.size if size is None else size
        if not needed_size(role, self._area) <= size <= self._area["queue_size"]:
            raise ValueError(f"{size} descriptors for {role.name}")
        if not self.features >> Feature.RING_RESET & 1:
            raise ValueError("RING_RESET was not negotiated")
        if self.gave_up is not None:
            return
        try:
            self._registers.reset_queue(before.number)
            self._part_of(role).collect()
            self.queues[role] = make_driver_queue(
                self._area.memory, before.number, size, self._area.queue_address(role), self.features, self._events
            )
            self._registers.set_up_queue(before.number, self.queues[role].addresses)
        except DeviceViolation as violation:
            self._give_up(violation)
            return
        self._make_parts()
        self._part_of(role).begin_again()

    def _part_of(self, role: BalloonQueue) -> Inflater | StatisticsAnswerer | HintPoster | FreePageReporter:
        parts = {
            BalloonQueue.STATISTICS: self._statistics,
            BalloonQueue.FREE_PAGE: self._hints,
            BalloonQueue.REPORTING: self._reporter,
        }
        return parts.get(role) or self._inflater

    def housekeep(self, now: float) -> float:
        """See whether there are free pages worth telling, and whether it is time to hint anew.

        `now` is in seconds; returns in how many seconds to look again at the latest.
        """
        self.report_free_pages()
        return math.inf if self._hints is None or self.gave_up is not None else self._hints.refresh.tick(now)

    @property
    def collected_hints(self) -> Pages:
        """Heads of the blocks that are collected and not yet queued; the pages, for a bitmap."""
        return np.empty(0, np.int64) if self._hints is None else self._hints.collected

    @property
    def reclaimable_hints(self) -> Pages:
        """Heads of the hinted blocks that memory pressure may take back now, ascending."""
        return np.empty(0, np.int64) if self._hints is None else self._hints.held.reclaimable

    def take_back_hints(self, heads: Pages) -> int:
        """Give some of `reclaimable_hints` back to the allocator as memory pressure does; return how many pages."""
        return 0 if self._hints is None else self._hints.held.take_back(heads)

    def shrink(self, wanted: int) -> int:
        """Give back what the driver holds, until `wanted` pages are free; return how many became so.

        Reported pages first, then hinted ones, then, with DEFLATE_ON_OOM, the balloon's.
        """
        freed = 0
        if self.gave_up is not None:
            return freed
        try:
            for part in (self._reporter, self._hints, self._inflater):
                if part is not None and freed < wanted:
                    freed += part.shrink(wanted - freed)
        except DeviceViolation as violation:
            before = self._allocator.free_page_count
            self._give_up(violation)
            freed += self._allocator.free_page_count - before
        return freed

    def _look_at_device(self) -> bool:
        self._area["config_pending"] = 0
        check_needs_no_reset(self._registers)
        has_interval = self._hints is not None and self._hints.refresh.reads_interval
        fields = ["num_pages"]
        if self._hints is not None:
            fields += ["free_page_hint_cmd_id", "free_page_hint_interval"]
        config = self._registers.read_config(CONFIG_WITH_INTERVAL if has_interval else CONFIG, fields)
        self._inflater.see_target(config["num_pages"])
        if self._hints is not None:
            self._hints.see_config(config["free_page_hint_cmd_id"], config.get("free_page_hint_interval", 0))
            if self._reporter is not None and self._area.is_hinting:
                self._reporter.make_way()
        return True

    def _give_up(self, why: DeviceViolation) -> None:
        """Let all pages go, too: the guest lives on without its balloon."""
        give_up_device(self._area, self._registers, why, self._events)
        held = self._allocator.blocks_of(Owner.BALLOON, Owner.REPORTED, *HINT_OWNERS)
        self._allocator.free_blocks(held.pages)
