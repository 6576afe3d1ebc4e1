"""A guest of a few data pages whose next act is told to it: between any two of its acts, others can act."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from guest_agent.drivers.balloon import BalloonDriver, Piece
from guest_agent.drivers.balloon.area import BUFFERS, STATE, BalloonArea, command_ids
from guest_agent.drivers.balloon.behaviour import HintAnswer, HintBehaviour
from guest_agent.exits import Exits
from guest_agent.mmio import MmioDriver
from guest_agent.page_database import Owner
from guest_agent.small_allocator import SmallAllocator
from guest_agent.vcpu_state import VcpuStateBroken
from guest_agent.virtqueue.queue import DriverQueue
from spec.balloon import HINT_BITMAP_HEADER, BalloonFeature, BalloonQueue
from spec.device import Feature, feature_mask
from vdev.errors import UserError
from vdev.events import SILENT, Emitter
from vdev.memory import PAGE_SIZE, GuestMemory

__all__ = ["GuestShape", "SmallGuest"]

_QUEUE_SIZE = 8
_VERSION_SIZE = 8
_MAX_PAGES = 64
_FEATURES = feature_mask(Feature.VERSION_1, BalloonFeature.FREE_PAGE_HINT)

_ACTS = {
    Piece.LOOK: "look",
    Piece.REAP: "reap",
    Piece.ANNOUNCE: "announce",
    Piece.COLLECT: "collect",
    Piece.QUEUE: "queue",
    Piece.END: "end",
}


@dataclass(frozen=True)
class GuestShape:
    """What a small guest is made of. Raises UserError for what cannot be.

    `pages` of data, which are the first of RAM. `hints` pages may be hinted in all (answers, for a bitmap); None for no
    limit. `packed` says which format its rings have. The other fields are words of HintBehaviour.
    """

    pages: int = 1
    hints: int | None = None
    packed: bool = False
    answer: str = "list"
    holds: str = "until-queued"
    collects: str = "after-announcing"
    start_buffer: str = "fresh"
    refresh: str = "never"

    def __post_init__(self) -> None:
        if not 1 <= self.pages <= _MAX_PAGES:
            raise UserError(f"a small guest of {self.pages} pages; give 1 to {_MAX_PAGES}")
        if self.hints is not None and self.hints < 0:
            raise UserError(f"{self.hints} hints in all; give 0 or more")
        self.behaviour  # noqa: B018  raises for words that mean nothing

    @property
    def behaviour(self) -> HintBehaviour:
        """How it answers: one page a hint, one hint a batch, one piece a call."""
        return HintBehaviour.of(
            answer=self.answer,
            holds=self.holds,
            collects=self.collects,
            start_buffer=self.start_buffer,
            refresh=self.refresh,
            order=0,
            batch=1,
            single_steps=True,
        )

    @property
    def memory_size(self) -> int:
        """Bytes of RAM: the data pages, a page for the driver to keep, the driver's area."""
        return self.area_address + BalloonDriver.area_size(_QUEUE_SIZE)

    @property
    def area_address(self) -> int:
        """Where the driver's area begins."""
        return (self.pages + 1) * PAGE_SIZE


class SmallGuest:
    """Make one with `boot`, or with `restore` where RAM came from elsewhere. Synchronous.

    A page's content is its version: 8 bytes, little endian, 0 for never written. What the guest wrote last it knows by
    itself (`wanted`), beside RAM: so it can tell RAM that is stale.
    """

    def __init__(
        self, memory: GuestMemory, shape: GuestShape, allocator: SmallAllocator, driver: BalloonDriver, base: int
    ) -> None:
        self.memory = memory
        self.shape = shape
        self.allocator = allocator
        self.driver = driver
        self.wanted = [0] * shape.pages
        """The version that the guest wrote last into each page."""
        self.hint_count = 0
        """Pages hinted so far; answers, for a bitmap."""
        self._base = base
        self._area = BalloonArea.find(memory, shape.area_address)

    @classmethod
    def boot(
        cls, memory: GuestMemory, exits: Exits, base: int, shape: GuestShape, events: Emitter = SILENT
    ) -> "SmallGuest":
        """Start on zeroed RAM, with the balloon's registers at `base`; all data pages are free.

        Raises DeviceRefused or DeviceViolation as the driver does.
        """
        allocator = SmallAllocator(shape.pages, driver_pages=[shape.pages])
        driver = BalloonDriver.start(
            MmioDriver(exits, base),
            memory,
            allocator,
            shape.area_address,
            statistics=dict,
            wanted_features=_FEATURES | (feature_mask(Feature.RING_PACKED) if shape.packed else 0),
            queue_size=_QUEUE_SIZE,
            hint_behaviour=shape.behaviour,
            events=events,
        )
        guest = cls(memory, shape, allocator, driver, base)
        guest._limit_hints()
        while driver.next_piece is not Piece.IDLE:
            driver.work()
        return guest

    @classmethod
    def restore(cls, memory: GuestMemory, exits: Exits, state: bytes, events: Emitter = SILENT) -> "SmallGuest":
        """Go on where the guest stopped that gave `state`, on RAM with the same content.

        Raises VcpuStateBroken for bytes that are no such state, NoQueueHere for RAM without its driver.
        """
        saved = _Saved.from_bytes(state)
        allocator = SmallAllocator(saved.shape.pages)
        allocator.owners = [Owner(owner) for owner in saved.owners]
        transport = MmioDriver(exits, saved.base)
        driver = BalloonDriver.resume(
            transport, memory, allocator, saved.shape.area_address, statistics=dict, events=events
        )
        guest = cls(memory, saved.shape, allocator, driver, saved.base)
        guest.wanted, guest.hint_count = list(saved.wanted), saved.hint_count
        guest._limit_hints()
        return guest

    def save(self) -> bytes:
        """Return what is not in RAM, as of between two acts."""
        owners = [int(owner) for owner in self.allocator.owners]
        return _Saved(self.shape, self._base, owners, self.wanted, self.hint_count).to_bytes()

    # Acts

    def handle_interrupt(self) -> None:
        """Note why the device interrupted; the driver's next acts look into it."""
        self.driver.handle_interrupt()

    @property
    def next_act(self) -> str | None:
        """What the driver does next, None when it has nothing to do."""
        return _ACTS.get(self.driver.next_piece)

    @property
    def can_hint(self) -> bool:
        """Whether a page that is free may still be hinted."""
        return self.shape.hints is None or self.hint_count < self.shape.hints

    def can_write(self, page: int) -> bool:
        """Say whether a page can be written now: it is in use, free, or held and may be taken back."""
        owner = self.allocator.owners[page]
        return owner in (Owner.WORKLOAD, Owner.FREE) or page in self.driver.reclaimable_hints

    def can_free(self, page: int) -> bool:
        """Say whether a page is in use."""
        return self.allocator.owners[page] is Owner.WORKLOAD

    def acts(self) -> list[tuple[str, int | None]]:
        """Return what can be done now: the driver's next act, then writes, then frees, by page."""
        pages: Sequence[int] = range(self.shape.pages)
        driver = self.next_act
        return [
            *([(driver, None)] if driver is not None else []),
            *(("write", page) for page in pages if self.can_write(page)),
            *(("free", page) for page in pages if self.can_free(page)),
        ]

    def do(self, name: str, page: int | None = None) -> None:
        """Do one act. Raises ValueError if it cannot be done now."""
        if name == "write" and page is not None and self.can_write(page):
            self._write(page)
        elif name == "free" and page is not None and self.can_free(page):
            self.allocator.owners[page] = Owner.FREE
        elif name == self.next_act and page is None:
            self.driver.work()
            if name == "collect":
                self._count_hints()
        else:
            raise ValueError(f"the guest cannot {name}{'' if page is None else f' {page}'} now")

    def _write(self, page: int) -> None:
        owners = self.allocator.owners
        if owners[page] not in (Owner.WORKLOAD, Owner.FREE):
            self.driver.take_back_hints(np.array([page], np.int64))
        owners[page] = Owner.WORKLOAD
        self.wanted[page] += 1
        self.memory.write(page * PAGE_SIZE, self.wanted[page].to_bytes(_VERSION_SIZE, "little"))

    def _count_hints(self) -> None:
        count = len(self.driver.collected_hints)
        self.hint_count += min(count, 1) if self.shape.answer == HintAnswer.BITMAP.value else count
        self._limit_hints()

    def _limit_hints(self) -> None:
        if self.shape.hints is None:
            return
        left = self.shape.hints - self.hint_count
        is_bitmap = self.shape.answer == HintAnswer.BITMAP.value
        self.allocator.offered_count = self.shape.pages * bool(left) if is_bitmap else left

    # What there is to see

    @property
    def has_collected(self) -> bool:
        """Whether something is collected that is still to be queued; it may be a bitmap of no page."""
        return bool(self._area["batch_ready"])

    @property
    def hint_queue(self) -> DriverQueue:
        """The driver's queue for hints."""
        return self.driver.queues[BalloonQueue.FREE_PAGE]

    @property
    def hint_queue_address(self) -> int:
        """Where the area of that queue begins."""
        return self._area.queue_address(BalloonQueue.FREE_PAGE)

    @property
    def record_span(self) -> tuple[int, int]:
        """Address and size of the record of the driver's state."""
        return self._area.address, STATE.sizeof()

    def changing_spans(self) -> list[tuple[int, int]]:
        """Return what of RAM the guest may change as (address, size), its hint queue's area left aside."""
        buffers = self._area.buffer_address("collected_heads")
        buffers_end = self._area.buffer_address("inflate_frames") + BUFFERS.sizeof()
        ids = self._area.queue_address(BalloonQueue.INFLATE) - PAGE_SIZE
        bitmap = self.shape.pages * PAGE_SIZE
        return [
            *((page * PAGE_SIZE, _VERSION_SIZE) for page in range(self.shape.pages)),
            (bitmap, HINT_BITMAP_HEADER.sizeof() + -(-self.memory.page_count // 8)),
            self.record_span,
            (buffers, buffers_end - buffers),
            (ids, command_ids(_QUEUE_SIZE).sizeof()),
        ]

    def use(self, page: int) -> str:
        """Return "free", "held" (by the driver, for the host), or "used": the guest relies on it."""
        owner = self.allocator.owners[page]
        return "free" if owner is Owner.FREE else "used" if owner is Owner.WORKLOAD else "held"

    def version(self, page: int) -> int:
        """Return the version that stands in RAM."""
        return int.from_bytes(self.memory.read(page * PAGE_SIZE, _VERSION_SIZE), "little")

    def verify(self) -> list[int]:
        """Return the pages that the guest relies on and that have not the version that it wrote last."""
        return [
            page
            for page in range(self.shape.pages)
            if self.use(page) == "used" and self.version(page) != self.wanted[page]
        ]


@dataclass(frozen=True)
class _Saved:
    shape: GuestShape
    base: int
    owners: list[int]
    wanted: list[int]
    hint_count: int
    format: int = field(default=1)

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, state: bytes) -> "_Saved":
        try:
            mapping: dict[str, Any] = json.loads(state)
            saved = cls(**{**mapping, "shape": GuestShape(**mapping["shape"])})
            if saved.format != 1 or not len(saved.owners) == len(saved.wanted) == saved.shape.pages:
                raise ValueError("its parts do not fit each other")
            for owner in saved.owners:
                Owner(owner)
        except (ValueError, TypeError, KeyError, UserError) as error:
            raise VcpuStateBroken(f"the small guest's state cannot be read: {error}") from None
        return saved
